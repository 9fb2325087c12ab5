package trust

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

const (
	// oneWay is what the path to the targets takes, and back. It is never faster, so that
	// an answer before twice that is none of theirs.
	oneWay = 10 * time.Millisecond
	// floodRate is how many segments a second an attacker sends at most.
	floodRate = 100_000
)

// forgedYAML probes 1,000 targets in each way. Their figures have a bucket for what is too
// soon to be true.
const forgedYAML = `
global: {interval: 1s, timeout: 900ms}
modules:
  half: {probe: half_open, buckets: [0.0199, 1]}
  flows: {probe: half_open, flows: 2, buckets: [0.0199, 1]}
  active: {probe: active_close, timeout: 5s, hold: 200ms, buckets: [0.0199, 1]}
  passive: {probe: passive_close, timeout: 5s, send: "x", buckets: [0.0199, 1]}
  reuse: {probe: time_wait, interval: 12s, timeout: 5s, after: 1s, send: "x", buckets: [0.0199, 1]}
jobs:
- {name: half, module: half, targets: [%s]}
- {name: flows, module: flows, targets: [%s]}
- {name: silent, module: half, targets: [%s]}
- {name: refused, module: half, targets: [%s]}
- {name: active, module: active, targets: [%s]}
- {name: passive, module: passive, targets: [%s]}
- {name: reuse, module: reuse, targets: [%s]}
`

// The ports of the targets.
const (
	portHalf    = 1000
	portSilent  = 1001
	portRefused = 1002
	portActive  = 1003
	portPassive = 1004
)

// A field is where attacks take place.
type field struct {
	t       *testing.T
	here    *lab.Host
	there   *lab.Host
	daemon  *daemon
	victim  *victim
	sender  *sender
	spy     *spy
	capture *lab.Capture
	link    *lab.Link
	last    moment

	samplesSeen map[netip.AddrPort][]sample
}

// newField has probed probe 1,000 targets at the other end of a slow link, and an attacker
// next to it on a link of his own.
func newField(t *testing.T) *field {
	t.Helper()
	l := lab.New(t)
	f := &field{t: t, here: l.Host("here"), there: l.Host("there")}
	crook := l.Host("crook")
	slow := lab.Direction{Impairment: lab.Impairment{Delay: oneWay}}
	f.link = l.Link(f.here, f.there, slow, slow)
	side := l.Join(f.here, crook)
	f.there.AnyIP("198.18.64.0/21", "2001:db8:64::/64")
	for _, iface := range []string{"all", side.A.Iface, f.link.A.Iface} {
		f.here.Sysctl("net.ipv4.conf."+iface+".rp_filter", "0")
	}
	// What our kernel answers to the attacker goes back to him, and so neither to the
	// targets nor over the slow link.
	f.here.Sysctl("net.ipv4.fwmark_reflect", "1")
	f.here.Sysctl("net.ipv6.fwmark_reflect", "1")
	f.here.NFT(fmt.Sprintf("add table inet crook\nadd chain inet crook in { type filter hook prerouting priority -300; }\nadd rule inet crook in iifname %q meta mark set 7\n", side.A.Iface))
	for _, ip := range []string{
		"-4 rule add fwmark 7 lookup 7", "-6 rule add fwmark 7 lookup 7",
		"-4 route add default via " + side.B.Addr4.String() + " dev " + side.A.Iface + " table 7",
		"-6 route add default via " + side.B.Addr6.String() + " dev " + side.A.Iface + " table 7",
	} {
		if out, err := f.here.Command(t.Context(), "ip", strings.Fields(ip)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", ip, err, out)
		}
	}
	f.there.Serve("tcp", fmt.Sprintf("[::]:%d", portHalf), lab.Discard)
	f.there.Serve("tcp", fmt.Sprintf("[::]:%d", portActive), lab.Discard)
	f.there.Serve("tcp", fmt.Sprintf("[::]:%d", portPassive), func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			time.Sleep(50 * time.Millisecond)
		}
	})
	f.there.Refuse(portSilent, lab.Drop)

	f.victim = &victim{local4: f.link.A.Addr4, local6: f.link.A.Addr6, first: 61000, last: 61255, split: 61128}
	next := 0
	targets := func(n int, port uint16) string {
		var all []string
		for range n {
			next++
			a := netip.AddrFrom4([4]byte{198, 18, 64 + byte(next>>8), byte(next)})
			if next%10 == 9 {
				a = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0x64, 14: byte(next >> 8), 15: byte(next)})
			}
			to := netip.AddrPortFrom(a, port)
			f.victim.targets = append(f.victim.targets, to)
			all = append(all, fmt.Sprintf("%q", to))
		}
		return strings.Join(all, ",")
	}
	yaml := fmt.Sprintf(forgedYAML, targets(600, portHalf), targets(100, portHalf), targets(30, portSilent), targets(20, portRefused),
		targets(120, portActive), targets(90, portPassive), targets(40, portPassive))
	f.spy = newSpy(t, f.link.B)
	f.sender = newSender(t, side.B, side.A)
	f.capture = f.here.Capture(t, f.link.A.Iface, "tcp[tcpflags] & tcp-syn != 0 or (ip6[6] == 6 and ip6[53] & 2 != 0)")
	f.daemon = start(t, f.here, yaml)
	return f
}

// A period is what the metrics said before and after some time.
type period struct {
	from, to      time.Time
	before, after scrape
	attack        attack
	name          string
	reason        string  // by which what was forged is rejected
	uncounted     bool    // not all of it is
	said          float64 // segments that probed sent, its kernel's RSTs to targets included
	memory        float64 // MiB, at the end
	live          float64 // MiB of the heap after a collection, at full length
	compared      comparison
}

func (p *period) delta(name string, labels ...string) float64 {
	return p.after.sum(name, labels...) - p.before.sum(name, labels...)
}

// A moment is what there is to be known at one.
type moment struct {
	at   time.Time
	said float64
	now  scrape
}

// measure looks at probed.
func (f *field) measure() {
	f.t.Helper()
	f.last = moment{time.Now(), f.transmitted(), f.daemon.scrape()}
}

// transmitted is how many packets have left for the targets.
func (f *field) transmitted() (n float64) {
	f.t.Helper()
	f.here.Do(func() {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			f.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name, counts, _ := strings.Cut(strings.TrimSpace(line), ":"); name == f.link.A.Iface {
				n, _ = strconv.ParseFloat(strings.Fields(counts)[9], 64) // the second of "Transmit"
			}
		}
	})
	return n
}

// during measures what happens while g runs, from the last measurement on.
func (f *field) during(name string, g func() attack) *period {
	f.t.Helper()
	p := &period{name: name, from: f.last.at, before: f.last.now, said: -f.last.said}
	p.attack = g()
	for end := time.Now().Add(10 * time.Second); ; { // what is under way, on a slow machine in the tap
		time.Sleep(100 * time.Millisecond)
		f.measure()
		p.after = f.last.now
		rejected, _ := p.rejected()
		if rejected+p.delta("probed_tap_drops_total") >= 0.95*float64(p.attack.named) || time.Now().After(end) {
			break
		}
	}
	p.to = f.last.at
	p.said += f.last.said
	p.memory = anonymous(f.t, f.daemon.cmd.Process.Pid)
	if full() {
		f.daemon.do("GET", "/debug/pprof/heap?gc=1") // which collects first
		p.live = f.daemon.scrape().sum("go_memstats_heap_alloc_bytes") / (1 << 20)
	}
	return p
}

// anonymous is how much memory a process has of its own, in MiB: without the tap's ring,
// which is the kernel's, and as large as it will ever be.
func anonymous(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no RssAnon in %s", text)
	return 0
}

// below is how many samples of a histogram lie below its first classic bucket's bound.
func below(s scrape, name string, labels ...string) (n float64) {
	for _, m := range s[name].GetMetric() {
		if b := m.GetHistogram().GetBucket(); has(m, labels) && len(b) > 0 {
			n += float64(b[0].GetCumulativeCount())
		}
	}
	return n
}

// faces are what the metrics say of peers.
func faces(s scrape) []string {
	var all []string
	for _, name := range []string{"probed_peer_info", "probed_peer_hops", "probed_peer_mss_bytes"} {
		for _, m := range s[name].GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			all = append(all, fmt.Sprint(name, labels, m.GetGauge().GetValue()))
		}
	}
	slices.Sort(all)
	return all
}

// lies counts what the metrics say and the peers did not, and says which.
func (p *period) lies() (n int, which []string) {
	lie := func(what string, by float64) {
		if by != 0 {
			n += int(max(by, -by, 1))
			which = append(which, fmt.Sprintf("%s: %v", what, by))
		}
	}
	after := p.after["probed_probe_failures_total"]
	for _, job := range []string{"half", "flows", "active", "passive", "reuse"} {
		seen := make(map[string]bool)
		for _, m := range after.GetMetric() {
			for _, l := range m.GetLabel() {
				reason := l.GetValue()
				if l.GetName() != "reason" || seen[reason] || !has(m, []string{"job_name", job}) {
					continue
				}
				seen[reason] = true
				switch {
				case job != "half" && job != "flows":
				case reason == "timeout", reason == "bad_synack", reason == "challenge_ack":
					continue // a silence, whatever explains it, is compared with the capture
				}
				lie(job+" "+reason, p.delta("probed_probe_failures_total", "job_name", job, "reason", reason))
			}
		}
	}
	for _, job := range []string{"silent", "refused"} {
		lie(job+" succeeded", p.delta("probed_probes_total", "job_name", job)-p.delta("probed_probe_failures_total", "job_name", job))
	}
	lie("refused, but not so", p.delta("probed_probe_failures_total", "job_name", "refused")-p.delta("probed_probe_failures_total", "job_name", "refused", "reason", "refused")-
		p.delta("probed_probe_failures_total", "job_name", "refused", "reason", "timeout"))
	// What explains a silence is hearsay, and may be forged: docs/measurements.md.
	silent := p.delta("probed_probe_failures_total", "job_name", "silent")
	for _, reason := range []string{"timeout", "bad_synack", "challenge_ack"} {
		silent -= p.delta("probed_probe_failures_total", "job_name", "silent", "reason", reason)
	}
	lie("silent, but not so", silent)
	for _, name := range []string{"probed_handshake_rtt_seconds", "probed_fin_ack_rtt_seconds", "probed_last_ack_rtt_seconds", "probed_teardown_seconds", "probed_peer_close_seconds", "probed_time_wait_reuse_rtt_seconds"} {
		lie(name+" too soon to be true", below(p.after, name)-below(p.before, name))
	}
	lie("half-close octets", p.delta("probed_half_close_bytes_total"))
	lie("simultaneous closes", p.delta("probed_teardowns_total", "form", "simultaneous"))
	lie("changes of peers", p.delta("probed_peer_changes_total"))
	lie("flows that fail", p.after.sum("probed_flows_failing"))
	for _, answer := range []string{"challenge_ack", "reset"} {
		lie("time_wait_reuse "+answer, p.delta("probed_time_wait_reuse_total", "answer", answer))
	}
	if a, b := faces(p.before), faces(p.after); len(a) > 0 {
		for _, x := range a {
			if _, found := slices.BinarySearch(b, x); !found {
				lie("of peers no more: "+x, 1)
			}
		}
	}
	return n, which
}

// discarded are probes without a verdict for reasons of ours.
func (p *period) discarded() float64 {
	return p.delta("probed_probes_discarded_total") + p.delta("probed_probes_skipped_total")
}

// rejected says what was not believed, by reason.
func (p *period) rejected() (all float64, by string) {
	before, after := p.before.values("probed_replies_rejected_total", "reason"), p.after.values("probed_replies_rejected_total", "reason")
	var list []string
	for reason, n := range after {
		if d := n - before[reason]; d > 0 {
			all += d
			list = append(list, reason+" "+thousands(int(d)))
		}
	}
	slices.Sort(list)
	return all, strings.Join(list, ", ")
}

// syns reads the capture: when each SYN left, and how long its answer took, 0 without.
func (f *field) syns() map[probe.FourTuple][]handshake {
	all := make(map[probe.FourTuple][]handshake)
	for _, c := range f.capture.Packets() {
		var p wire.Packet
		if wire.Parse(c.Data, &p) != nil || p.Kind != wire.KindTCP {
			continue
		}
		from, to := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
		if c.Outgoing {
			tuple := probe.FourTuple{Local: from, Remote: to}
			all[tuple] = append(all[tuple], handshake{at: time.Unix(0, c.Wall)})
			continue
		}
		if h := all[probe.FourTuple{Local: to, Remote: from}]; len(h) > 0 && h[len(h)-1].rtt == 0 {
			h[len(h)-1].rtt = time.Unix(0, c.Wall).Sub(h[len(h)-1].at)
		}
	}
	return all
}

// A handshake is one of the capture.
type handshake struct {
	at  time.Time
	rtt time.Duration
}

// A sample is what probed says of one probe.
type sample struct {
	Started time.Time `json:"started"`
	Verdict string    `json:"verdict"`
	RTT     float64   `json:"handshake_rtt_seconds"`
	Port    uint16    `json:"source_port"`
}

// remember asks probed for what became of the last probes of each half_open that is answered,
// of which it keeps 256.
func (f *field) remember() {
	f.t.Helper()
	if f.samplesSeen == nil {
		f.samplesSeen = make(map[netip.AddrPort][]sample)
	}
	get := func(path string, to any) {
		code, body := f.daemon.do("GET", path)
		if err := json.Unmarshal([]byte(body), to); code != 200 || err != nil {
			f.t.Fatalf("%s: %d %v", path, code, err)
		}
	}
	for page := 1; ; page++ {
		var list struct {
			Pages   int `json:"pages"`
			Targets []struct {
				ID     string `json:"id"`
				Remote string `json:"remote"`
			} `json:"targets"`
		}
		get(fmt.Sprintf("/api/v1/targets?limit=500&page=%d", page), &list)
		for i, x := range list.Targets {
			to, err := netip.ParseAddrPort(x.Remote)
			if err != nil {
				f.t.Fatal(err)
			}
			if to.Port() != portHalf || i%times(1, 5) != 0 {
				continue
			}
			var one struct {
				Samples []sample `json:"samples"`
			}
			get("/api/v1/targets/"+x.ID+"/samples", &one)
			seen := f.samplesSeen[to]
			for _, s := range one.Samples {
				if !slices.Contains(seen, s) {
					f.samplesSeen[to] = append(f.samplesSeen[to], s)
				}
			}
		}
		if page >= list.Pages {
			return
		}
	}
}

// A comparison is of what probed says of probes with the capture beside it.
type comparison struct {
	n, false  int
	said, was time.Duration // sums of round trips
	worst     time.Duration // by which two differ
	what      string        // the last that differs
}

// compare holds each sample to the SYN and the SYN-ACK of the capture. Two taps of one device
// stamp a packet one after the other, so that they differ by microseconds, or, where the
// kernel is interrupted in between, by more.
func (f *field) compare(periods []*period) {
	const apart = 2 * time.Millisecond
	syns := f.syns()
	for to, samples := range f.samplesSeen {
		for _, s := range samples {
			if s.Verdict == "discarded" {
				continue
			}
			var c *comparison
			for _, p := range periods {
				if s.Started.After(p.from.Add(-time.Second)) {
					c = &p.compared
				}
			}
			if c == nil {
				continue
			}
			local := f.victim.local4
			if to.Addr().Is6() {
				local = f.victim.local6
			}
			var h *handshake
			for i, x := range syns[probe.FourTuple{Local: netip.AddrPortFrom(local, s.Port), Remote: to}] {
				if d := x.at.Sub(s.Started); d > -10*time.Millisecond && d < 500*time.Millisecond {
					h = &syns[probe.FourTuple{Local: netip.AddrPortFrom(local, s.Port), Remote: to}][i]
				}
			}
			c.n++
			rtt := time.Duration(s.RTT * 1e9)
			switch {
			case h == nil:
				c.false++
				c.what = fmt.Sprintf("%v from %d at %v: no SYN", to, s.Port, s.Started)
			case (s.RTT > 0) != (h.rtt > 0 && h.rtt <= 900*time.Millisecond):
				c.false++
				c.what = fmt.Sprintf("%v from %d at %v: %v, %v, on the wire %v", to, s.Port, s.Started, s.Verdict, rtt, h.rtt)
			case s.RTT > 0:
				c.said, c.was = c.said+rtt, c.was+h.rtt
				c.worst = max(c.worst, (rtt - h.rtt).Abs())
				if (rtt - h.rtt).Abs() > apart {
					c.false++
					c.what = fmt.Sprintf("%v from %d at %v: %v, on the wire %v", to, s.Port, s.Started, rtt, h.rtt)
				}
			}
		}
	}
}

// mostKept is by how many MiB what is live may grow by who sees what is probed. Of each of
// 1,000 targets the recorder keeps eight transcripts, each of which may have 16 records
// more, of 60 octets. Each four-tuple that is open or lingers, five seconds' worth, may have
// a transcript in the engine, with as many records more. The collector lets the double
// of all that come together.
const mostKept = float64(1000*8*16*60+1000*5*16*recordSize) / (1 << 20)

const recordSize = int(unsafe.Sizeof(probe.Record{}))

// A forgery is a kind, and what is at least to be counted of it.
type forgery struct {
	name      string
	kind      kind
	reason    string
	uncounted bool
}

// sees reports whether whoever forges it sees what is probed.
func (g *forgery) sees() bool {
	switch g.name {
	case "FINs in the window", "data in the window", "ICMP errors, quotes near our SEQ", "replays of conversations before",
		"SYN-ACKs with another ISN after the true one":
		return true
	}
	return strings.Contains(g.name, "on the path")
}

// forgeries are all of them.
var forgeries = []forgery{
	{"SYN-ACKs, off the path", offPath(probe.SYN|probe.ACK, 0), "unexpected", false},
	{"RSTs, off the path", offPath(probe.RST, 0), "unexpected", false},
	{"RSTs with an ACK, off the path", offPath(probe.RST|probe.ACK, 0), "unexpected", false},
	{"FINs, off the path", offPath(probe.FIN|probe.ACK, 0), "unexpected", false},
	{"data, off the path", offPath(probe.ACK|probe.PSH, 1200), "unexpected", false},
	{"ACKs, off the path", offPath(probe.ACK, 0), "unexpected", false},
	{"SYNs, off the path", offPath(probe.SYN, 0), "unexpected", false},
	{"to guarded ports, TTL 255", guarded(probe.ACK), "unexpected", false},
	{"wrong checksums", damaged(offPath(probe.SYN|probe.ACK, 0)), "bad_checksum", false},
	{"IP options, fragments", odd, "unexpected", false},
	{"malformed TCP headers and options", malformed, "malformed", false},
	{"ICMP errors, quotes with another SEQ", errorsAtRandom, "bad_quote", false},
	{"ICMP errors, quotes without a SEQ", errorsTooShort, "bad_quote", false},
	{"ICMP about others", errorsAboutOthers, "", false},
	{"SYN-ACKs, on the path but blind", nearSYNACKs, "bad_ack", false},
	{"challenge ACKs, on the path but blind", nearACKs, "bad_ack", false},
	{"one ACK again and again, on the path but blind", sameACKs, "bad_ack", false},
	{"RSTs, on the path but blind", nearRSTs, "bad_ack", false},
	{"FINs in the window", nearData(probe.FIN|probe.ACK, 0), "bad_ack", false},
	{"data in the window", nearData(probe.ACK|probe.PSH, 100), "bad_ack", false},
	{"ICMP errors, quotes near our SEQ", nearErrors, "bad_quote", false},
	{"replays of conversations before", replays, "bad_ack", true},
	{"SYN-ACKs with another ISN after the true one", otherISNs, "bad_sequence", false},
	{"RSTs, off the path, as fast as can be", offPath(probe.RST, 0), "unexpected", false},
}

// Forged segments of each kind, 100,000 a second, while 1,000 targets are probed: none is
// believed, each is counted, none is answered beyond the ration, and no figure moves.
func TestForgedSegments(t *testing.T) {
	if !full() { // which has the machine to itself: tests that are not parallel come first
		t.Parallel()
	}
	f := newField(t)
	f.sender.alone = full()
	lab.Eventually(t, patience, func() error { return atLeast(f.daemon.scrape(), 2500) })
	each := time.Duration(times(6_000, 150)) * time.Millisecond
	f.measure()
	none := f.during("nothing: the measure of the others", func() attack { time.Sleep(2 * each); return attack{took: 2 * each} })
	periods := []*period{none}
	forge := func(i int, g forgery, name string) *period {
		c := &crook{victim: f.victim, rng: rand.New(rand.NewPCG(uint64(i), 7)), spy: f.spy}
		rate := float64(floodRate)
		if i == len(forgeries)-1 {
			rate *= 100 // as fast as can be: the tap may not keep up
		}
		p := f.during(name, func() attack { return f.sender.attack(t, c, g.kind, rate, each) })
		p.reason, p.uncounted = g.reason, g.uncounted
		return p
	}
	var usually, usuallyLive, first, second float64 // before anybody saw what is probed; the most that was live in each pass
	for i, g := range forgeries[:len(forgeries)-1] {
		p := forge(i, g, g.name)
		periods, first = append(periods, p), max(first, p.live)
		if !g.sees() {
			usually, usuallyLive = p.memory, max(usuallyLive, p.live)
		}
	}
	if full() { // what leaves most behind, once more
		f.remember()
		for i, g := range forgeries {
			if g.sees() {
				p := forge(i, g, g.name+", again")
				periods, second = append(periods, p), max(second, p.live)
			}
		}
	}
	last := len(forgeries) - 1
	periods = append(periods, forge(last, forgeries[last], forgeries[last].name))
	f.remember()
	f.daemon.signal(syscall.SIGTERM)
	f.daemon.end(patience)
	f.compare(periods)
	left := 0
	lab.Eventually(t, patience, func() error {
		if left = len(lab.SS(f.there, "syn-recv", "estab")); left > 0 {
			return fmt.Errorf("%d connections left", left)
		}
		return nil
	})
	usual := none.said / none.to.Sub(none.from).Seconds()
	verdicts := none.delta("probed_probes_total") / none.to.Sub(none.from).Seconds()
	// All but the last, whose frames the tap may lose: in short each lasts but a moment.
	attacks := periods[1 : len(periods)-1]
	all := &period{name: "all but the last", from: none.to, to: attacks[len(attacks)-1].to, before: none.after, after: attacks[len(attacks)-1].after}
	for _, p := range attacks {
		all.compared.n += p.compared.n
	}
	all.judged(t, verdicts)
	for _, p := range periods {
		n, which := p.lies()
		if c := p.compared; c.false > 0 {
			n += c.false
			which = append(which, fmt.Sprintf("%d of %d probes are not as captured: %s", c.false, c.n, c.what))
		}
		rejected, by := p.rejected()
		if p != none {
			p.held(t, rejected, by, usual)
			p.judged(t, verdicts)
		}
		if n > 0 {
			t.Errorf("%s: %d lies: %s", p.name, n, strings.Join(which, "; "))
		}
		c := p.compared
		per := func(d time.Duration) float64 { return float64(d) / 1e6 / float64(max(c.n, 1)) }
		book(t, Row{
			Part: "forged", What: p.name, Tried: p.attack.sent, Of: "segments", Probes: int(p.delta("probed_probes_total")),
			False: n, Discarded: int(p.discarded()), Left: left,
			Note: fmt.Sprintf("%s/s; %s; %d round trips of %.3f ms, captured %.3f", thousands(int(p.attack.rate())), by, c.n, per(c.said), per(c.was)),
		})
		t.Logf("%s: %.0f segments of probed's own, as usual %.0f; %.0f tap drops; %.0f probes late; of silent peers %.0f challenge_ack; round trips differ by %v at most; %.1f MiB, %.1f live",
			p.name, p.said, usual*p.to.Sub(p.from).Seconds(), p.delta("probed_tap_drops_total"), p.delta("probed_probes_skipped_total", "reason", "late"),
			p.delta("probed_probe_failures_total", "job_name", "silent", "reason", "challenge_ack"), c.worst, p.memory, p.live)
	}
	t.Logf("live %.1f MiB before, %.1f before anybody saw, %.1f at most in the first pass, %.1f in the second", none.live, usuallyLive, first, second)
	if grown := max(first, second) - usuallyLive; grown > mostKept {
		t.Errorf("what is live grew by %.1f MiB, and by %.1f at most", grown, mostKept)
	}
	if grown := periods[len(periods)-1].memory - usually; grown > 2*mostKept {
		t.Errorf("memory grew by %.1f MiB, and by %.1f at most", grown, 2*mostKept)
	}
}

// held checks that an attack was counted, and answered no more than the ration.
func (p *period) held(t *testing.T, rejected float64, by string, usual float64) {
	t.Helper()
	took := p.to.Sub(p.from).Seconds()
	if p.attack.sent == 0 {
		t.Errorf("%s: nothing was sent", p.name)
	}
	if full() && p.attack.rate() < floodRate/5 { // 100,000 where nothing else runs on two processors
		t.Errorf("%s: %.0f segments a second: too few to show anything", p.name, p.attack.rate())
	}
	if p.reason != "" && p.after.values("probed_replies_rejected_total", "reason")[p.reason] <= p.before.values("probed_replies_rejected_total", "reason")[p.reason] {
		t.Errorf("%s: none rejected as %s: %s", p.name, p.reason, by)
	}
	if drops := p.delta("probed_tap_drops_total"); !p.uncounted && rejected+drops < 0.9*float64(p.attack.named) {
		t.Errorf("%s: %.0f rejected of %d that name a target, %.0f dropped by the tap: %s", p.name, rejected, p.attack.named, drops, by)
	}
	// The ration is 200 RSTs a second and 64 at once, and of each connection some ACKs.
	if more := p.said - usual*took; more > 1000+1500*took {
		t.Errorf("%s: %.0f segments more than usual in %.1f s", p.name, more, took)
	}
}

// judged checks that an attack kept no probes from their verdicts, of which there are so
// many a second without one. Some are late on a slow machine, which is ours; and where the
// tap has lost frames, probes are discarded for that.
func (p *period) judged(t *testing.T, usual float64) {
	t.Helper()
	expected := usual * p.to.Sub(p.from).Seconds()
	verdicts, late, lost := p.delta("probed_probes_total"), p.delta("probed_probes_skipped_total", "reason", "late"), 0.0
	if p.delta("probed_tap_drops_total") > 0 {
		lost = p.delta("probed_probes_discarded_total", "reason", "tap_drop")
	}
	if others := p.discarded() - late - lost; others > 5+0.03*(verdicts+others) {
		t.Errorf("%s: %.0f probes discarded or skipped as ours beside %.0f verdicts: discarded %v, skipped %v before, then %v, %v", p.name, others, verdicts,
			p.before.values("probed_probes_discarded_total", "reason"), p.before.values("probed_probes_skipped_total", "reason"),
			p.after.values("probed_probes_discarded_total", "reason"), p.after.values("probed_probes_skipped_total", "reason"))
	}
	// A loop that comes round late books in one period what was due in another.
	if late > 0.9*expected+2*usual {
		t.Errorf("%s: %.0f probes were late of %.0f", p.name, late, expected)
	}
	if verdicts+late+lost < 0.6*expected-0.5*usual {
		t.Errorf("%s: %.0f verdicts, %.0f probes late, %.0f lost by the tap, where without an attack %.0f had verdicts", p.name, verdicts, late, lost, expected)
	}
	if p.compared.n == 0 && p.to.Sub(p.from) > 2*time.Second && lost == 0 {
		t.Errorf("%s: no probe was compared with the capture", p.name)
	}
}
