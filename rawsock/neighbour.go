package rawsock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// linkAddressLen is Ethernet's.
const linkAddressLen = 6

// refreshEvery is how often, in packets, a stale neighbour is left to the kernel.
const refreshEvery = 16

// knownStates are those in which the kernel sends to the link address that it has
// (net/core/neighbour.h, NUD_VALID), but for devices without ARP.
const knownStates = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT

// A neighbourKey names a neighbour as the kernel's table does.
type neighbourKey struct {
	ifindex int32
	addr    netip.Addr
}

// A neighbour is what the kernel knows of one, as it last said. ARP and ND are the
// kernel's alone: what it does not know goes by its own path, which finds it out.
type neighbour struct {
	link  [linkAddressLen]byte
	known bool
	stale bool  // the kernel has not heard of it lately, and looks only if it has something to send itself
	turns uint8 // since it was stale

	refused bool // the firewall did not let out what was to have the kernel look
}

// take reports whether a packet may go to the link address. Some for a stale
// neighbour, the first among them, must go by the kernel: that has it ask whether
// the neighbour is still there (net/core/neighbour.c, __neigh_event_send), and
// until it has an answer it sends to the old address as well.
func (n *neighbour) take() bool {
	if !n.known || !n.stale {
		return n.known
	}
	if n.refused {
		return false
	}
	n.turns++
	return n.turns%refreshEvery != 1
}

// is sets what the kernel says of the neighbour.
func (n *neighbour) is(state uint16, link []byte) {
	n.known = state&knownStates != 0 && len(link) == linkAddressLen
	copy(n.link[:], link)
	stale := state&unix.NUD_STALE != 0
	if stale && !n.stale {
		n.turns = 0
	}
	n.stale = stale
	n.refused = n.refused && stale
}

const ndmsgLen = 12 // struct ndmsg

// readNeighbour reads a message of RTM_NEWNEIGH or RTM_DELNEIGH. ok tells whether
// it is about an entry of the ARP or the ND table.
func readNeighbour(body []byte) (k neighbourKey, state uint16, link []byte, ok bool) {
	if len(body) < ndmsgLen || body[0] != unix.AF_INET && body[0] != unix.AF_INET6 || body[10]&unix.NTF_PROXY != 0 {
		return k, 0, nil, false
	}
	k.ifindex = int32(binary.NativeEndian.Uint32(body[4:]))
	state = binary.NativeEndian.Uint16(body[8:])
	for rest := body[ndmsgLen:]; ; {
		typ, value, next, more := cutAttribute(rest)
		if !more {
			return k, state, link, k.addr.IsValid()
		}
		switch typ {
		case unix.NDA_DST:
			k.addr = addressOf(value)
		case unix.NDA_LLADDR:
			link = value
		}
		rest = next
	}
}

// askNeighbour asks what the kernel knows of a neighbour. Nothing is as good as
// unknown.
func (s *netlinkSocket) askNeighbour(k neighbourKey) *neighbour {
	n := new(neighbour)
	var fixed [ndmsgLen]byte
	fixed[0] = familyOf(k.addr)
	binary.NativeEndian.PutUint32(fixed[4:], uint32(k.ifindex))
	s.begin(unix.RTM_GETNEIGH, fixed[:]...)
	s.address(unix.NDA_DST, k.addr)
	typ, body, err := s.ask()
	if err != nil || typ != unix.RTM_NEWNEIGH {
		return n
	}
	if got, state, link, ok := readNeighbour(body); ok && got == k {
		n.is(state, link)
	}
	return n
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
