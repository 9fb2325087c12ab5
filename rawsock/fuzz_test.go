package rawsock

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// appendNotice writes one of netlink's messages; attributes are type, value pairs.
func appendNotice(b []byte, typ uint16, seq uint32, fixed []byte, attributes ...any) []byte {
	start := len(b)
	b = append(b, make([]byte, unix.SizeofNlMsghdr)...)
	b = append(b, fixed...)
	b = appendAttributes(b, attributes...)
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	binary.NativeEndian.PutUint16(b[start+4:], typ)
	binary.NativeEndian.PutUint32(b[start+8:], seq)
	return b
}

func appendAttributes(b []byte, attributes ...any) []byte {
	for i := 0; i < len(attributes); i += 2 {
		value := attributes[i+1].([]byte)
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
		b = binary.NativeEndian.AppendUint16(b, uint16(attributes[i].(int)))
		b = append(b, value...)
		for len(b)%unix.NLMSG_ALIGNTO != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// inside reports whether a value is a part of the input.
func inside(value, input []byte) bool {
	if len(value) == 0 {
		return true
	}
	at := uintptr(unsafe.Pointer(&value[0])) - uintptr(unsafe.Pointer(unsafe.SliceData(input)))
	return at < uintptr(len(input)) && at+uintptr(len(value)) <= uintptr(len(input))
}

// FuzzNetlink reads any octets as the kernel's messages: each ends the rest by at least
// a header, no value lies outside, and what is read of a route, a link or a neighbour
// can be used.
func FuzzNetlink(f *testing.F) {
	route := make([]byte, rtmsgLen)
	route[7] = unix.RTN_UNICAST
	entry := make([]byte, ndmsgLen)
	entry[0], entry[4], entry[8] = unix.AF_INET, 3, unix.NUD_REACHABLE
	device := make([]byte, ifinfomsgLen)
	binary.NativeEndian.PutUint16(device[2:], unix.ARPHRD_ETHER)
	four, six := []byte{198, 18, 0, 1}, netip.MustParseAddr("2001:db8::1").AsSlice()
	seed := appendNotice(nil, unix.RTM_NEWROUTE, 1, route, unix.RTA_OIF, u32(3), unix.RTA_GATEWAY, four,
		unix.RTA_METRICS, appendAttributes(nil, unix.RTAX_MTU, u32(1400), unix.RTAX_HOPLIMIT, u32(9), unix.RTAX_LOCK, u32(4)))
	f.Add(seed)
	seed = appendNotice(seed, unix.RTM_NEWNEIGH, 2, entry, unix.NDA_DST, four, unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1})
	f.Add(appendNotice(seed, unix.RTM_NEWLINK, 3, device, unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1}, unix.IFLA_MTU, u32(1500),
		unix.IFLA_AF_SPEC, appendAttributes(nil, unix.AF_INET6, appendAttributes(nil, inet6Conf, append(u32(1), u32(64)...)))))
	f.Add(appendNotice(nil, unix.RTM_NEWROUTE, 1, route, unix.RTA_OIF, u32(3), unix.RTA_VIA, append([]byte{10, 0}, six...)))
	f.Add(appendNotice(nil, unix.NLMSG_ERROR, 1, u32(0xffffffff)))
	f.Fuzz(func(t *testing.T, b []byte) {
		dst := netip.AddrFrom4([4]byte{198, 18, 0, 9})
		table := &hopTable{links: map[int32]link{}, neighbours: map[neighbourKey]*neighbour{}}
		heard := table.hear(bytes.Clone(b))
		whole := true
		for rest := b; len(rest) > 0; {
			m, next, ok := cutNotice(rest)
			if !ok {
				whole = false
				break
			}
			if len(next) > len(rest)-unix.SizeofNlMsghdr || !inside(m.body, b) || !inside(next, b) {
				t.Fatalf("%d octets, then %d", len(rest), len(next))
			}
			rest = next
			if w, ok := readRoute(m.body, dst); ok && (w.ifindex <= 0 || !w.gateway.IsValid() || w.mtu <= 0) {
				t.Errorf("%+v", w)
			}
			readLink(m.body)
			if k, _, link, ok := readNeighbour(m.body); ok && (!k.addr.IsValid() || !inside(link, b)) {
				t.Errorf("%+v", k)
			}
			for rest := m.body; ; {
				_, value, next, ok := cutAttribute(rest)
				if !ok {
					break
				}
				if len(next) > len(rest)-unix.SizeofRtAttr || !inside(value, b) {
					t.Fatalf("%d octets, then %d", len(rest), len(next))
				}
				rest = next
			}
		}
		if !whole && !heard {
			t.Error("a message that is cut off left no doubt")
		}

		// What is written is what is read, whatever stands beside it.
		if len(b) > 60_000 {
			return
		}
		fixed := make([]byte, rtmsgLen)
		fixed[7] = unix.RTN_UNICAST
		mtu := uint32(len(b)) + 68
		all := appendNotice(nil, unix.RTM_NEWROUTE, 7, fixed, 200, b, unix.RTA_OIF, u32(5), unix.RTA_GATEWAY, four,
			unix.RTA_METRICS, appendAttributes(nil, 99, b[:len(b)/2], unix.RTAX_MTU, u32(mtu)))
		m, rest, ok := cutNotice(all)
		w, usable := readRoute(m.body, dst)
		if !ok || !usable || len(rest) != 0 || m.typ != unix.RTM_NEWROUTE || m.seq != 7 || w.ifindex != 5 || w.gateway != addressOf(four) || uint32(w.mtu) != mtu {
			t.Errorf("%+v, %v, %+v, %d octets left", w, usable, m, len(rest))
		}
	})
}

// FuzzRing has the kernel write anything into the ring: every frame lies in its own
// slot, each slot is given back, and the next one is the one after it.
func FuzzRing(f *testing.F) {
	const slots = 6 // three a block
	slotLen := slotDataOffset + 64
	blockLen := 3*slotLen + 16
	header := func(status, length, snap uint32, mac uint16) []byte {
		var b []byte
		for _, v := range []uint32{status, length, snap} {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		return binary.NativeEndian.AppendUint16(b, mac)
	}
	f.Add(header(unix.TP_STATUS_USER, 40, 40, uint16(slotDataOffset)), uint8(4))
	f.Add(header(unix.TP_STATUS_USER|unix.TP_STATUS_TS_SOFTWARE|unix.TP_STATUS_CSUM_VALID, 1500, 64, uint16(slotDataOffset)), uint8(200))
	f.Add(header(unix.TP_STATUS_USER|unix.TP_STATUS_COPY, 1500, 64, uint16(slotDataOffset)), uint8(9))
	f.Add(header(unix.TP_STATUS_USER, 40, 65, uint16(slotDataOffset)), uint8(1))
	f.Add(header(unix.TP_STATUS_USER, 40, 1<<32-1, 65535), uint8(9))
	f.Add(header(unix.TP_STATUS_KERNEL, 40, 40, 0), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, turns uint8) {
		if len(b) == 0 {
			return
		}
		mem := make([]byte, 2*blockLen+8)
		mem = mem[8-uintptr(unsafe.Pointer(&mem[0]))%8:][:2*blockLen]
		tap := &Tap{fd: -1, whole: make([]byte, largest), ring: &ring{mem: mem, blockLen: blockLen, slotLen: slotLen, perBlock: slots / 2}}
		for turn := range int(turns) {
			place := turn % slots
			at := place/3*blockLen + place%3*slotLen
			for i := range slotLen { // of each turn other octets
				mem[at+i] = b[(i+turn*7)%len(b)]
			}
			full := binary.NativeEndian.Uint32(mem[at:])&unix.TP_STATUS_USER != 0
			n := tap.Drain(1, func(frame *Frame) {
				if len(frame.Data) > 0 && !inside(frame.Data, mem[at:at+slotLen]) || cap(frame.Data) != len(frame.Data) {
					t.Fatalf("turn %d: %d octets outside its slot", turn, len(frame.Data))
				}
				if frame.Snapped != (binary.NativeEndian.Uint32(mem[at+8:]) < binary.NativeEndian.Uint32(mem[at+4:])) {
					t.Errorf("turn %d: snapped %v", turn, frame.Snapped)
				}
			})
			if (n == 1) != full {
				t.Fatalf("turn %d: %d frames of a slot whose status is %x", turn, n, mem[at:at+4])
			}
			if !full {
				return
			}
			if binary.NativeEndian.Uint32(mem[at:]) != unix.TP_STATUS_KERNEL {
				t.Fatalf("turn %d: the slot was not given back", turn)
			}
		}
	})
}
