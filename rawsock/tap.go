package rawsock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Frame is one packet as the tap saw it.
type Frame struct {
	Data    []byte // from the IP header on; valid until the callback returns
	Wall    int64  // CLOCK_REALTIME in ns
	Ifindex int    // the interface that it crossed
	Stamped bool   // Wall is the packet's own stamp, the same for every capture; else this tap read the clock

	Outgoing bool // it is leaving; on loopback it then arrives as well
	Snapped  bool // Data is shorter than the packet, whose checksum the interface verified or nobody can

	ChecksumValid   bool // the interface verified the TCP checksum
	ChecksumPartial bool // the checksum is the pseudo-header's sum: left to hardware or, by a local peer, for good

	losing bool // the kernel had lost packets before this one that nobody has asked about yet
	copied bool // all of the packet is in the socket's queue, too
}

// TapConfig says what a Tap sees and keeps.
type TapConfig struct {
	FirstPort, LastPort uint16 // source or destination port, inclusive
	RingBytes           int    // about the ring's size; default 8 MiB
	Snaplen             int    // octets that a slot of the ring holds of each packet, about; default 256
}

// Defaults: 24,960 slots, and room for the longest TCP and IP headers, or for
// an ICMP error's and its quote's.
const (
	defaultRingBytes = 8 << 20
	defaultSnaplen   = 256
)

// largest is the most octets that are copied of a packet whose checksum is to be verified:
// what is larger was put together by the kernel, which has.
const largest = 1 << 16

// queued is how many octets of packets that are longer than a slot the kernel may hold, twice that as it
// counts them, or of net.core.rmem_max if that is less: some hundred of 1,500 then.
const queued = 1 << 20

// A Tap sees our segments in both directions on every interface, stamped
// where a capture stamps them: on their way out after the queueing discipline,
// on their way in before the IP layer. A stacked device shows a segment once a
// layer. One goroutine drains it; Drops may be called from any.
type Tap struct {
	fd    int
	ring  *ring
	frame Frame  // the callback's, here so that it isn't allocated
	whole []byte // of a packet that is longer than a slot
	drops atomic.Uint64

	doubtful bool // packets may have been lost since Lost asked
	run      int  // packets drained since the ring was found empty
}

// OpenTap opens a tap. Its filter is attached and its ring is mapped before it
// is bound, so that no stray packet is ever in it. Without CAP_NET_RAW the
// error wraps EPERM and says what to do.
//
// The kernel begins to stamp packets some ms after the first tap or capture on
// the host asked for it (net/core/dev.c, net_enable_timestamp); Frame.Stamped
// tells.
func OpenTap(cfg TapConfig) (*Tap, error) {
	if cfg.RingBytes <= 0 {
		cfg.RingBytes = defaultRingBytes
	}
	if cfg.Snaplen <= 0 {
		cfg.Snaplen = defaultSnaplen
	}
	program, err := portFilter(cfg.FirstPort, cfg.LastPort, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	filter, err := kernelFilter(program)
	if err != nil {
		return nil, err
	}
	// Protocol 0: the socket receives nothing until bind names one.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, socketError(err)
	}
	t := &Tap{fd: fd, whole: make([]byte, largest)}
	if err := t.open(cfg, filter); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Tap) open(cfg TapConfig, filter []unix.SockFilter) error {
	if err := attachFilter(t.fd, filter); err != nil {
		return err
	}
	for _, o := range []struct {
		name                 string
		level, option, value int
	}{
		// TPACKET_V2 wakes the reader at each frame, V3 when a block closes.
		{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2},
		// Makes the kernel stamp every packet once, for all taps alike
		// (net/core/dev.c, net_timestamp_set and net_timestamp_check); but not a
		// TCP segment that a veth hands on, which keeps its sender's time of
		// departure in the stamp's place (include/linux/skbuff.h, skb_clear_tstamp).
		{"SO_TIMESTAMPING", unix.SOL_SOCKET, unix.SO_TIMESTAMPING,
			unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE},
		{"PACKET_TIMESTAMP", unix.SOL_PACKET, unix.PACKET_TIMESTAMP, unix.SOF_TIMESTAMPING_SOFTWARE},
		// Of a packet that its slot is too short for, by which it cannot be verified, the queue
		// has the whole, as long as there is room (net/packet/af_packet.c, tpacket_rcv).
		{"PACKET_COPY_THRESH", unix.SOL_PACKET, unix.PACKET_COPY_THRESH, cfg.Snaplen},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, queued},
	} {
		if err := unix.SetsockoptInt(t.fd, o.level, o.option, o.value); err != nil {
			return optionError(o.name, err)
		}
	}
	var err error
	if t.ring, err = newRing(t.fd, cfg.RingBytes, cfg.Snaplen); err != nil {
		return err
	}
	all := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}
	return os.NewSyscallError("bind", unix.Bind(t.fd, &all))
}

// htons puts a number into network byte order.
func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Drain calls fn for up to max packets that have arrived, in the order that
// the ring has them, and returns how many there were. It neither blocks nor
// allocates. The frame is reused: what fn keeps, it copies.
func (t *Tap) Drain(max int, fn func(*Frame)) int {
	n := 0
	for n < max && t.ring.read(&t.frame) {
		t.doubtful = t.doubtful || t.frame.losing
		if t.frame.copied {
			t.complete(&t.frame)
		}
		fn(&t.frame)
		t.ring.release()
		n++
	}
	if t.run += n; t.run >= t.ring.slots()/fullish {
		t.doubtful = true
	}
	if n < max {
		t.run = 0
	}
	return n
}

// complete takes the whole of a packet out of the queue, which has them in the ring's order. It is
// the frame's if nobody has verified the checksum yet.
func (t *Tap) complete(f *Frame) {
	b := t.whole
	if f.Outgoing || f.ChecksumValid || f.ChecksumPartial {
		b = b[:len(f.Data)]
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(t.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		if errno != 0 {
			return
		}
		if !bytes.HasPrefix(b, f.Data) {
			continue // another's, which cannot be
		}
		if n > uintptr(len(f.Data)) && n <= uintptr(len(b)) {
			f.Data, f.Snapped = b[:n:n], false
		}
		return
	}
}

// fullish is the part of the ring that must have been drained in a row for it to have
// been full meanwhile, by far: slots that the kernel is about to fill look empty, so
// that what is in a full ring may be found in some pieces.
const fullish = 8

// Lost is Drops for the goroutine that drains. It asks the kernel only where packets
// may have been lost: the ring is lossless until it is full, what is put into it
// after a loss says so until the kernel is asked (net/packet/af_packet.c, tpacket_rcv:
// TP_STATUS_LOSING), and what was in it before is found by draining.
func (t *Tap) Lost() (uint64, error) {
	if !t.doubtful {
		return t.drops.Load(), nil
	}
	drops, err := t.Drops()
	t.doubtful = err != nil
	return drops, err
}

// Drops returns how many packets the kernel could not put into the ring since
// the tap was opened.
func (t *Tap) Drops() (uint64, error) {
	// Reading resets the kernel's counter; concurrent readers share it out.
	stats, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return t.drops.Load(), os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
	}
	return t.drops.Add(uint64(stats.Drops)), nil
}

// FD is readable while Drain has something to do.
func (t *Tap) FD() int { return t.fd }

// Close ends the tap. Nobody may be in Drain.
func (t *Tap) Close() error {
	if t.fd < 0 {
		return nil
	}
	var unmapped error
	if t.ring != nil && t.ring.mem != nil {
		unmapped = t.ring.unmap()
	}
	closed := os.NewSyscallError("close", unix.Close(t.fd))
	t.fd = -1
	return errors.Join(unmapped, closed)
}
