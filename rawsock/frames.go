package rawsock

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const ipv4HeaderLen = 20

// A frames batch gathers packets for a packet socket, each with the IP header that
// we write and the link address that it goes to. The socket receives nothing: it
// is bound to no protocol, and behind a filter that passes nothing if it ever were.
//
// PACKET_QDISC_BYPASS stays off: it hides packets from every tap, ours included.
type frames struct {
	fd       int
	id       uint16 // of the next IPv4 header
	priority uint8  // the socket's
	n        int
	index    [batchLen]int
	messages [batchLen]message
	iovecs   [batchLen][2]unix.Iovec
	names    [batchLen]unix.RawSockaddrLinklayer
	headers  [batchLen][ipv6HeaderLen]byte
}

func openFrames() (*frames, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, socketError(err)
	}
	if err := attachFilter(fd, dropAll()); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf); err != nil {
		return nil, errors.Join(optionError("SO_SNDBUF", err), unix.Close(fd))
	}
	f := &frames{fd: fd}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	f.id = binary.NativeEndian.Uint16(id[:])
	for k := range f.messages {
		f.iovecs[k][0].Base = &f.headers[k][0]
		f.names[k].Family = unix.AF_PACKET
		f.names[k].Halen = linkAddressLen
		h := &f.messages[k].header
		h.Name = (*byte)(unsafe.Pointer(&f.names[k]))
		h.Namelen = unix.SizeofSockaddrLinklayer
		h.Iov = &f.iovecs[k][0]
		h.SetIovlen(2)
	}
	return f, nil
}

// add appends a packet, the caller's i-th.
func (f *frames) add(i int, p *Packet, to *hop) {
	k := f.n
	f.n++
	f.index[k] = i
	name := &f.names[k]
	name.Ifindex = to.ifindex
	copy(name.Addr[:], to.neighbour.link[:])
	ttl := p.TTL
	if ttl == 0 {
		ttl = to.ttl
	}
	header := &f.headers[k]
	if p.Dst.Is4() {
		name.Protocol = htons(unix.ETH_P_IP)
		f.iovecs[k][0].SetLen(ipv4HeaderLen)
		putIPv4((*[ipv4HeaderLen]byte)(header[:]), p, f.id, ttl)
		f.id++
	} else {
		name.Protocol = htons(unix.ETH_P_IPV6)
		f.iovecs[k][0].SetLen(ipv6HeaderLen)
		putIPv6(header, p, ttl)
	}
	f.iovecs[k][1].Base = unsafe.SliceData(p.Segment)
	f.iovecs[k][1].SetLen(len(p.Segment))
}

// putIPv4 writes a header as Linux writes that of a raw socket: RFC 791.
func putIPv4(b *[ipv4HeaderLen]byte, p *Packet, id uint16, ttl uint8) {
	src, dst := p.Src.As4(), p.Dst.As4()
	b[0], b[1] = 4<<4|ipv4HeaderLen/4, p.TOS
	binary.BigEndian.PutUint16(b[2:], uint16(ipv4HeaderLen+len(p.Segment)))
	binary.BigEndian.PutUint16(b[4:], id)
	b[6], b[7] = 0x40, 0 // DF
	b[8], b[9] = ttl, unix.IPPROTO_TCP
	b[10], b[11] = 0, 0
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	var sum uint64
	for at := 0; at < ipv4HeaderLen; at += 4 {
		sum += uint64(binary.BigEndian.Uint32(b[at:]))
	}
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}

// putIPv6 writes a header: RFC 8200 §3. Its flow label is 0: "not labeled".
func putIPv6(b *[ipv6HeaderLen]byte, p *Packet, hopLimit uint8) {
	src, dst := p.Src.As16(), p.Dst.As16()
	b[0], b[1], b[2], b[3] = 6<<4|p.TOS>>4, p.TOS<<4, 0, 0
	binary.BigEndian.PutUint16(b[4:], uint16(len(p.Segment)))
	b[6], b[7] = unix.IPPROTO_TCP, hopLimit
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
}

// priorityOf is the priority in queues of what a raw IPv4 socket sends with a TOS
// (net/ipv4/route.c, ip_tos2prio); IPv6's is always 0.
func priorityOf(p *Packet) uint8 {
	if p.Dst.Is6() {
		return 0
	}
	const bestEffort, bulk, interactive, interactiveBulk = 0, 2, 6, 4 // linux/pkt_sched.h
	return [...]uint8{bestEffort, bulk, interactive, interactiveBulk}[p.TOS>>3&3]
}

// prioritise sets the priority of what is added from now on.
func (f *frames) prioritise(priority uint8) error {
	err := unix.SetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_PRIORITY, int(priority))
	if err != nil {
		return optionError("SO_PRIORITY", err)
	}
	f.priority = priority
	return nil
}

// flush sends the batch. What the socket refuses is handed to instead.
func (f *frames) flush(instead func(i int)) {
	for k := 0; k < f.n; {
		n, errno := sendmmsg(f.fd, f.messages[k:f.n])
		switch errno {
		case 0:
			k += n
		case unix.EINTR:
		default:
			instead(f.index[k])
			k++
		}
	}
	f.n = 0
}

func (f *frames) close() error { return closeFD(&f.fd) }
