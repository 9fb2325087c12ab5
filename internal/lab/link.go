package lab

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Link joins two hosts by way of this process, which impairs what crosses.
// Each direction has a thread of its own. A link carries unicast only.
type Link struct {
	A, B       *End
	AtoB, BtoA *Pipe
}

// A Pipe is one direction of a link.
type Pipe struct {
	how    atomic.Pointer[Direction]
	random *rand.Rand
	pump   *pump
	from   *tun
	to     *tun
	router router
	answer []byte // scratch for the router's answers

	mu      sync.Mutex // guards what follows, between the thread and the test
	records records
	waiting int // records whose packets are on their way
}

// Link connects two hosts by a TUN each and gives both ends addresses. What is
// sent at one end arrives at the other as the direction says.
func (l *Lab) Link(a, b *Host, aToB, bToA Direction) *Link {
	l.tb.Helper()
	k := &Link{}
	k.A, k.B = l.ends(a, b, "tun")
	at, bt := openTUN(k.A), openTUN(k.B)
	k.AtoB, k.BtoA = l.pipe(at, bt, aToB, 1), l.pipe(bt, at, bToA, 2)
	l.tb.Cleanup(func() {
		for _, p := range [...]*Pipe{k.AtoB, k.BtoA} {
			if err := p.pump.stop(); err != nil {
				l.tb.Errorf("lab: link from host %s: %v", p.from.end.Host.Name, err)
			}
		}
		_ = unix.Close(at.fd)
		_ = unix.Close(bt.fd)
	})
	go k.AtoB.pump.run()
	go k.BtoA.pump.run()
	return k
}

// pipe makes a direction; nothing runs yet. Its stream keeps directions of one
// seed apart.
func (l *Lab) pipe(from, to *tun, how Direction, stream uint64) *Pipe {
	l.tb.Helper()
	pump, err := newPump(from)
	if err != nil {
		l.tb.Fatalf("lab: link from host %s: %v", from.end.Host.Name, err)
	}
	p := &Pipe{
		random: rand.New(rand.NewPCG(how.Seed, stream)),
		pump:   pump, from: from, to: to,
		router: router{from.end.router4(), from.end.router6()},
	}
	pump.handle = p.arrive
	p.Set(how)
	return p
}

// Set changes how the packets fare that arrive from now on. The random numbers
// go on: the new Seed is not read.
func (p *Pipe) Set(how Direction) {
	tb := p.from.end.Host.lab.tb
	tb.Helper()
	if err := how.check(); err != nil {
		tb.Fatalf("lab: link from host %s: %v", p.from.end.Host.Name, err)
	}
	p.how.Store(&how)
}

// Records returns every packet that the host has sent so far, in the order of
// arrival, a copy behind its original. It fails the test if the lab itself lost
// any.
func (p *Pipe) Records() []Record {
	p.from.end.Host.lab.tb.Helper()
	p.pump.waitCaughtUp()
	p.from.check()
	p.to.check()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records.all()
}

// Settle waits until nothing is on its way in the direction, and fails the
// test after limit.
func (p *Pipe) Settle(limit time.Duration) {
	tb := p.from.end.Host.lab.tb
	tb.Helper()
	p.pump.waitCaughtUp()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		n := p.waiting
		p.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("lab: link from host %s: %d packets still on their way after %v", p.from.end.Host.Name, n, limit)
		}
	}
}

// arrive decides a packet's fate. It runs on the direction's thread.
func (p *Pipe) arrive(at Stamp, packet []byte) {
	flow, ok := flowOf(packet)
	if !ok || flow.Dst.Addr().IsMulticast() {
		return
	}
	how := p.how.Load()
	m := &how.Impairment
	if how.PerFlow != nil {
		if own := how.PerFlow(flow); own != nil {
			m = own
		}
	}
	if m.MTU == 0 || len(packet) <= m.MTU {
		p.carry(at, packet, m)
		return
	}
	if mayFragment(packet) {
		fragments(packet, m.MTU, func(f []byte) { p.carry(at, f, m) })
		return
	}
	p.note(at, packet, TooBig)
	p.answer = p.router.tooBig(p.answer[:0], packet, m.MTU)
	p.reply()
}

// carry takes a packet that fits across, or not.
func (p *Pipe) carry(at Stamp, packet []byte, m *Impairment) {
	luck := draw(p.random)
	if luck.loss < m.Loss {
		p.note(at, packet, Lost)
		return
	}
	r := p.note(at, packet, Waiting)
	if !travel(packet, m.Hops) {
		p.end(r, Expired)
		p.answer = p.router.expired(p.answer[:0], packet)
		p.reply()
		return
	}
	if m.Damage > 0 && len(packet) > m.Damage {
		packet[len(packet)-1] ^= 1
	}
	delay := m.delay(luck.jitter)
	if luck.reorder < m.Reorder {
		delay += m.Hold
		p.mu.Lock()
		r.Held = true
		p.mu.Unlock()
	}
	p.pump.schedule(due(at, delay), p.to, packet, r, p)
	if luck.duplicate < m.Duplicate {
		c := p.note(at, packet, Waiting)
		p.mu.Lock()
		c.Duplicate = true
		p.mu.Unlock()
		p.pump.schedule(due(at, m.delay(luck.copyJitter)), p.to, packet, c, p)
	}
}

// note records a packet.
func (p *Pipe) note(at Stamp, packet []byte, fate Fate) *Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fate == Waiting {
		p.waiting++
	}
	return p.records.add(at, packet, fate)
}

// end gives a waiting record its fate.
func (p *Pipe) end(r *Record, fate Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	r.Fate = fate
}

// departed gives a waiting record its departure.
func (p *Pipe) departed(r *Record, at Stamp, taken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	r.Fate, r.Departed = Passed, at
	if !taken {
		r.Fate, r.Departed = Refused, Stamp{}
	}
}

// reply sends the router's answer back at once, if there is one. It is not on
// record: it is no packet of the other host's.
func (p *Pipe) reply() {
	if len(p.answer) > 0 {
		p.from.write(p.answer)
	}
}
