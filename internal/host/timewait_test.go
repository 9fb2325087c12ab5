package host_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// reply answers a request of 100 octets and closes.
func reply(c net.Conn) { request(c, 100); say(c, 200) }

// reused counts what came of using four-tuples again: how often each answer, and
// how often with a note.
func (l *ledger) reused(d *answers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.transcripts {
		for _, r := range l.transcripts[i].Records() {
			switch r.Note {
			case probe.NoteReuseRecycled:
				d.recycled++
			case probe.NoteReuseFresh:
				d.fresh++
			}
		}
	}
}

// answers is a sink that counts what peers answer to a SYN in TIME-WAIT.
type answers struct {
	*ledger
	each            map[probe.Answer]int
	timed           int // with a round-trip time
	recycled, fresh int
}

// Observe implements engine.Sink.
func (a *answers) Observe(o *probe.Observation) {
	a.ledger.Observe(o)
	if o.Kind == probe.TimeWaitReuse {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.each[o.Answer]++
		if o.Duration >= 0 {
			a.timed++
		}
	}
}

// TestTimeWaitReuse uses a four-tuple again that a Linux peer has in TIME-WAIT.
func TestTimeWaitReuse(t *testing.T) {
	const probes = 40
	for _, tt := range []struct {
		what       string
		lower      bool
		timestamps bool
		after      time.Duration
		drop       bool // a firewall rule drops the second SYN
		want       probe.Answer
	}{
		{"higher", false, false, 0, false, probe.AnswerAccepted},
		{"higher, with timestamps", false, true, 0, false, probe.AnswerAccepted},
		{"higher, a second later", false, true, time.Second, false, probe.AnswerAccepted},
		{"lower", true, false, 0, false, probe.AnswerChallengeACK},
		{"lower, a second later", true, false, time.Second, false, probe.AnswerChallengeACK},
		// A newer timestamp makes up for the sequence number (RFC 6191 §2). The
		// clock ticks once a millisecond.
		{"lower, with a newer timestamp", true, true, 5 * time.Millisecond, false, probe.AnswerAccepted},
		{"through a rule that drops it", false, true, 0, true, probe.AnswerSilence},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			if tt.drop { // one SYN a minute from a port
				b.NFT("add table inet lab\n" +
					"add chain inet lab input { type filter hook input priority 0; }\n" +
					"add rule inet lab input tcp flags & (syn|ack) == syn meter again { tcp sport . ip saddr limit rate over 1/minute burst 1 packets } drop\n" +
					"add rule inet lab input tcp flags & (syn|ack) == syn meter again6 { tcp sport . ip6 saddr limit rate over 1/minute burst 1 packets } drop\n")
			}
			b.Serve("tcp", "[::]:80", reply)
			peer := stackOf(b, 80)
			books := &answers{ledger: newLedger(), each: make(map[probe.Answer]int)}
			without := probe.OptTimestamps
			if tt.timestamps {
				without = 0
			}
			peer.run(t, a, books, books.ledger, probe.Params{
				Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: 400 * time.Millisecond,
				Send: 100, After: tt.after, Lower: tt.lower,
			}, without, probes)
			books.reused(books)
			n := books.settled()
			if c := books.count(); c[probe.OK] != n || len(books.rejects) > 0 {
				t.Errorf("verdicts %v, discards %v, rejects %v", c, books.discards, books.rejects)
			}
			if books.each[tt.want] != n {
				t.Errorf("of %d: %v, want %v", n, books.each, tt.want)
			}
			recycled := 0
			if tt.want == probe.AnswerAccepted {
				recycled = n
			}
			if books.timed != recycled || books.recycled != recycled || books.fresh != 0 {
				t.Errorf("%d round-trip times, %d ISNs recycled, %d fresh; want %d recycled", books.timed, books.recycled, books.fresh, recycled)
			}
			if t.Failed() {
				tell(t, &books.transcripts[0])
			}
		})
	}
}

// A timer is when a socket in TIME-WAIT was seen in /proc/net/tcp, on the
// monotonic clock, as time since the test began.
type timer struct {
	before      time.Duration // the last look that did not find it
	first, last time.Duration // the first and the last that did
	gone        time.Duration // the first after that; 0: not yet
	// When the kernel's own timer is to go off, in hundredths of a second: the
	// least of the latest moments that it may have meant, and the greatest of the
	// earliest. A timer that was started again has the second above the first.
	atMost, atLeast time.Duration
}

// tuplePorts is as much of a four-tuple as tells those of the test apart.
type tuplePorts struct {
	file          string
	local, remote uint16
}

// timers are a host's sockets in TIME-WAIT.
type timers struct {
	mu   sync.Mutex
	all  map[tuplePorts]*timer
	look time.Duration // the last one
}

// poll looks once, within the host.
func (w *timers) poll(began time.Time) error {
	const tick = 10 * time.Millisecond // USER_HZ
	at := time.Since(began)
	var texts [2]string
	files := [2]string{"tcp", "tcp6"}
	for i, file := range files {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return err
		}
		texts[i] = string(b)
	}
	took := time.Since(began) - at
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := make(map[tuplePorts]bool)
	for i, text := range texts {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 6 || f[3] != "06" { // TCP_TIME_WAIT
				continue
			}
			k := tuplePorts{files[i], hexPort(f[1]), hexPort(f[2])}
			_, when, _ := strings.Cut(f[5], ":")
			ticks, err := strconv.ParseInt(when, 16, 64)
			if err != nil {
				return err
			}
			ends := at + time.Duration(ticks)*tick
			seen[k] = true
			e := w.all[k]
			if e == nil {
				e = &timer{before: w.look, first: at + took, atMost: ends + took + tick, atLeast: ends}
				w.all[k] = e
			}
			e.last, e.gone = at, 0
			if ticks > 0 { // else it is due, and goes off when the timer wheel comes round
				e.atMost, e.atLeast = min(e.atMost, ends+took+tick), max(e.atLeast, ends)
			}
		}
	}
	for k, e := range w.all {
		if !seen[k] && e.gone == 0 {
			e.gone = at + took
		}
	}
	w.look = at
	return nil
}

// hexPort reads the port of an address as /proc/net/tcp has it.
func hexPort(s string) uint16 {
	_, port, _ := strings.Cut(s, ":")
	n, _ := strconv.ParseUint(port, 16, 16)
	return uint16(n)
}

// A lasting is a sink that keeps how long TIME-WAITs lasted.
type lasting struct {
	*ledger
	lasted []probe.Observation
}

// Observe implements engine.Sink.
func (l *lasting) Observe(o *probe.Observation) {
	l.ledger.Observe(o)
	if o.Kind == probe.TimeWaitLasted {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lasted = append(l.lasted, *o)
	}
}

// bounds reads how long TIME-WAIT lasted out of a transcript: from our FIN's
// acknowledgement to the last touch that was answered from it, and from our FIN
// to the first answer that was not.
func bounds(tr *probe.Transcript) (least, most time.Duration, ok bool) {
	var fin, acked, sent, alive, over probe.Stamp
	records := tr.Records()
	for i := range records {
		at := records[i].Event.Stamp
		switch records[i].Note {
		case probe.NoteFINLeft:
			fin = at
		case probe.NoteFINAcked:
			acked = at
		case probe.NoteSYNSent:
			sent = at
		case probe.NoteTimeWaitAlive:
			alive = sent
		case probe.NoteTimeWaitOver:
			over = at
		}
	}
	least, ok1 := alive.Sub(acked)
	most, ok2 := over.Sub(fin)
	return least, most, ok1 && ok2 && alive.Wall != 0 && over.Wall != 0
}

// TestAccuracyOfTimeWaitDuration measures how long a Linux peer's TIME-WAIT lasts, ten times
// in each family at ten phases of the peer's timers, and holds the result against
// the peer's own /proc/net/tcp: the interval contains it and is narrow, and the
// timer runs as that of a TIME-WAIT that nobody touches.
func TestAccuracyOfTimeWaitDuration(t *testing.T) {
	t.Parallel()
	const (
		phases = 10
		width  = 1500 * time.Millisecond
		limit  = 70 * time.Second
		lasts  = 60 * time.Second // TCP_TIMEWAIT_LEN
		wheel  = 2100 * time.Millisecond
	)
	a, b := lab.Pair(t)
	b.Serve("tcp4", "0.0.0.0:80", reply)
	b.Serve("tcp6", "[::]:80", reply)
	b.Serve("tcp4", "0.0.0.0:81", reply) // not touched
	books, untouched := &lasting{ledger: newLedger()}, newLedger()

	w := &timers{all: make(map[tuplePorts]*timer)}
	began, stop := time.Now(), make(chan struct{})
	polled := make(chan struct{})
	b.Go(func() {
		defer close(polled)
		for {
			if err := w.poll(began); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop) })
	t.Cleanup(end)

	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	touching := probe.Params{Kind: probe.TimeWaitProbe, Measure: probe.MeasureDuration, Timeout: 5 * time.Second, Send: 100, Limit: limit}
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: 5 * time.Second, Send: 100}
	targets := []*engine.Target{
		closing(1, netip.AddrPortFrom(b.Addr4(), 80), touching, books.ledger),
		closing(2, netip.AddrPortFrom(b.Addr6(), 80), touching, books.ledger),
		closing(3, netip.AddrPortFrom(b.Addr4(), 81), passive, untouched),
	}
	for _, x := range targets {
		x.Interval = 617 * time.Millisecond // in step with nothing
		x.SYN.Options.Set = probe.OptMSS
	}
	targets[0].Sink, targets[1].Sink = books, books
	r.shard.Update(targets, nil)
	time.Sleep(phases*targets[0].Interval + 100*time.Millisecond)
	r.shard.Update(nil, targets)
	await(t, limit+5*time.Second, "the ends of TIME-WAIT", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
	await(t, 5*time.Second, "that of the untouched ones", func() bool {
		for _, s := range lab.SS(b) {
			if s.State == "TIME-WAIT" {
				return false
			}
		}
		return true
	})
	time.Sleep(100 * time.Millisecond)
	end()
	<-polled
	r.end()

	if len(books.verdicts) > 1 || books.verdicts[probe.OK] < 2*phases || len(books.rejects)+len(books.discards) > 0 {
		t.Errorf("verdicts %v, discards %v, rejects %v", books.verdicts, books.discards, books.rejects)
	}
	if len(books.lasted) != books.verdicts[probe.OK] {
		t.Errorf("%d durations of %v", len(books.lasted), books.verdicts)
	}
	// What the peer's kernel shows of each, touched or not.
	var shortest, longest [2]time.Duration
	for k, e := range w.all {
		if e.gone == 0 {
			t.Errorf("port %d: the peer's TIME-WAIT is not over", k.remote)
			continue
		}
		i := 0
		if k.local == 81 {
			i = 1
		}
		// It dies when it is said to die, less what the timer wheel rounds up.
		least, most := e.last-e.first, e.gone-e.before
		if least > lasts+wheel || most < lasts {
			t.Errorf("port %d: the peer's TIME-WAIT lasted between %v and %v", k.remote, least, most)
		}
		// A timer that is started again goes off later than it said.
		if moved := e.atLeast - e.atMost; moved > 0 {
			t.Errorf("port %d: the peer's timer moved by %v", k.remote, moved)
		}
		if shortest[i] == 0 {
			shortest[i] = least
		}
		shortest[i], longest[i] = min(shortest[i], least), max(longest[i], most)
	}
	t.Logf("the peer's own: touched %v to %v, untouched %v to %v", shortest[0], longest[0], shortest[1], longest[1])
	var widest time.Duration
	for i := range books.transcripts {
		tr := &books.transcripts[i]
		least, most, ok := bounds(tr)
		if !ok {
			t.Errorf("%v: no bounds in the transcript", tr.Tuple)
			tell(t, tr)
			continue
		}
		found := false
		for _, o := range books.lasted {
			found = found || o.Least == least && o.Duration == most
		}
		if !found {
			t.Errorf("%v: the transcript says %v to %v, and that was not observed: %+v", tr.Tuple, least, most, books.lasted)
		}
		file := "tcp"
		if tr.Tuple.Remote.Addr().Is6() {
			file = "tcp6"
		}
		e := w.all[tuplePorts{file, tr.Tuple.Remote.Port(), tr.Tuple.Local.Port()}]
		if e == nil || e.gone == 0 {
			t.Errorf("%v: not in the peer's /proc/net/tcp", tr.Tuple)
			continue
		}
		if least > e.gone-e.before || most < e.last-e.first {
			t.Errorf("%v: TIME-WAIT lasted from %v to %v, in the peer's kernel from %v to %v", tr.Tuple, least, most, e.last-e.first, e.gone-e.before)
		}
		widest = max(widest, most-least)
	}
	t.Logf("%d intervals, the widest %v", len(books.transcripts), widest)
	if widest > width {
		t.Errorf("an interval of %v, allowed %v", widest, width)
	}
}
