package rawsock

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout of a TPACKET_V2 slot (Documentation/networking/packet_mmap.rst,
// net/packet/af_packet.c tpacket_rcv): struct tpacket2_hdr, struct sockaddr_ll,
// and for SOCK_DGRAM 16 octets for a link header that isn't there.
const (
	tpacketHeaderLen = int(unsafe.Sizeof(unix.Tpacket2Hdr{}))
	slotDataOffset   = (tpacketHeaderLen+int(unsafe.Sizeof(unix.RawSockaddrLinklayer{}))+
		unix.TPACKET_ALIGNMENT-1)&^(unix.TPACKET_ALIGNMENT-1) + 16

	minBlockLen = 64 << 10 // a few slots' slack at each end, and order-4 pages are there
)

// ring is the memory that the kernel writes packets into: blocks of slots,
// filled one by one and in order. A slot belongs to the kernel or to us, as
// its status says.
type ring struct {
	mem      []byte
	blockLen int
	slotLen  int
	perBlock int // slots; the rest of a block is unused

	block int // offset in mem of the block that the next slot is in
	slot  int // index of the next slot in it
}

// newRing gives the socket a ring of about size octets, whose slots hold
// snaplen octets of packet each, and maps it.
func newRing(fd, size, snaplen int) (*ring, error) {
	r := &ring{blockLen: minBlockLen}
	r.slotLen = (slotDataOffset + snaplen + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)
	for r.blockLen < r.slotLen {
		r.blockLen *= 2
	}
	r.perBlock = r.blockLen / r.slotLen
	blocks := max(1, size/r.blockLen)
	req := unix.TpacketReq{
		Block_size: uint32(r.blockLen),
		Block_nr:   uint32(blocks),
		Frame_size: uint32(r.slotLen),
		Frame_nr:   uint32(blocks * r.perBlock),
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, optionError(fmt.Sprintf("PACKET_RX_RING (%d octets)", blocks*r.blockLen), err)
	}
	mem, err := unix.Mmap(fd, 0, blocks*r.blockLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	r.mem = mem
	return r, nil
}

// header is the next slot's; its status is shared with the kernel.
func (r *ring) header() *unix.Tpacket2Hdr {
	// Slots are aligned to TPACKET_ALIGNMENT and inside mem by construction.
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[r.block+r.slot*r.slotLen]))
}

// read fills f from the next slot, and reports whether there was a packet in
// it. The atomic load of the status is the acquire that pairs with the
// kernel's smp_wmb in __packet_set_status: nothing of the slot is read before.
func (r *ring) read(f *Frame) bool {
	h := r.header()
	status := atomic.LoadUint32(&h.Status)
	if status&unix.TP_STATUS_USER == 0 {
		return false
	}
	at := r.block + r.slot*r.slotLen
	link := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&r.mem[at+tpacketHeaderLen]))
	from, n := int(h.Mac), int(h.Snaplen)
	if uint64(h.Mac)+uint64(h.Snaplen) > uint64(r.slotLen) { // the kernel never says so; if it did, an empty frame is none of ours
		from, n = 0, 0
	}
	f.Data = r.mem[at+from : at+from+n : at+from+n]
	f.Wall = int64(h.Sec)*1e9 + int64(h.Nsec)
	f.Ifindex = int(link.Ifindex)
	f.Outgoing = link.Pkttype == unix.PACKET_OUTGOING
	f.Snapped = h.Snaplen < h.Len
	f.losing = status&unix.TP_STATUS_LOSING != 0
	f.copied = status&unix.TP_STATUS_COPY != 0
	f.Stamped = status&unix.TP_STATUS_TS_SOFTWARE != 0
	f.ChecksumValid = status&unix.TP_STATUS_CSUM_VALID != 0
	f.ChecksumPartial = status&unix.TP_STATUS_CSUMNOTREADY != 0
	return true
}

// slots is how many there are.
func (r *ring) slots() int { return len(r.mem) / r.blockLen * r.perBlock }

// release gives the slot back and moves on. The atomic store is a release:
// the kernel can't reuse the slot before we have read it.
func (r *ring) release() {
	atomic.StoreUint32(&r.header().Status, unix.TP_STATUS_KERNEL)
	r.slot++
	if r.slot < r.perBlock {
		return
	}
	r.slot = 0
	if r.block += r.blockLen; r.block == len(r.mem) {
		r.block = 0
	}
}

func (r *ring) unmap() error {
	mem := r.mem
	r.mem = nil
	return os.NewSyscallError("munmap", unix.Munmap(mem))
}
