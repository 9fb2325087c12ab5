package trust

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// ours reports whether it is probed that answers in a conversation, and not our kernel.
func (c *crook) ours(w *watched) bool { return w.tuple.Remote.Port() >= c.split }

// echoes are what the peer itself has said, once more: it may say it as often as it likes.
func echoes(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, 4*time.Second, func(w *watched) bool { return len(w.said) > 0 && c.ours(w) })
	if !ok {
		return nil
	}
	return append(b, w.said[c.rng.IntN(len(w.said))]...)
}

// empties are the peer's segments with nothing in them but forty octets of options, in order.
func empties(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, 4*time.Second, func(w *watched) bool { return answered(w) && c.ours(w) })
	if !ok {
		return nil
	}
	s := probe.Segment{Flags: probe.ACK, Seq: w.irs.Add(1), Ack: w.iss.Add(1), TTL: 64, Window: uint16(c.rng.Uint32())}
	s.Options.RawLen = probe.MaxOptions
	for i := range s.Options.Raw {
		s.Options.Raw[i] = byte(c.rng.Uint32())
	}
	return wire.AppendPacket(b, &w.tuple, &s, nil)
}

// scraps are single octets of the peer's far ahead of their turn, so that gaps are all there is.
func scraps(c *crook, b []byte) []byte {
	w, ok := c.spy.some(c.rng, 4*time.Second, func(w *watched) bool { return answered(w) && c.ours(w) })
	if !ok {
		return nil
	}
	s := probe.Segment{Flags: probe.ACK, Seq: w.irs.Add(2 + 2*c.rng.Uint32N(30000)), Ack: w.iss.Add(1), TTL: 64, Window: 1000}
	return wire.AppendPacket(b, &w.tuple, &s, nothing[:1])
}

// What a peer sends makes probed neither grow nor answer without end: data behind our FIN
// that never ends, its own segments again and again, segments of nothing but options,
// octets that fit nowhere.
func TestForgedBytes(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24")
	there.Serve("tcp", ":1000", lab.Discard)
	there.Serve("tcp", ":1001", func(c net.Conn) {
		for b := make([]byte, 1<<16); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	yaml := `
global: {interval: 1s, timeout: 900ms}
modules:
  active: {probe: active_close, timeout: 5s, hold: 300ms, tcp_options: {timestamps: false}}
  endless: {probe: active_close, interval: 2s, timeout: 2s}
jobs:
- {name: half, module: half_open, targets: [%s]}
- {name: active, module: active, targets: [%s]}
- {name: endless, module: endless, targets: [%s]}
`
	targets := func(from, n, port int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("'198.18.64.%d:%d'", from+i, port))
		}
		return strings.Join(all, ",")
	}
	spy := newSpy(t, there.End(0))
	sender := newSender(t, there.End(0), here.End(0))
	d := start(t, here, fmt.Sprintf(yaml, targets(1, 50, 1000), targets(51, 50, 1000), targets(101, 8, 1001)))
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 300) })
	pid := d.cmd.Process.Pid
	each := time.Duration(times(20_000, 1000)) * time.Millisecond
	sent := func() (n float64) { return d.scrape().sum("probed_segments_sent_total") }

	// Data: some of it has gone by, and each target has its transcripts.
	before, memory, began := d.scrape(), anonymous(t, pid), time.Now()
	usual := sent()
	time.Sleep(each)
	after, grown := d.scrape(), anonymous(t, pid)-memory
	usual = (sent() - usual) / time.Since(began).Seconds()
	octets := after.sum("probed_half_close_bytes_total") - before.sum("probed_half_close_bytes_total")
	segments := after.sum("probed_segments_received_total") - before.sum("probed_segments_received_total")
	if full() && octets < 1<<28 || segments < 1000 {
		t.Errorf("%.0f octets and %.0f segments: nothing is shown", octets, segments)
	}
	wrong := after.sum("probed_probe_failures_total", "job_name", "endless") - after.sum("probed_probe_failures_total", "job_name", "endless", "reason", "fin_missing")
	book(t, Row{
		Part: "forged", What: "data without end behind our FIN", Tried: int(segments), Of: "segments",
		Probes: int(after.sum("probed_probes_total") - before.sum("probed_probes_total")), False: int(wrong),
		Discarded: int(after.sum("probed_probes_discarded_total") - before.sum("probed_probes_discarded_total")), Left: lasting(there),
		Note: fmt.Sprintf("%.0f MiB; memory %+.1f MiB", octets/(1<<20), grown),
	})
	if grown > 16 {
		t.Errorf("memory grew by %.1f MiB", grown)
	}

	victim := &victim{local4: here.Addr4(), first: 61000, last: 61255, split: 61128}
	for i, k := range []struct {
		name string
		kind kind
	}{
		{"a peer's own segments again and again", echoes},
		{"a peer's segments of nothing but options", empties},
		{"a peer's octets that fit nowhere", scraps},
	} {
		c := &crook{victim: victim, rng: rand.New(rand.NewPCG(uint64(i), 8)), spy: spy}
		sender.attack(t, c, k.kind, floodRate, each/2) // transcripts fill
		before, memory, began := d.scrape(), anonymous(t, pid), time.Now()
		a := sender.attack(t, c, k.kind, floodRate, each)
		after, grown := d.scrape(), anonymous(t, pid)-memory
		took := time.Since(began).Seconds()
		// What was lost is said to be the peer's by nothing but its own segments.
		wrong := 0.0
		for _, reason := range []string{"refused", "unreachable", "prohibited", "bad_synack"} {
			wrong += after.sum("probed_probe_failures_total", "reason", reason) - before.sum("probed_probe_failures_total", "reason", reason)
		}
		said := after.sum("probed_segments_sent_total") - before.sum("probed_segments_sent_total") - usual*took
		book(t, Row{
			Part: "forged", What: k.name, Tried: a.sent, Of: "segments",
			Probes: int(after.sum("probed_probes_total") - before.sum("probed_probes_total")), False: int(wrong),
			Discarded: int(after.sum("probed_probes_discarded_total") - before.sum("probed_probes_discarded_total")), Left: lasting(there),
			Note: fmt.Sprintf("%s/s; memory %+.1f MiB; %.0f segments more in answer", thousands(int(a.rate())), grown, max(said, 0)),
		})
		if grown > 16 {
			t.Errorf("%s: memory grew by %.1f MiB", k.name, grown)
		}
		// Of some 54 connections a second, each for as long as it is remembered.
		if said > 5000*took+1000 {
			t.Errorf("%s: %.0f segments in answer, in %.1f s", k.name, said, took)
		}
	}
}
