package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// More is asked for beside the schedule than the limits allow, of one address that
// the schedule probes too and of others, and strays want answers: the schedule's probes
// go when they are due, and who asks gets what it leaves.
func TestScheduleGoesFirst(t *testing.T) {
	for name, l := range map[string]Limits{
		"address": {Global: 20000, PerAddress: 60},
		"global":  {Global: 60, PerAddress: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Limits = l })
			w.churn = true
			w.peer = listening(10 * time.Millisecond)
			log := w.logWire()
			var mine []*ledger
			for i := range 3 { // 30 packets a second
				x, of := w.target(uint64(i), "198.19.0.1:80", func(x *Target) { x.Interval = 200 * time.Millisecond })
				w.add(x)
				mine = append(mine, of)
			}
			var asked []*ledger
			for i := range 64 { // who asks at once, and again as soon as there is an answer
				var ask func()
				ask = func() {
					to := "198.19.0.1:80"
					if name == "global" {
						to = remote(100 + i).String()
					}
					x, of := w.target(uint64(1000+i), to, func(x *Target) { x.Count, x.Interval = 1, 100*time.Millisecond })
					x.Recorder = of
					of.onSettled = func(*probe.Transcript) {
						w.shard.Update(nil, []*Target{x})
						w.after(time.Millisecond, ask)
					}
					asked = append(asked, of)
					w.add(x)
				}
				w.after(2*time.Second, ask)
			}
			from := probe.FourTuple{Local: netip.MustParseAddrPort("198.19.0.1:80"), Remote: netip.AddrPortFrom(local4, 61200)}
			for i := range 10000 { // 1,000 a second
				w.after(2*time.Second+time.Duration(i)*time.Millisecond, func() {
					w.arrives(wire.AppendPacket(w.buffer(), &from, &probe.Segment{Flags: probe.FIN | probe.ACK, Seq: 7, Ack: probe.Seq(i)}, nil))
				})
			}
			w.run(12 * time.Second)
			log.held(t, name, 60, addr{})
			if n := sum(w.skips[:]); n != 0 {
				t.Errorf("skipped %v", w.skips)
			}
			done, got := 0, 0
			for _, of := range mine {
				done += of.settled()
			}
			for _, of := range asked {
				got += of.settled()
			}
			if done < 3*5*12-3 {
				t.Errorf("%d scheduled probes of %d", done, 3*5*12)
			}
			// 26 packets a second are left.
			if got < 50 || got > 200 {
				t.Errorf("%d probes for who asked", got)
			}
			late := 0
			for _, d := range w.delays { // of those that are asked for too: due when they were asked for
				if d > 50*time.Millisecond {
					late++
				}
			}
			if late > got {
				t.Errorf("%d probes went late, %d were asked for", late, got)
			}
			t.Logf("%d scheduled, %d asked for, %d late", done, got, late)
		})
	}
}

// So it is where who asks wants connections, which are larger than what the schedule probes by: one that there is
// no room for beside the schedule holds up nothing behind it.
func TestConnectionsAskedForHoldUpNothing(t *testing.T) {
	sends := func(x *Target) {
		passiveClose(x)
		x.Send = strings.Repeat("x", 20_000)
		x.Params.Send = uint32(len(x.Send))
	}
	for name, c := range map[string]struct {
		scheduled int // of two packets a second
		asks      func(*Target)
		least     int // for who asks
	}{
		"time_wait":      {20, timeWait, 10},
		"that send much": {15, sends, 5},
	} {
		w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 60, PerAddress: 1000} })
		w.churn = true
		w.peer = listening(10 * time.Millisecond)
		for i := range c.scheduled {
			x, _ := w.target(uint64(i), remote(i).String(), nil)
			w.add(x)
		}
		got := 0
		for i := range 64 { // who asks at once, and again as soon as there is an answer
			var ask func()
			ask = func() {
				x, of := w.target(uint64(1000+i), remote(100+i).String(), c.asks)
				x.Count, x.Interval, x.Recorder = 1, 100*time.Millisecond, of
				w.peers[x.Remote] = closes(10 * time.Millisecond)
				of.onSettled = func(*probe.Transcript) {
					got++
					w.shard.Update(nil, []*Target{x})
					w.after(time.Millisecond, ask)
				}
				w.add(x)
			}
			w.after(2*time.Second, ask)
		}
		w.goOn(32 * time.Second)
		late := 0
		for _, d := range w.delays { // of those that are asked for, too: due when they were asked for
			if d > 50*time.Millisecond {
				late++
			}
		}
		if sum(w.skips[:]) > 0 || late > got+1 || got < c.least {
			t.Errorf("%s: skipped %v, %d went late, %d were asked for", name, w.skips, late, got)
		}
	}
}

// Of an address that the schedule alone asks for more than its limit, who asks gets a probe a
// second, and not more.
func TestAskedWhereTheScheduleLeavesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{Global: 20000, PerAddress: 60} })
	w.churn = true
	w.peer = listening(10 * time.Millisecond)
	log := w.logWire()
	for i := range 9 { // 90 packets a second
		x, _ := w.target(uint64(i), "198.19.0.1:80", func(x *Target) { x.Interval = 200 * time.Millisecond })
		w.add(x)
	}
	var got []probe.Instant
	var ask func()
	ask = func() {
		x, of := w.target(1000, "198.19.0.1:80", func(x *Target) { x.Count, x.Interval = 1, 100*time.Millisecond })
		x.Recorder = of
		of.onSettled = func(*probe.Transcript) {
			got = append(got, w.now)
			w.shard.Update(nil, []*Target{x})
			w.after(time.Millisecond, ask)
		}
		w.add(x)
	}
	w.after(2*time.Second, ask)
	w.run(22 * time.Second)
	log.held(t, "address", 60, addr{})
	if len(got) < 10 || len(got) > 20 {
		t.Errorf("%d probes in 20 s: %v", len(got), got)
	}
}

// What is kept free for the largest probe is for one that there is: once it is removed,
// or has become a smaller one, the next one counts.
func TestLargestFalls(t *testing.T) {
	w := newWorld(t, nil)
	large := func(t *Target) { activeClose(t); t.Params.Send = 20_000 }
	a, _ := w.target(1, "198.19.0.1:443", large)
	b, _ := w.target(2, "198.19.0.2:443", large)
	c, _ := w.target(3, "198.19.0.3:443", activeClose)
	d, _ := w.target(4, "198.19.0.4:443", nil)
	once, _ := w.target(5, "198.19.0.5:443", func(t *Target) { large(t); t.Count = 1 })
	smaller := *b
	smaller.Params = d.Params
	g := NewGroup(Config{Observer: w, Limits: unlimited}, []Part{{Network: newSim()}, {Network: newSim()}})
	for _, x := range []struct {
		add, remove []*Target
		of          *Target // the largest: nil: none
	}{
		{[]*Target{a, b, c, d, once}, nil, a},
		{nil, []*Target{once, a}, b},
		{[]*Target{&smaller}, []*Target{b}, c},
		{nil, []*Target{c}, d},
		{nil, []*Target{d, &smaller}, nil},
	} {
		w.shard.Update(x.add, x.remove)
		w.obey()
		g.Update(x.add, x.remove)
		want := 0
		if x.of != nil {
			want = x.of.Params.Packets()
		}
		if got := max(g.largest[0], g.largest[1]); w.shard.largest != want || got != want {
			t.Errorf("the largest probe of a shard has %d packets, that of a group's %d, not %d", w.shard.largest, got, want)
		}
	}
}

// A probe that somebody waits for, and that has come late by more than its interval since there was
// no room, waits for room all the same: what is open with peers that stream may take all that the
// schedule has asked little of.
func TestLateProbesOnRequestKeepTheLimits(t *testing.T) {
	limits := Limits{Global: 60, PerAddress: 1000}
	w := newWorld(t, func(c *Config) { c.Limits = limits })
	w.churn = true
	log := w.logWire()
	for i := range 10 {
		x, _ := w.target(uint64(i), fmt.Sprintf("198.19.1.%d:80", 1+i), func(x *Target) {
			passiveClose(x)
			x.Params.Timeout, x.Interval = 5*time.Second, 10*time.Second
		})
		w.peers[x.Remote] = serves(4<<20, 200*time.Microsecond)
		w.add(x)
	}
	got := 0
	for i := range 64 { // who asks at once, and again as soon as there is an answer
		var ask func()
		ask = func() {
			x, of := w.target(uint64(1000+i), remote(100+i).String(), func(x *Target) { x.Count, x.Interval = 1, 100*time.Millisecond })
			w.peers[x.Remote] = listening(10 * time.Millisecond)
			x.Recorder = of
			of.onSettled = func(*probe.Transcript) {
				got++
				w.shard.Update(nil, []*Target{x})
				w.after(time.Millisecond, ask)
			}
			w.add(x)
		}
		w.after(2*time.Second, ask)
	}
	w.after(30*time.Second-time.Millisecond, func() { log.within(t, limits, 1, 30, 0) }) // without the RSTs at the end
	w.goOn(30 * time.Second)
	if got < 50 {
		t.Errorf("%d probes for who asked: nothing is shown", got)
	}
}
