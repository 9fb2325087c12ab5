package host_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

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

// A span is what a duration lies between.
type span struct{ least, most time.Duration }

func (s span) String() string { return fmt.Sprintf("%v to %v", s.least, s.most) }

// meets tells whether both may be of one duration.
func (s span) meets(o span) bool { return s.least <= o.most && o.least <= s.most }

// bounds reads how long TIME-WAIT lasted out of a transcript: from our FIN's
// acknowledgement to the last touch that found it, and from our FIN to the first
// answer from elsewhere. A touch finds it that is answered from it; of a peer
// that never answers, the last but one that is not.
func bounds(tr *probe.Transcript) (span, bool) {
	var fin, acked, sent, alive, over probe.Stamp
	var touches []probe.Stamp
	answers := false
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
			touches = append(touches, at)
		case probe.NoteTimeWaitAlive:
			alive, answers = sent, true
		case probe.NoteTimeWaitOver:
			over = at
		}
	}
	if !answers && len(touches) > 2 { // the last is answered, as it is over
		alive = touches[len(touches)-3]
	}
	least, ok1 := alive.Sub(acked)
	most, ok2 := over.Sub(fin)
	return span{least, most}, ok1 && ok2 && alive.Wall != 0 && over.Wall != 0
}

// A lifetime is a TIME-WAIT as the host shows it that is in it: when looks found
// it, as time since the test began.
type lifetime struct {
	before      time.Duration // when the last look began that did not find it
	first, last time.Duration // when the first ended that did; when the last began
	gone        time.Duration // when the first ended that did no more; 0: it is there
}

// lasted is as much as looks tell.
func (l *lifetime) lasted() span { return span{l.last - l.first, l.gone - l.before} }

// lifetimes are a host's, by our four-tuples.
type lifetimes struct {
	all    map[probe.FourTuple]*lifetime
	looked time.Duration // when the last look began
}

// look notes what list finds in TIME-WAIT.
func (w *lifetimes) look(began time.Time, list func() []probe.FourTuple) {
	at := time.Since(began)
	found := list()
	end := time.Since(began)
	seen := make(map[probe.FourTuple]bool)
	for _, k := range found {
		seen[k] = true
		e := w.all[k]
		if e == nil {
			e = &lifetime{before: w.looked, first: end}
			w.all[k] = e
		}
		e.last, e.gone = at, 0
	}
	for k, e := range w.all {
		if !seen[k] && e.gone == 0 {
			e.gone = end
		}
	}
	w.looked = at
}

// over tells whether all have ended.
func (w *lifetimes) over() bool {
	for _, e := range w.all {
		if e.gone == 0 {
			return false
		}
	}
	return true
}

// inTimeWait lists a stack's connections in TIME-WAIT.
func inTimeWait(t *testing.T, s stack) func() []probe.FourTuple {
	return func() []probe.FourTuple {
		var all []probe.FourTuple
		for _, x := range s.sockets() {
			if x.State != "TIME-WAIT" {
				continue
			}
			local, err1 := netip.ParseAddrPort(x.Remote)
			remote, err2 := netip.ParseAddrPort(x.Local)
			if err1 != nil || err2 != nil {
				t.Fatalf("%+v: %v, %v", x, err1, err2)
			}
			all = append(all, probe.FourTuple{Local: local, Remote: remote})
		}
		return all
	}
}

// kernelTimers are those of a Linux host's TIME-WAITs, as /proc/net/tcp shows
// them: when each is to go off, as time since the test began.
type kernelTimers struct {
	t     *testing.T
	began time.Time
	files []*os.File
	all   map[probe.FourTuple]*kernelTimer
}

// A kernelTimer has the least of the latest moments that the kernel may have
// meant, and the greatest of the earliest. Of one that was started again the
// second is above the first.
type kernelTimer struct{ atMost, atLeast time.Duration }

// timersOf opens a host's /proc/net/tcp.
func timersOf(t *testing.T, h *lab.Host, began time.Time) *kernelTimers {
	t.Helper()
	k := &kernelTimers{t: t, began: began, all: make(map[probe.FourTuple]*kernelTimer)}
	for _, name := range []string{"tcp", "tcp6"} {
		var file *os.File
		var err error
		h.Do(func() { file, err = os.Open("/proc/thread-self/net/" + name) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		k.files = append(k.files, file)
	}
	return k
}

// list lists what is in TIME-WAIT, and notes the timers.
func (k *kernelTimers) list() []probe.FourTuple {
	const (
		tick     = 10 * time.Millisecond // USER_HZ
		timeWait = "06"                  // TCP_TIME_WAIT
	)
	at := time.Since(k.began)
	var texts []byte
	for _, f := range k.files {
		_, err := f.Seek(0, io.SeekStart)
		if err != nil {
			k.t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil {
			k.t.Fatal(err)
		}
		texts = append(texts, text...)
	}
	took := time.Since(k.began) - at
	var all []probe.FourTuple
	for line := range strings.Lines(string(texts)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[3] != timeWait {
			continue
		}
		tuple := probe.FourTuple{Local: k.hexAddrPort(f[2]), Remote: k.hexAddrPort(f[1])}
		all = append(all, tuple)
		_, when, _ := strings.Cut(f[5], ":")
		ticks, err := strconv.ParseInt(when, 16, 64)
		if err != nil {
			k.t.Fatalf("%q: %v", line, err)
		}
		if ticks == 0 { // it is due, and goes off when the timer wheel comes round
			continue
		}
		ends := at + time.Duration(ticks)*tick
		e := k.all[tuple]
		if e == nil {
			e = &kernelTimer{atMost: ends + took + tick, atLeast: ends}
			k.all[tuple] = e
		}
		e.atMost, e.atLeast = min(e.atMost, ends+took+tick), max(e.atLeast, ends)
	}
	return all
}

// hexAddrPort reads an address and a port as /proc/net/tcp has them: the address
// in words of this machine's byte order.
func (k *kernelTimers) hexAddrPort(s string) netip.AddrPort {
	text, port, _ := strings.Cut(s, ":")
	b, err1 := hex.DecodeString(text)
	for i := 0; i+4 <= len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err1 != nil || !ok || err2 != nil {
		k.t.Fatalf("/proc/net/tcp says %q", s)
	}
	return netip.AddrPortFrom(addr, uint16(n))
}

// moved tells which timers were started again.
func (k *kernelTimers) moved() {
	// A jiffy of CONFIG_HZ=250 is 4 ms, and some come late on a machine that is one of many. One
	// that a touch starts again moves by a second and more.
	const rounding = 50 * time.Millisecond
	for tuple, e := range k.all {
		if by := e.atLeast - e.atMost; by > rounding {
			k.t.Errorf("%v: the peer's timer moved by %v", tuple, by)
		}
	}
}

// A waiter is a peer whose TIME-WAITs are measured, and some left alone.
type waiter struct {
	name string
	stack
	list  func() []probe.FourTuple // those in TIME-WAIT
	lasts span                     // by its own timers
	step  time.Duration            // by which they round
	width time.Duration            // allowed of an interval

	own       lifetimes
	touched   *lasting
	untouched *ledger
}

// targets are those of a waiter: in each family one that measures, and one that
// leaves TIME-WAIT alone.
func (w *waiter) targets(first uint64) []*engine.Target {
	w.own.all = make(map[probe.FourTuple]*lifetime)
	w.touched, w.untouched = &lasting{ledger: newLedger()}, newLedger()
	measuring := probe.Params{Kind: probe.TimeWaitProbe, Measure: probe.MeasureDuration, Timeout: 5 * time.Second, Send: 100,
		Limit: w.lasts.most + 10*time.Second}
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: 5 * time.Second, Send: 100}
	var all []*engine.Target
	for _, at := range w.at {
		x := closing(first, at, measuring, w.touched.ledger)
		x.Sink = w.touched
		all = append(all, x, closing(first+1, at, passive, w.untouched))
		first += 2
	}
	return all
}

// check holds what was measured against what the peer showed.
func (w *waiter) check(t *testing.T, least int) {
	for what, l := range map[string]*ledger{"touched": w.touched.ledger, "untouched": w.untouched} {
		if n := l.settled(); n < least || l.verdicts[probe.OK] != n || len(l.rejects) > 0 || len(l.transcripts) != n {
			t.Errorf("%s: verdicts %v, discards %v, rejects %v, %d transcripts", what, l.verdicts, l.discards, l.rejects, len(l.transcripts))
		}
	}
	if n := w.touched.verdicts[probe.OK]; len(w.touched.lasted) != n {
		t.Errorf("%d durations of %d", len(w.touched.lasted), n)
	}
	if open := unfinished(w.sockets()); len(open) > 0 {
		t.Errorf("the peer is left with %v", open)
	}

	touched, untouched := w.lasted(t, w.touched.transcripts), w.lasted(t, w.untouched.transcripts)
	t.Logf("the peer's own: touched %v, untouched %v", touched, untouched)
	if n := len(w.touched.transcripts) + len(w.untouched.transcripts); len(w.own.all) != n {
		t.Errorf("the peer had %d TIME-WAITs, of %d connections", len(w.own.all), n)
	}
	undisturbed := span{untouched.least - w.step, untouched.most + w.step}
	var widest time.Duration
	for i := range w.touched.transcripts {
		tr := &w.touched.transcripts[i]
		s, ok := bounds(tr)
		own := w.own.all[tr.Tuple]
		switch {
		case !ok || !slices.ContainsFunc(w.touched.lasted, func(o probe.Observation) bool { return s == span{o.Least, o.Duration} }):
			t.Errorf("%v: the transcript says %v, and that was not observed", tr.Tuple, s)
		case own == nil: // and lasted has said so
		case !s.meets(own.lasted()):
			t.Errorf("%v: TIME-WAIT lasted from %v, the peer shows from %v", tr.Tuple, s, own.lasted())
		case !own.lasted().meets(undisturbed):
			t.Errorf("%v: the peer shows a TIME-WAIT of %v, of those that nobody touched of %v", tr.Tuple, own.lasted(), untouched)
		}
		widest = max(widest, s.most-s.least)
	}
	t.Logf("%d intervals, the widest %v", len(w.touched.transcripts), widest)
	if widest > w.width {
		t.Errorf("an interval of %v, allowed %v", widest, w.width)
	}
	if t.Failed() && len(w.touched.transcripts) > 0 {
		tell(t, &w.touched.transcripts[0])
	}
}

// lasted is what the peer's own of some conversations lie between.
func (w *waiter) lasted(t *testing.T, of []probe.Transcript) span {
	var all span
	for i := range of {
		e := w.own.all[of[i].Tuple]
		if e == nil || e.gone == 0 {
			t.Errorf("%v: the peer shows no end of its TIME-WAIT", of[i].Tuple)
			continue
		}
		s := e.lasted()
		if !s.meets(w.lasts) {
			t.Errorf("%v: the peer's TIME-WAIT lasted from %v, by its timers from %v", of[i].Tuple, s, w.lasts)
		}
		if all.most == 0 {
			all = s
		}
		all.least, all.most = min(all.least, s.least), max(all.most, s.most)
	}
	return all
}

// TestLastingTimeWait measures how long the TIME-WAITs of a Linux, a
// gVisor and an lwIP peer last, ten times in each family at ten phases of the
// peer's timers, and holds the result against what the peer itself shows: the
// interval contains it and is narrow, and no touch has ended it or started it
// again. All three wait at once, for the two minutes that lwIP's take.
func TestLastingTimeWait(t *testing.T) {
	t.Parallel()
	const phases = 10
	const interval = 617 * time.Millisecond // in step with nothing
	a, b := lab.Pair(t)
	b.Serve("tcp4", "0.0.0.0:80", reply)
	b.Serve("tcp6", "[::]:80", reply)
	began := time.Now()
	timers := timersOf(t, b, began)
	linux, gvisor, lwip := stackOf(b, 80), gvisorServes(t, a, reply), lwipAt(t, a, lab.LWIPAnswers)
	waiters := []*waiter{
		// TCP_TIMEWAIT_LEN, and the timer wheel.
		{name: "Linux", stack: linux, list: timers.list,
			lasts: span{time.Minute, 62100 * time.Millisecond}, step: 2100 * time.Millisecond, width: 1500 * time.Millisecond},
		// tcp.DefaultTCPTimeWaitTimeout. Of touches without an answer the last may
		// have been lost, so that the last but one counts.
		{name: "gVisor", stack: gvisor, list: inTimeWait(t, gvisor),
			lasts: span{time.Minute, 60100 * time.Millisecond}, step: 100 * time.Millisecond, width: 2500 * time.Millisecond},
		// 2*TCP_MSL in ticks of TCP_SLOW_INTERVAL, which come a little late each, on a
		// machine that is busy by 10 ms.
		{name: "lwIP", stack: lwip, list: inTimeWait(t, lwip),
			lasts: span{2 * time.Minute, 126 * time.Second}, step: 3 * time.Second, width: 1500 * time.Millisecond},
	}
	r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
	var targets []*engine.Target
	var longest time.Duration
	for _, w := range waiters {
		targets = append(targets, w.targets(uint64(len(targets)))...)
		longest = max(longest, w.lasts.most)
	}
	for _, x := range targets {
		x.Interval, x.Params.Linger = interval, time.Second
		syn := x.SYN.Value()
		syn.Options.Set = probe.OptMSS
		x.SYN = unique.Make(syn)
	}
	look := func() {
		for _, w := range waiters {
			w.own.look(began, w.list)
		}
	}
	follow := func(what string, limit time.Duration, done func() bool) {
		for end := time.Now().Add(limit); !done(); look() {
			if time.Now().After(end) {
				t.Fatalf("not within %v: %s", limit, what)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	look()
	stop := time.Now().Add(phases*interval + 100*time.Millisecond)
	r.shard.Update(targets, nil)
	follow("all phases", time.Minute, func() bool { return time.Now().After(stop) })
	r.rest(targets)
	follow("the ends of TIME-WAIT", longest+20*time.Second, func() bool {
		for _, w := range waiters {
			if !w.own.over() {
				return false
			}
		}
		return r.shard.Stats.Conversations.Load() == 0
	})
	r.end()
	for _, w := range waiters {
		t.Run(w.name, func(t *testing.T) { w.check(t, 2*phases) })
	}
	timers.moved()
}
