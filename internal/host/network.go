// Package host is the engine's network on a real Linux host: the sockets of
// package rawsock behind engine.Network, opened, tested and closed together.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/rawsock"
)

// A Range is an inclusive range of source ports.
type Range struct{ First, Last uint16 }

// Ports are the source ports to hold: reserved ones for half_open, which our
// kernel resets, and guarded ones for what goes further, where it keeps quiet.
type Ports struct {
	Reserved, Guarded Range
	Packet            bool // what is sent from them may go by a packet socket
}

// A Network is this host's, to be used by one engine.Shard.
type Network struct {
	sender *rawsock.Sender
	tap    *rawsock.Tap
	bell   *rawsock.Bell
	poller *rawsock.Poller
	routes *rawsock.Routes
	losses *rawsock.Losses
	clock  rawsock.Clock

	closers []func() error // in the order of opening
	precise bool           // the loop's thread has precise timers

	packets []rawsock.Packet
	deliver func(*engine.Frame) // Receive's, for show
	show    func(*rawsock.Frame)
	frame   engine.Frame
	drops   uint64
}

var _ engine.Network = (*Network)(nil)

// Open opens everything that probing needs, and proves on loopback that our
// kernel resets what comes to a reserved port and keeps quiet on a guarded one.
// It needs CAP_NET_RAW; the error says in one line what to do.
func Open(p Ports) (*Network, error) {
	n := &Network{clock: rawsock.NewClock()}
	if err := n.open(p); err != nil {
		n.Close()
		return nil, err
	}
	n.show = n.showFrame
	return n, nil
}

func (n *Network) open(p Ports) (err error) {
	if n.tap, err = rawsock.OpenTap(rawsock.TapConfig{FirstPort: p.Reserved.First, LastPort: p.Guarded.Last}); err != nil {
		return err
	}
	n.closers = append(n.closers, n.tap.Close)
	if n.sender, err = rawsock.NewSender(); err != nil {
		return err
	}
	n.closers = append(n.closers, n.sender.Close)
	if p.Packet { // else there is no socket that could send what the kernel would not
		if err := n.sender.AllowHops(); err != nil {
			return err
		}
	}
	if n.routes, err = rawsock.NewRoutes(); err != nil {
		return err
	}
	n.closers = append(n.closers, n.routes.Close)
	if n.losses, err = rawsock.OpenLosses(); err != nil {
		return err
	}
	n.closers = append(n.closers, n.losses.Close)
	if n.bell, err = rawsock.OpenBell(p.Guarded.First, p.Guarded.Last); err != nil {
		return err
	}
	n.closers = append(n.closers, n.bell.Close)
	if n.poller, err = rawsock.NewPoller(n.bell.FDs()...); err != nil {
		return err
	}
	n.closers = append(n.closers, n.poller.Close)
	reserved, err := rawsock.ReservePorts(p.Reserved.First, p.Reserved.Last)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, reserved.Close)
	guarded, err := rawsock.GuardPorts(p.Guarded.First, p.Guarded.Last)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, guarded.Close)
	if err := rawsock.SelfTest(p.Reserved.First, p.Guarded.First); err != nil {
		return err
	}
	for n.tap.Drain(64, func(*rawsock.Frame) {}) > 0 { // the test's own frames
	}
	return nil
}

// Listeners are the descriptors that nothing is sent by.
func (n *Network) Listeners() []int { return append([]int{n.tap.FD()}, n.bell.FDs()...) }

// Close closes everything, the ports last, so that nothing is sent from a port
// that is not held.
func (n *Network) Close() error {
	var errs []error
	for _, c := range n.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Clocks implements engine.Network.
func (n *Network) Clocks() (probe.Instant, int64) {
	now, wall := n.clock.Both()
	return probe.Instant(now), wall
}

// Route implements engine.Network.
func (n *Network) Route(dst, source netip.Addr, device string) (r engine.Route, err error) {
	if device == "" {
		device = dst.Zone()
	}
	if r.Source, r.MTU, err = n.routes.Source(dst, source, device); err != nil || device == "" {
		return r, err
	}
	if r.Ifindex, err = rawsock.DeviceIndex(device); err != nil {
		return r, fmt.Errorf("interface %s: %w", device, err)
	}
	return r, nil
}

// Tentative implements engine.Network.
func (n *Network) Tentative(a netip.Addr) bool { return n.routes.Tentative(a) }

// Hop implements engine.Network.
func (n *Network) Hop(dst, src netip.Addr, ifindex int, tos uint8) uint64 {
	return n.sender.Hop(dst, src, ifindex, tos)
}

// RouteGeneration implements engine.Network. The sender hears of a change before
// it sends, the routes soon after it: each asks for hops that the other may have
// been asked for too early.
func (n *Network) RouteGeneration() uint64 { return n.routes.Generation() + n.sender.HopGeneration() }

// Lost implements engine.Network.
func (n *Network) Lost(fn func(int, netip.Addr, bool)) { n.losses.Read(fn) }

// Queue implements engine.Network.
func (n *Network) Queue(p engine.Packet) {
	n.packets = append(n.packets, rawsock.Packet(p))
}

// Flush implements engine.Network.
func (n *Network) Flush(failed func(int, error)) {
	n.sender.Send(n.packets, failed)
	n.packets = n.packets[:0]
}

// Receive implements engine.Network.
func (n *Network) Receive(limit int, fn func(*engine.Frame)) int {
	n.deliver = fn
	return n.tap.Drain(limit, n.show)
}

func (n *Network) showFrame(f *rawsock.Frame) {
	n.frame = engine.Frame{
		Data:       f.Data,
		Wall:       f.Wall,
		Ifindex:    f.Ifindex,
		Stamped:    f.Stamped,
		Outgoing:   f.Outgoing,
		Snapped:    f.Snapped,
		ChecksumOK: f.ChecksumValid || f.ChecksumPartial,
	}
	n.deliver(&n.frame)
}

// Drops implements engine.Network.
func (n *Network) Drops() uint64 {
	if d, err := n.tap.Lost(); err == nil {
		n.drops = d
	}
	return n.drops
}

// Wait implements engine.Network. The loop that waits is the one to be on time,
// so its thread gets precise timers; without them it is up to 50 µs late.
func (n *Network) Wait(d time.Duration, frames bool) {
	if !n.precise {
		n.precise = rawsock.PreciseTimers() == nil
	}
	if !frames && d >= rawsock.LongNap {
		_ = n.poller.Nap(d) // an error is a signal's or the timer slack's, and the loop looks again anyway
		return
	}
	if rang, _ := n.poller.Wait(max(d, 0), frames); rang { // an error is a signal's, and the loop looks again anyway
		n.bell.Silence()
	}
}

// Wake implements engine.Network.
func (n *Network) Wake() { n.poller.Wake() }
