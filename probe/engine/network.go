package engine

import (
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
)

// Network is the engine's edge: the kernel, or a simulation of one.
type Network interface {
	// Clocks reads the monotonic clock and the wall clock that stamps packets
	// (ns since the Unix epoch) as one.
	Clocks() (now probe.Instant, wall int64)

	// Route returns how the host reaches dst, through device if that is not empty.
	// A valid source is the one to come back, if the host may send from it. It
	// refuses a dst that is not unicast.
	Route(dst, source netip.Addr, device string) (Route, error)

	// Tentative reports whether an address is this host's and none to send from yet.
	Tentative(a netip.Addr) bool

	// Hop names the next hop of packets from src to dst, through the device of an
	// index if that is not 0, for Packet.Hop. It is 0 where there is none that
	// packets can be handed to past the host's routing.
	Hop(dst, src netip.Addr, ifindex int, tos uint8) uint64

	// RouteGeneration rises when an answer of Route or Hop may have changed.
	RouteGeneration() uint64

	// Queue adds a packet to the batch that Flush sends. The segment's bytes
	// are the caller's until Flush returns. Flush reports each packet that
	// did not leave by its place in the batch, or only when it was tried again.
	Queue(p Packet)
	Flush(failed func(i int, err error))

	// Receive hands over at most limit frames that have arrived, oldest first,
	// without waiting, and returns how many there were.
	Receive(limit int, fn func(*Frame)) int

	// Lost hands over, without waiting, what this host has lost since the last call: an
	// interface, by its index, or an address of its own. Neither: some that nobody can
	// name. What a segment met before that is in the ring by then. An interface that is dark
	// is there, and its carrier is not, which is the network's matter.
	Lost(fn func(ifindex int, a netip.Addr, dark bool))

	// Drops counts the frames that were lost between the kernel and Receive.
	Drops() uint64

	// Wait returns after d or up to 2 ms sooner, or if Wake is called, or, with frames, if
	// there is something to receive on a guarded port.
	Wait(d time.Duration, frames bool)

	// Wake ends a Wait from any goroutine, or the next one.
	Wake()
}

// A Route is how the host reaches an address.
type Route struct {
	Source  netip.Addr
	Ifindex int // of the device that was asked for; 0: of none
	MTU     int // octets of the largest packet that the host takes it to have room for; 0: unknown
}

// A Packet is a TCP segment to send and how.
type Packet struct {
	Segment  []byte // TCP header, options and payload, checksum included
	Src, Dst netip.Addr
	Ifindex  int   // 0: as the host routes
	TTL      uint8 // 0: the host's default
	TOS      uint8
	Hop      uint64 // where it goes by a packet socket, if that can still be; 0: as the host routes
}

// A Frame is one packet as the tap saw it.
type Frame struct {
	Data       []byte // from the IP header on; valid during the callback
	Wall       int64  // the kernel's stamp, ns since the Unix epoch
	Ifindex    int    // the interface that it crossed
	Stamped    bool   // Wall was taken as the packet arrived or left; else as the frame was queued for reading
	Outgoing   bool
	Snapped    bool // Data is shorter than the packet
	ChecksumOK bool // verified by the kernel, or not computed yet because it never left this host
}
