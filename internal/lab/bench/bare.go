package bench

import (
	"errors"
	"flag"
	"net/netip"
	"runtime"
	"time"

	"github.com/probed/probed/internal/host"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
	"github.com/probed/probed/probe/wire"
)

// bare makes handshakes without measuring them: the daemon's sockets and SYNs, as many at a
// time as the daemon sends, and the ring emptied, with nothing looked up, timed, judged or kept.
// What it takes of a processor is the kernel's part, below which no probe can be that is sent
// and seen in this way.
func bare(args []string) error {
	flags := flag.NewFlagSet("bare", flag.ContinueOnError)
	first := flags.String("first", "", "the first target's address:port")
	n := flags.Int("n", 1, "how many targets: the following addresses")
	rate := flags.Int("rate", 0, "SYNs a second; 0: as fast as it goes")
	together := flags.Int("together", bareBatch, "how many SYNs go one behind the other before it sleeps")
	burst := flags.Int("burst", bareBatch, "how many of them go without a pause")
	gap := flags.Duration("gap", 0, "the pause")
	packet := flags.Bool("packet", false, "send by packet socket")
	plain := flags.Bool("plain", false, "SYNs that offer nothing but an MSS")
	if err := flags.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*first)
	if err != nil {
		return err
	}
	b := &bareLoop{together: *together, burst: *burst, gap: *gap, port: to.Port(),
		every: time.Duration(*together) * time.Second / time.Duration(max(*rate, 1))}
	if *rate == 0 {
		b.every = 0
	}
	reserved := host.Range{First: 20000, Last: 27743}
	if b.net, err = host.Open(host.Ports{Reserved: reserved, Guarded: host.Range{First: 27744, Last: 27999}, Packet: *packet}); err != nil {
		return err
	}
	defer b.net.Close()
	route, err := b.net.Route(to.Addr(), netip.Addr{}, "")
	if err != nil {
		return err
	}
	for dst := to.Addr(); len(b.targets) < *n; dst = dst.Next() {
		b.targets = append(b.targets, bareTarget{dst, wire.PseudoSum(route.Source, dst)})
	}
	syn := probe.Segment{Flags: probe.SYN, Window: 64240, Options: probe.Options{
		Set: probe.OptMSS | probe.OptSACKPermitted | probe.OptTimestamps | probe.OptWindowScale, MSS: 1460, WindowScale: 7,
	}}
	if *plain {
		syn.Options = probe.Options{Set: probe.OptMSS, MSS: 1460}
	}
	return b.run(route.Source, wire.NewTemplate(&syn), reserved)
}

// bareBatch is how many SYNs go together: as many as the daemon sends at once under load.
const bareBatch = 64

type bareTarget struct {
	dst     netip.Addr
	between uint64 // wire.PseudoSum of the two ends
}

type bareLoop struct {
	net      *host.Network
	targets  []bareTarget
	port     uint16
	together int
	burst    int
	gap      time.Duration
	every    time.Duration // from the first of those that go together to the next such; 0: at once
	refused  error
}

// run sends to all targets in turn, from another port each time round, until the
// kernel refuses a segment.
func (b *bareLoop) run(src netip.Addr, syn wire.Template, ports host.Range) error {
	runtime.LockOSThread()
	var (
		segments []byte
		hops     = make([]uint64, len(b.targets))
		heard    = b.net.RouteGeneration() - 1
		failed   = func(_ int, err error) { b.refused = errors.Join(b.refused, err) }
		ignore   = func(*engine.Frame) {}
	)
	next, _ := b.net.Clocks()
	for sent, port := 0, ports.First; b.refused == nil; {
		if g := b.net.RouteGeneration(); g != heard {
			heard = g
			for i, t := range b.targets {
				hops[i] = b.net.Hop(t.dst, src, 0, 0)
			}
		}
		for n := range b.together {
			if n%b.burst == 0 && n > 0 {
				b.net.Flush(failed)
				segments = segments[:0]
				b.net.Wait(b.gap, false)
			}
			i := sent % len(b.targets)
			from := len(segments)
			segments = syn.Append(segments, b.targets[i].between, port, b.port, probe.Seq(sent)<<8, uint32(sent))
			b.net.Queue(engine.Packet{Segment: segments[from:], Src: src, Dst: b.targets[i].dst, Hop: hops[i]})
			if sent++; i == len(b.targets)-1 {
				if port++; port > ports.Last {
					port = ports.First
				}
			}
		}
		b.net.Flush(failed)
		segments = segments[:0]
		for b.net.Receive(bareBatch, ignore) == bareBatch {
		}
		now, _ := b.net.Clocks()
		if next = next.Add(b.every); next > now {
			b.net.Wait(next.Sub(now), false)
		} else {
			next = now // what is late isn't made up for: the peer's queue holds a thousand
		}
	}
	return b.refused
}
