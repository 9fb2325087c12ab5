package engine

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// Through a bridge, a VLAN or a bond each segment is seen once a layer, and
// counted once: the RTT is from the last sighting of the SYN to the first of
// the SYN-ACK.
func TestStackedDevices(t *testing.T) {
	for layers := 1; layers <= 3; layers++ {
		w := newWorld(t, nil)
		w.layers = layers
		w.peer = listening(10 * time.Millisecond)
		target, l := w.target(1, "198.19.0.1:443", nil)
		w.add(target)
		w.run(30 * time.Second)
		if l.verdicts[probe.OK] != 30 || l.dups != 0 || sum(l.rejects[:]) != 0 {
			t.Errorf("%d layers: %d answered, %d duplicates, rejected %v", layers, l.verdicts[probe.OK], l.dups, l.rejects)
		}
		if out, in := w.shard.Stats.SegmentsSent.Load(), w.shard.Stats.SegmentsReceived.Load(); out != 60 || in != 30 {
			t.Errorf("%d layers: %d segments sent, %d received, of 60 and 30", layers, out, in)
		}
		for _, got := range l.rtts {
			if want := 10 * time.Millisecond; got != want {
				t.Fatalf("%d layers: observed %v, want %v", layers, got, want)
			}
		}
	}
}

// What comes twice through every layer is a duplicate, once.
func TestDuplicatesThroughLayers(t *testing.T) {
	w := newWorld(t, nil)
	w.layers = 2
	w.peer = listening(10 * time.Millisecond)
	w.impair = func() (int, time.Duration) { return 2, 0 }
	target, l := w.target(1, "198.19.0.1:443", nil)
	w.add(target)
	w.run(30 * time.Second)
	if l.verdicts[probe.OK] != 30 || l.dups != 30 || sum(l.rejects[:]) != 0 {
		t.Errorf("%d answered, %d duplicates, rejected %v", l.verdicts[probe.OK], l.dups, l.rejects)
	}
}

// A host that is not there is asked by few SYNs at a time, so that few leave
// together when it comes back, and the limit holds.
func TestUnsent(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 200} })
	w.peer = listening(time.Millisecond)
	log := w.logWire()
	away := false
	most := 0
	w.held = func(p *wire.Packet) bool {
		if away && p.DstPort < 2000 {
			most = max(most, len(w.queue)+1)
			return true
		}
		return false
	}
	giveUp := func() { // as Linux does: an ICMP error from ourselves for each that waits
		for _, b := range w.queue {
			w.arrives(icmpError(local4, b))
		}
		w.queue = nil
	}
	w.after(10*time.Second, func() { away = true })
	for i := range 5 {
		w.after(10*time.Second+time.Duration(i+1)*2500*time.Millisecond, giveUp)
	}
	w.after(24*time.Second, func() { // the neighbour is there again
		away = false
		for _, b := range w.queue {
			w.leaves(b)
		}
		w.queue = nil
	})
	var ledgers []*ledger
	for i := range 90 {
		x, l := w.target(uint64(i), "198.19.0.1:"+strconv.Itoa(1000+i), nil)
		w.add(x)
		ledgers = append(ledgers, l)
	}
	other, calm := w.target(1000, "198.19.0.2:2000", nil)
	w.add(other)
	w.run(40 * time.Second)

	var ok, unreachable, discarded int
	for _, l := range ledgers {
		ok += l.verdicts[probe.OK]
		unreachable += l.verdicts[probe.Unreachable]
		discarded += sum(l.discards[:])
	}
	first := 90/10 + 90/stretchShare // those of the first unsentAfter, with whom they took along
	if most > maxUnsent+first+3 {    // and scouts until the kernel gives up
		t.Errorf("%d SYNs waited for their neighbour", most)
	}
	if unreachable < 5*maxUnsent || unreachable > 6*(maxUnsent+first+3) || discarded != 0 {
		t.Errorf("%d unreachable, %d discarded", unreachable, discarded)
	}
	if ok < 90*22 || ok+unreachable+w.skips[SkipUnsent] != w.slots()-calm.settled() {
		t.Errorf("%d answered, skipped %v, of %d", ok, w.skips, w.slots())
	}
	if i := slices.IndexFunc(w.troubles, func(s string) bool { return s != errUnsent.Error() }); len(w.troubles) == 0 || len(w.troubles) > len(ledgers) || i >= 0 {
		t.Errorf("reported %q", w.troubles)
	}
	if calm.verdicts[probe.OK] != 40 {
		t.Errorf("its neighbour: verdicts %v", calm.verdicts)
	}
	log.held(t, "per address", 200, ledgers[0].target.Remote.Addr())
}
