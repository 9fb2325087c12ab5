package trust

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/probed/probed/internal/lab"
)

// A soakPlan says how long and how hard.
type soakPlan struct {
	length time.Duration
	rate   int           // half_open probes a second, one to each target
	every  time.Duration // from one sample to the next
	slot   time.Duration // from one fault to the next
	fault  time.Duration // how long one lasts
	slack  float64       // how much wider the bounds are than an hour's
	wide   bool          // bounds that a start-up fits into
}

// soakLength is SOAK, or what fits into 'make test'.
func soakLength(t *testing.T) soakPlan {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return soakPlan{length: 20 * time.Second, rate: 1000, every: time.Second, slot: 3 * time.Second, fault: 600 * time.Millisecond, slack: 1, wide: true}
	}
	length, err := time.ParseDuration(text)
	if err != nil || length < time.Minute {
		t.Fatalf("SOAK=%s: a duration of a minute or more, such as 10m", text)
	}
	p := soakPlan{length: length, rate: 5000, every: max(length/360, time.Second), slot: max(min(length/40, 30*time.Second), 10*time.Second), fault: 2 * time.Second, slack: 1}
	if length < 30*time.Minute {
		p.slack = 3 // what is remembered of every target fills up until a quarter of an hour has gone
	}
	return p
}

// The soak's peers: nothing is wrong with the calm one, and the rough one has all the
// faults. Both are real kernels.
const (
	calmPrefix  = "198.19.0.0/17"
	roughPrefix = "198.19.128.0/17"
)

// A soak is probed, for long, with everything that happens to it.
type soak struct {
	t     *testing.T
	plan  soakPlan
	here  *lab.Host
	calm  *soakPeer
	rough *soakPeer
	d     *daemon
	web   *visitors
	began time.Time

	reloads int
	files   string // folder of the discovered targets
	kinds   []soakKind
	log     []*soakFault

	mistaken int // failures that no fault accounts for
}

// A soakPeer is one of the two.
type soakPeer struct {
	*lab.Host
	here   *lab.End // our end of the way there
	end    *lab.End
	prefix string
	job    string // of the half_open targets
	port   func() // closes port 80
}

// newSoakPeer joins a peer, with a listener for each kind of probe.
func newSoakPeer(l *lab.Lab, here *lab.Host, name, prefix string) *soakPeer {
	h := l.Host(name)
	wire := l.Join(here, h)
	p := &soakPeer{Host: h, here: wire.A, end: wire.B, prefix: prefix, job: name}
	h.AnyIP(prefix)
	h.Sysctl("net.core.somaxconn", "65535")
	h.Sysctl("net.ipv4.tcp_max_syn_backlog", "262144")
	// The kernel's own account: SYNs and SYN-ACKs of half_open, and all segments.
	h.NFT(`table inet soak {
	counter arrived {}
	counter answered {}
	counter syns {}
	counter synacks {}
	chain before {
		type filter hook input priority -300;
		meta l4proto tcp counter name arrived
		tcp dport 80 tcp flags & (syn | ack) == syn counter name syns
	}
	chain input { type filter hook input priority 0; }
	chain after {
		type filter hook output priority 0;
		meta l4proto tcp counter name answered
		tcp sport 80 tcp flags & (syn | ack) == syn | ack counter name synacks
	}
}
`)
	p.open()
	h.Serve("tcp", "0.0.0.0:81", lab.Discard) // closes when we have
	h.Serve("tcp", "0.0.0.0:82", nil)         // closes at once
	h.Listen("tcp", "0.0.0.0:84")             // targets that come and go
	h.Listen("tcp", "0.0.0.0:85")             // /probe
	return p
}

// open opens the port that half_open probes.
func (p *soakPeer) open() {
	ln := p.Listen("tcp", "0.0.0.0:80")
	p.port = func() { _ = ln.Close() }
}

// address is the peer's nth.
func (p *soakPeer) address(n int) string {
	third := n >> 8
	if p.prefix == roughPrefix {
		third += 128
	}
	return fmt.Sprintf("198.19.%d.%d", third, n&255)
}

// lost is how many packets the devices between us and the peer dropped: on the way
// there, and on the way back.
func (p *soakPeer) lost(t *testing.T) (there, back int) {
	t.Helper()
	read := func(e *lab.End) (received, sent int) {
		e.Host.Do(func() {
			link, err := netlink.LinkByName(e.Iface)
			if err != nil {
				t.Fatal(err)
			}
			s := link.Attrs().Statistics
			received, sent = int(s.RxDropped), int(s.TxDropped)
		})
		return received, sent
	}
	ourReceived, ourSent := read(p.here)
	itsReceived, itsSent := read(p.end)
	return ourSent + itsReceived, itsSent + ourReceived
}

// half is how many half_open targets each peer has.
func (s *soak) half() int { return s.plan.rate * 47 / 100 }

// yaml is the configuration: nearly all probes half_open, the other kinds, and targets
// that are others at every reload.
func (s *soak) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, `global: {interval: 1s, timeout: 900ms, limits: {packets_per_second: 100000, packets_per_second_per_address: 1000}}
modules:
  plain: {probe: half_open, buckets: []}
  closing: {probe: active_close, timeout: 10s, send: "soak\r\n"}
  closed: {probe: passive_close, timeout: 10s}
  waiting: {probe: time_wait, timeout: 10s, interval: 2s}
jobs:
`)
	few := max(s.plan.rate/100, 4)
	for _, p := range []*soakPeer{s.calm, s.rough} {
		for _, j := range []struct {
			suffix, module string
			port, n        int
		}{{"", "plain", 80, s.half()}, {"_active", "closing", 81, few}, {"_passive", "closed", 82, few}, {"_time_wait", "waiting", 82, few / 2}} {
			module := j.module
			if j.suffix == "" && p == s.calm {
				module = "half_open"
			}
			fmt.Fprintf(&b, "- name: %s%s\n  module: %s\n  targets:\n", p.job, j.suffix, module)
			for i := range j.n {
				fmt.Fprintf(&b, "  - %s:%d\n", p.address(1+i), j.port)
			}
		}
	}
	b.WriteString("- name: moving\n  targets:\n")
	for i := range few {
		fmt.Fprintf(&b, "  - %s:84\n", s.calm.address(1+(s.reloads*few+i)%30000))
	}
	fmt.Fprintf(&b, "- name: found\n  file_sd_configs: [{files: [%s/*.yml]}]\n", s.files)
	return b.String()
}

// discover has file discovery find other targets.
func (s *soak) discover(n int) {
	s.t.Helper()
	few := max(s.plan.rate/100, 4)
	var b strings.Builder
	b.WriteString("- targets:\n")
	for i := range few {
		fmt.Fprintf(&b, "  - %s:84\n", s.calm.address(1+(n*few+i+7)%30000))
	}
	file := filepath.Join(s.files, "found.yml")
	if err := os.WriteFile(file+".new", []byte(b.String()), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		s.t.Fatal(err)
	}
}

// reload has other targets probed, by a signal or a request in turn.
func (s *soak) reload() {
	s.t.Helper()
	s.reloads++
	s.d.write(s.yaml())
	s.discover(s.reloads)
	if s.reloads%2 == 0 {
		s.d.signal(syscall.SIGHUP)
		return
	}
	if code, body := s.d.do("POST", "/-/reload"); code != 200 {
		s.t.Errorf("reload: %d %s", code, body)
	}
}

// figures reads /metrics. That this fails fails the test, but does not end it.
func (s *soak) figures() figures {
	s.t.Helper()
	for range 10 {
		f, err := s.web.figures(s.t.Context())
		if err == nil {
			return f
		}
		s.t.Errorf("%v after the start: %v", time.Since(s.began).Round(time.Millisecond), err)
		time.Sleep(time.Second)
	}
	s.t.FailNow()
	return nil
}

// good is how many probes of a peer's half_open targets succeeded.
func (p *soakPeer) good(f figures) int {
	return f.of("probed_probes_total", p.job) - f.of(failuresMetric, p.job)
}

// recovered waits until the last verdict of every half_open target is good, and there
// have been as many good ones as targets, which have one a second each.
func (s *soak) recovered() {
	s.t.Helper()
	from := s.figures()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		f := s.figures()
		unwell := ""
		for _, p := range []*soakPeer{s.calm, s.rough} {
			if n := f.of("probed_probe_success", p.job); n != s.half() {
				unwell = fmt.Sprintf("%s: %d targets of %d are well", p.job, n, s.half())
			}
			if n := p.good(f) - p.good(from); n < s.half() {
				unwell = fmt.Sprintf("%s: %d good verdicts of %d", p.job, n, s.half())
			}
		}
		if unwell == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%v after the start, a minute after the fault: %s", time.Since(s.began).Round(time.Millisecond), unwell)
			return
		}
	}
}

// TestSoak runs probed for as long as SOAK says, 20 s without it, while faults come and
// go, targets change, and the pages are looked at; and holds what it costs, what it says
// and what it leaves against bounds, its own kernel's and its peers' kernels' accounts.
func TestSoak(t *testing.T) {
	s := &soak{t: t, plan: soakLength(t)}
	if s.plan.wide {
		t.Parallel()
	}
	l := lab.New(t)
	s.here = l.Host("here")
	s.calm, s.rough = newSoakPeer(l, s.here, "calm", calmPrefix), newSoakPeer(l, s.here, "rough", roughPrefix)
	s.kinds = s.faults()
	var err error
	if s.files, err = os.MkdirTemp("", "probed-soak-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(s.files) })
	if err := os.Chmod(s.files, 0o755); err != nil {
		t.Fatal(err)
	}
	s.discover(0)
	s.d = start(t, s.here, s.yaml())
	s.web = newVisitors(s)
	s.recovered()
	s.began = time.Now()
	gauges := s.sample()
	s.web.start()
	s.misfortunes()
	s.web.stop()
	samples := gauges.stop()
	s.book(samples)
}

// misfortunes has faults come and go until the time is over.
func (s *soak) misfortunes() {
	s.t.Helper()
	before := s.figures()
	for n := 0; time.Since(s.began) < s.plan.length-s.plan.slot/2; n++ {
		slot := time.Now()
		s.reload()
		kind := &s.kinds[n%len(s.kinds)]
		quiet := s.figures()
		s.accountFor(before, quiet, "between faults")
		kind.run(s.plan.fault)
		ended := time.Now()
		s.recovered()
		f := &soakFault{kind: kind.name, recovery: time.Since(ended)}
		time.Sleep(1200 * time.Millisecond) // a timeout, for verdicts on what was sent last
		after := s.figures()
		f.failed = after.of(failuresMetric, s.rough.job) - quiet.of(failuresMetric, s.rough.job)
		f.discarded = after.discarded() - quiet.discarded()
		f.tapDrops = after.of("probed_tap_drops_total", "") - quiet.of("probed_tap_drops_total", "")
		f.skipped = after.of("probed_probes_skipped_total", "") - quiet.of("probed_probes_skipped_total", "")
		s.log = append(s.log, f)
		if kind.ours {
			s.accountFor(quiet, after, kind.name)
		}
		before = after
		time.Sleep(time.Until(slot.Add(s.plan.slot)))
	}
}

const failuresMetric = "probed_probe_failures_total"

// accountFor books what failed at the rough peer while its network was well, as
// mistaken but for what the devices dropped in all.
func (s *soak) accountFor(from, to figures, when string) {
	s.t.Helper()
	n := to.of(failuresMetric, s.rough.job) - from.of(failuresMetric, s.rough.job)
	if n == 0 {
		return
	}
	s.t.Logf("%v: %d failures of the rough peer %s", time.Since(s.began).Round(time.Second), n, when)
	s.mistaken += n
}

// book ends probed and books what came of it.
func (s *soak) book(samples []soakSample) {
	t := s.t
	t.Helper()
	first := s.figures()
	calm, rough := s.calm.counted(t), s.rough.counted(t)
	dropped := func(p *soakPeer) int {
		there, back := p.lost(t)
		return there + back
	}
	calmDropped, roughDropped := dropped(s.calm), dropped(s.rough)
	time.Sleep(2 * time.Second) // what was under way has its verdict
	last := s.figures()
	probes := last.of("probed_probes_total", "")

	mistaken := max(0, s.mistaken-roughDropped) // what accountFor booked is all of the rough peer's
	calmFailed := 0
	for _, suffix := range []string{"", "_active", "_passive", "_time_wait"} {
		calmFailed += last.of(failuresMetric, "calm"+suffix)
	}
	if n := calmFailed - calmDropped; n > 0 {
		t.Errorf("%d failures of the calm peer, and %d packets dropped on the way to it and back", calmFailed, calmDropped)
		mistaken += n
	}
	for _, c := range []struct {
		peer *soakPeer
		kernelCount
	}{{s.calm, calm}, {s.rough, rough}} {
		mistaken += s.holdAgainst(c.peer, c.kernelCount, first, last)
	}
	t.Logf("discarded: %v; skipped: %v", last.reasons("probed_probes_discarded_total"), last.reasons("probed_probes_skipped_total"))
	segments := s.agree()

	s.d.signal(syscall.SIGTERM)
	s.d.end(patience)
	left := 0
	if s.d.err != nil {
		t.Errorf("probed ended: %v", s.d.err)
		left++
	}
	for _, h := range []*lab.Host{s.here, s.calm.Host, s.rough.Host} {
		for _, socket := range lab.SS(h) {
			if socket.State == "TIME-WAIT" || h != s.here && socket.State == "LISTEN" {
				continue
			}
			t.Errorf("left at %s: %+v", h.Name, socket)
			left++
		}
	}
	t.Logf("false: %d; segments that the kernels' counters don't bear out: %d", mistaken, segments)
	mistaken += segments

	table := &soakTable{plan: s.plan, samples: samples, faults: s.log, web: s.web.report(), reloads: s.reloads, probes: probes, mistaken: mistaken, left: left}
	text := table.String()
	fmt.Printf("\n%s\n", text)
	if path := os.Getenv("SOAK_OUT"); path != "" {
		head := fmt.Sprintf("`make soak SOAK=%s`, %s, %s.\n\n", s.plan.length, time.Now().UTC().Format(time.DateOnly), version(t))
		if err := os.WriteFile(path, []byte(head+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, complaint := range table.trends() {
		t.Error(complaint)
	}
	book(t, Row{
		Part: "fault", What: "soak of " + s.plan.length.String(), Tried: len(s.log), Of: "faults", Probes: probes, False: mistaken,
		Discarded: last.discarded() + last.of("probed_probes_skipped_total", ""), Recovery: table.slowest(), Left: left,
		Note: fmt.Sprintf("%d reloads; greatest scrape %s", s.reloads, short(s.web.scrapes.greatest())),
	})
}
