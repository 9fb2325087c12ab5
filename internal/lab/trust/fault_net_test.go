package trust

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A netRig is a daemon that probes two peers over IPv4 and IPv6, by every kind of
// probe, by raw and by packet sockets: one over the interface that faults befall, and
// one over another, which they must leave alone. A capture runs beside it.
type netRig struct {
	t                  *testing.T
	here, there, aside *lab.Host
	d                  *daemon
	capture            *lab.Capture
	alsoAside          bool // faults befall this host as a whole: probes of the other peer may be discarded
	names              bool // targets are names: the wire is compared by port
	options            []option
	done               []*netFault
	descriptors        int
}

// A netFault is a fault of this host's network, or of what is next to it.
type netFault struct {
	what      string
	make, end func()
	tried     int           // how often
	lasts     time.Duration // each time
	quiet     time.Duration // what recovery may take
	lost      []string      // reasons of failures that are right, for as many probes as the capture has unanswered
	rare      bool          // at full length only
	note      string

	from, to      int64 // wall time, ns
	before, after scrape
	recovery      time.Duration
	lines         int // of the log
}

// ofConnections are the reasons of failures of peers that have answered.
var ofConnections = []string{"fin_unacked", "fin_missing", "peer_never_closed"}

// netProbing is the configuration of a rig: %[1]s are the peers' addresses.
const netProbing = `
modules:
  half: {probe: half_open, interval: 100ms, timeout: 400ms}
  active: {probe: active_close, interval: 250ms, timeout: 2s}
  passive: {probe: passive_close, interval: 250ms, timeout: 2s}
  half_packet: {probe: half_open, interval: 100ms, timeout: 400ms, transmit: packet}
  active_packet: {probe: active_close, interval: 250ms, timeout: 2s, transmit: packet}
  passive_packet: {probe: passive_close, interval: 250ms, timeout: 2s, transmit: packet}
jobs:
`

// netPorts are where the peers are probed by each kind.
var netPorts = map[string]int{"half": 80, "active": 81, "passive": 82, "half_packet": 80, "active_packet": 81, "passive_packet": 82}

// netJobs are jobs for addresses.
func netJobs(addrs ...netip.Addr) string {
	var b strings.Builder
	for _, module := range slices.Sorted(maps.Keys(netPorts)) {
		var all []string
		for _, a := range addrs {
			all = append(all, fmt.Sprintf("%q", netip.AddrPortFrom(a, uint16(netPorts[module])).String()))
		}
		fmt.Fprintf(&b, "- {name: %[1]s, module: %[1]s, targets: [%[2]s]}\n", module, strings.Join(all, ", "))
	}
	return b.String()
}

// servePeer answers probes of every kind on all addresses of a host. Over IPv6 it has more to
// say before it closes than it may without our acknowledgements.
func servePeer(h *lab.Host) {
	says := func(c net.Conn) {
		if from, ok := c.RemoteAddr().(*net.TCPAddr); ok && from.IP.To4() == nil {
			_, _ = c.Write(make([]byte, moreThanAWindow))
		}
	}
	h.Listen("tcp", "[::]:80")
	h.Serve("tcp", "[::]:81", func(c net.Conn) {
		lab.Discard(c)
		says(c)
	})
	h.Serve("tcp", "[::]:82", says)
}

// newNetRig joins the three hosts; start starts the daemon.
func newNetRig(t *testing.T) *netRig {
	t.Helper()
	l := lab.New(t)
	r := &netRig{t: t, here: l.Host("here"), there: l.Host("there"), aside: l.Host("aside")}
	l.Join(r.here, r.there)
	l.Join(r.here, r.aside)
	servePeer(r.there)
	servePeer(r.aside)
	return r
}

// start starts the daemon and waits until every target has answered.
func (r *netRig) start(config string) {
	r.t.Helper()
	r.capture = r.here.Capture(r.t, "any", "tcp portrange 61000-61255")
	r.d = start(r.t, r.here, config, r.options...)
	r.answered(r.d.scrape(), patience)
	r.descriptors = descriptors(r.t, r.d.cmd.Process.Pid)
}

// probing is the usual configuration.
func (r *netRig) probing() string {
	return netProbing + netJobs(r.there.Addr4(), r.there.Addr6(), r.aside.Addr4(), r.aside.Addr6())
}

// run runs a command on a host.
func (r *netRig) run(h *lab.Host, line string) {
	r.t.Helper()
	words := strings.Fields(line)
	if out, err := h.Command(context.Background(), words[0], words[1:]...).CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %s: %v: %s", h.Name, line, err, out)
	}
}

// netGoods are the good verdicts of every target, by job and target.
func netGoods(s scrape) map[[2]string]float64 {
	all := make(map[[2]string]float64)
	for _, m := range s["probed_probes_total"].GetMetric() {
		all[targetOf(m)] += m.GetCounter().GetValue()
	}
	for _, m := range s["probed_probe_failures_total"].GetMetric() {
		all[targetOf(m)] -= m.GetCounter().GetValue()
	}
	return all
}

type labelled interface {
	GetLabel() []*dto.LabelPair
}

// targetOf is whose a series is.
func targetOf(m labelled) (of [2]string) {
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "job_name":
			of[0] = l.GetValue()
		case "target":
			of[1] = l.GetValue()
		}
	}
	return of
}

// answered waits until every target has a good verdict that it had not before.
func (r *netRig) answered(before scrape, limit time.Duration) {
	r.t.Helper()
	was := netGoods(before)
	deadline := time.Now().Add(limit)
	for {
		now, missing := netGoods(r.d.scrape()), []string(nil)
		for of := range now {
			if now[of] <= was[of] {
				missing = append(missing, strings.Join(of[:], " "))
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			slices.Sort(missing)
			r.t.Fatalf("no good verdict within %v of %d targets: %s", limit, len(missing), strings.Join(missing, ", "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// suffer makes a fault and ends it.
func (r *netRig) suffer(f netFault) {
	r.t.Helper()
	if f.rare && !full() {
		return
	}
	if f.tried == 0 {
		f.tried = times(10, 1)
	}
	if f.lasts == 0 {
		f.lasts = 600 * time.Millisecond
		if full() {
			f.lasts = 3 * time.Second
		}
	}
	if f.quiet == 0 {
		f.quiet = patience
	}
	said := strings.Count(r.d.out.String(), "\n")
	f.from = time.Now().UnixNano() // before the scrape, which may take long on a busy machine
	f.before = r.d.scrape()
	for range f.tried {
		f.make()
		time.Sleep(f.lasts)
		f.end()
		at := r.d.scrape()
		ended := time.Now()
		r.answered(at, f.quiet)
		f.recovery = max(f.recovery, time.Since(ended))
	}
	time.Sleep(500 * time.Millisecond) // what was under way has its verdict
	if len(f.lost) > 0 {
		time.Sleep(1700 * time.Millisecond) // and connections run out of time
	}
	f.after, f.to = r.d.scrape(), time.Now().UnixNano()
	f.lines = strings.Count(r.d.out.String(), "\n") - said
	r.done = append(r.done, &f)
}

// end ends the daemon, compares what it said with the capture, and books the faults.
func (r *netRig) end() {
	r.t.Helper()
	time.Sleep(time.Second)                                               // connections end
	left := max(0, descriptors(r.t, r.d.cmd.Process.Pid)-r.descriptors-2) // ours may come and go
	r.d.signal(syscall.SIGTERM)
	r.d.end(patience)
	held := r.leftovers()
	left += len(held)
	flows := r.flows()
	for _, f := range r.done {
		row := Row{
			Part: "fault", What: f.what, Tried: f.tried, Of: "times", Left: left, Recovery: f.recovery,
			Probes:    int(f.after.sum("probed_probes_total") - f.before.sum("probed_probes_total")),
			Discarded: int(f.after.sum("probed_probes_discarded_total") - f.before.sum("probed_probes_discarded_total") + f.after.sum("probed_probes_skipped_total") - f.before.sum("probed_probes_skipped_total")),
			False:     r.judge(f, flows),
			Note:      f.said(),
		}
		book(r.t, row)
		if most := 12 * f.tried; f.lines > most {
			r.t.Errorf("%s: %d lines in the log", f.what, f.lines)
		}
	}
}

// leftovers is what the peers still hold of connections with the daemon's ports.
func (r *netRig) leftovers() (left []lab.Socket) {
	r.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left = left[:0]
		for _, h := range []*lab.Host{r.there, r.aside} {
			for _, s := range lab.SS(h, "SYN-RECV", "ESTAB", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSING") {
				if p := s.RemotePort(); 61000 <= p && p <= 61255 {
					left = append(left, s)
				}
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			r.tellOf(left)
			return left
		}
	}
}

// tellOf logs the last that the wire had of sockets of peers.
func (r *netRig) tellOf(left []lab.Socket) {
	r.t.Helper()
	for _, s := range left {
		r.t.Logf("left: %+v", s)
		r.tell(unmapped(s.Local), unmapped(s.Remote).Port(), 0)
	}
}

// tell logs the last that the wire had of a peer and a port of ours, since a moment.
func (r *netRig) tell(peer netip.AddrPort, port uint16, since int64) {
	r.t.Helper()
	var said []string
	for _, p := range r.capture.Packets() {
		var in wire.Packet
		if p.Wall < since || since != 0 && p.Wall > since+int64(10*time.Second) || wire.ParseUnverified(p.Data, &in) != nil || in.Kind != wire.KindTCP {
			continue
		}
		from, to := netip.AddrPortFrom(in.Src, in.SrcPort), netip.AddrPortFrom(in.Dst, in.DstPort)
		if to == peer && from.Port() == port || from == peer && to.Port() == port {
			s := &in.Segment
			said = append(said, fmt.Sprintf("%s %v > %v: %v seq %d len %d ack %d", time.Unix(0, p.Wall).UTC().Format("15:04:05.000000"), from, to, s.Flags, s.Seq, s.Len, s.Ack))
		}
	}
	r.t.Log(strings.Join(said[max(0, len(said)-30):], "\n"))
}

// unmapped is an address and a port as ss writes them.
func unmapped(s string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// said is what the metrics said while a fault lasted.
func (f *netFault) said() string {
	var all []string
	for _, m := range []struct{ name, short string }{
		{"probed_probe_failures_total", "failed"}, {"probed_probes_discarded_total", "discarded"}, {"probed_probes_skipped_total", "skipped"},
	} {
		before, after := f.before.values(m.name, "reason"), f.after.values(m.name, "reason")
		for _, reason := range slices.Sorted(maps.Keys(after)) {
			if n := after[reason] - before[reason]; n > 0 {
				all = append(all, fmt.Sprintf("%s %s %.0f", m.short, reason, n))
			}
		}
	}
	if f.note != "" {
		all = append(all, f.note)
	}
	return strings.Join(all, ", ")
}

// A flow is a probe's conversation as the capture has it.
type flow struct {
	target   string // host:port
	port     uint16
	at       int64 // the SYN's stamp
	iss      probe.Seq
	answered int64     // the SYN-ACK's, or the RST's; 0: none
	fin      probe.Seq // the sequence number after our FIN, once that was sent
	finAt    int64     // that FIN's stamp, the first's; 0: none
	peerFIN  int64     // the stamp of the peer's FIN; 0: none
	finAcked int64     // likewise of our FIN's acknowledgement

	theirs     probe.Seq // the sequence number after the peer's FIN, once that has come
	owed       bool      // the peer may wait for a RST or an acknowledgement of ours that has not left
	oldACK     bool      // a challenge ACK answered the SYN
	challenged bool      // likewise, though all had left that closes the connection before
}

// cut reports whether a connection was not closed from both sides within its timeout.
func (f *flow) cut() bool {
	late := func(at int64) bool { return at == 0 || at-f.at > int64(1950*time.Millisecond) }
	return f.answered != 0 && (late(f.peerFIN) || late(f.finAcked))
}

// flows reads the capture.
func (r *netRig) flows() (all []*flow) {
	r.t.Helper()
	type key struct {
		target string
		port   uint16
	}
	last := make(map[key]*flow)
	for _, p := range r.capture.Packets() {
		var in wire.Packet
		if wire.ParseUnverified(p.Data, &in) != nil || in.Kind != wire.KindTCP {
			continue
		}
		seg := &in.Segment
		k := key{netip.AddrPortFrom(in.Dst, in.DstPort).String(), in.SrcPort}
		if !p.Outgoing {
			k = key{netip.AddrPortFrom(in.Src, in.SrcPort).String(), in.DstPort}
		}
		f := last[k]
		switch {
		case p.Outgoing && seg.Flags == probe.SYN && (f == nil || f.iss != seg.Seq):
			last[k] = &flow{target: k.target, port: k.port, at: p.Wall, iss: seg.Seq, owed: f != nil && f.owed}
			all = append(all, last[k])
		case f == nil:
		case p.Outgoing && seg.Flags == probe.SYN: // another layer's
			f.at = p.Wall
		case p.Outgoing:
			f.sent(seg, p.Wall)
		case seg.Flags.Has(probe.ACK):
			f.arrived(seg, p.Wall)
		}
	}
	return all
}

// sent notes a segment of ours behind the SYN.
func (f *flow) sent(seg *probe.Segment, at int64) {
	if seg.Flags.Has(probe.FIN) {
		f.fin = seg.End()
		if f.finAt == 0 {
			f.finAt = at
		}
	}
	if seg.Flags.Has(probe.RST) || f.finAt != 0 && f.peerFIN != 0 && seg.Ack == f.theirs {
		f.owed = false
	}
}

// arrived notes a segment of the peer's.
func (f *flow) arrived(seg *probe.Segment, at int64) {
	if f.answered == 0 && seg.Ack == f.iss.Add(1) && (seg.Flags.Has(probe.SYN) || seg.Flags.Has(probe.RST)) {
		f.answered = at
	}
	if f.answered == 0 && !seg.Flags.Has(probe.SYN) && !seg.Flags.Has(probe.RST) {
		f.oldACK, f.challenged = true, f.challenged || !f.owed
	}
	f.owed = f.owed || seg.Flags.Has(probe.SYN) || seg.Flags.Has(probe.FIN)
	if seg.Flags.Has(probe.FIN) {
		f.theirs = seg.End()
		if f.peerFIN == 0 {
			f.peerFIN = at
		}
	}
	if f.finAt != 0 && seg.Ack == f.fin && f.finAcked == 0 {
		f.finAcked = at
	}
}

// judge counts the verdicts and the figures during a fault that the capture does not
// bear out.
func (r *netRig) judge(f *netFault, flows []*flow) (wrong int) {
	r.t.Helper()
	type count struct{ answered, unanswered, late, cut, challenged int }
	var trips []int64 // round trips
	wires := make(map[string]*count)
	for _, x := range flows {
		if x.at < f.from-int64(2*time.Second) || x.at > f.to {
			continue
		}
		c := wires[r.onWire(x.target)]
		if c == nil {
			c = new(count)
			wires[r.onWire(x.target)] = c
		}
		if x.answered == 0 || x.answered-x.at > int64(380*time.Millisecond) { // half_open's timeout is 400 ms
			c.unanswered++
		}
		if x.challenged {
			c.challenged++
		}
		if x.answered == 0 {
			continue
		}
		if x.answered-x.at > int64(380*time.Millisecond) {
			c.late++ // a peer on a busy machine, say
		}
		c.answered++
		if x.cut() {
			c.cut++
		}
		trips = append(trips, x.answered-x.at)
	}
	complain := func(n int, format string, args ...any) {
		r.t.Helper()
		if n > 0 {
			wrong += n
			r.t.Errorf(f.what+": "+format, args...)
		}
	}
	// Failures: none that this host is to blame for, and else no more than SYNs were
	// not answered, or connections not closed. Several jobs share a target.
	failed, broken, challenged, was := make(map[string]int), make(map[string]int), make(map[string]int), netFailures(f.before)
	for of, all := range netFailures(f.after) {
		reason, n := of[2], int(all-was[of])
		if c := wires[r.onWire(of[1])]; c != nil && reason == "timeout" && !slices.Contains(f.lost, reason) {
			late := min(n, c.late)
			n, c.late = n-late, c.late-late
		}
		if !slices.Contains(f.lost, reason) || r.isAside(of[1]) {
			complain(n, "%v failed %d times", of, n)
			for _, x := range flows {
				if n > 0 && f.from <= x.at && x.at <= f.to && x.target == of[1] && x.answered == 0 {
					r.tell(netip.MustParseAddrPort(x.target), x.port, x.at)
				}
			}
		} else if slices.Contains(ofConnections, reason) {
			broken[r.onWire(of[1])] += n
		} else if reason == "challenge_ack" {
			challenged[r.onWire(of[1])] += n
		} else if reason != "unreachable" && reason != "not_resolved" && reason != "refused" {
			failed[r.onWire(of[1])] += n
		}
	}
	for target, n := range failed {
		if c := wires[target]; c == nil || n > c.unanswered {
			complain(n, "%s failed %d times, and the wire has %+v", target, n, c)
		}
	}
	for target, n := range broken {
		if c := wires[target]; c == nil || n > c.cut {
			complain(n, "%s failed %d times once it had answered, and the wire has %+v", target, n, c)
		}
	}
	for target, n := range challenged {
		if c := wires[target]; c == nil || n > c.challenged {
			complain(n, "%s answered %d times by a challenge ACK, and the wire has %+v", target, n, c)
			for _, x := range flows {
				if x.oldACK && f.from-int64(2*time.Second) <= x.at && x.at <= f.to && r.onWire(x.target) == target {
					r.tell(netip.MustParseAddrPort(x.target), x.port, 0)
				}
			}
		}
	}
	good, had := make(map[string]int), netGoods(f.before)
	for of, n := range netGoods(f.after) {
		good[r.onWire(of[1])] += int(n - had[of])
	}
	for target, n := range good {
		if c := wires[target]; c == nil || n > c.answered {
			complain(n, "%s: %d good verdicts, and the wire has %+v", target, n, c)
		}
	}
	gone := netDiscards(f.before)
	for of, n := range netDiscards(f.after) {
		if n -= gone[of]; r.isAside(of[1]) && !r.alsoAside {
			complain(int(n), "%v: %v discarded", of, n)
		}
	}
	// Latencies: what a fault adds to one is there at once, in tenths of a second. Those of
	// handshakes must be on the wire, to a millisecond.
	more := func(name string, bound float64, job string) int {
		return above(f.after, name, bound, job) - above(f.before, name, bound, job)
	}
	for _, bound := range []time.Duration{2 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
		long, slow := more("probed_handshake_rtt_seconds", bound.Seconds(), ""), 0
		for _, d := range trips {
			if d > int64(bound-time.Millisecond) {
				slow++
			}
		}
		complain(long-slow, "%d handshakes above %v, on the wire %d", long, bound, slow)
	}
	// What the peers' kernels alone do, not their applications.
	complain(more("probed_fin_ack_rtt_seconds", 0.1, ""), "acknowledgements of our FIN above 0.1 s")
	complain(more("probed_last_ack_rtt_seconds", 0.1, ""), "last acknowledgements above 0.1 s")
	var closings []*flow
	for _, x := range flows {
		if f.from-int64(2*time.Second) <= x.at && x.at <= f.to && x.peerFIN != 0 && x.finAcked-x.peerFIN > int64(400*time.Millisecond) {
			closings = append(closings, x)
		}
	}
	teardowns := more("probed_teardown_seconds", 0.5, "passive")
	for _, x := range closings {
		if x.finAcked-x.peerFIN > int64(500*time.Millisecond) && x.peerFIN <= x.finAt && x.finAt-x.peerFIN < int64(20*time.Millisecond) {
			teardowns-- // our FIN left at once, and went again after a second: a peer on two cores drops it while it enters FIN-WAIT-2
		}
	}
	if teardowns > 0 {
		complain(teardowns, "teardowns above 0.5 s")
		for _, x := range closings {
			r.tell(netip.MustParseAddrPort(x.target), x.port, x.at)
		}
	}
	return wrong
}

// onWire is what the capture knows of a target.
func (r *netRig) onWire(target string) string {
	if r.names {
		return target[strings.LastIndexByte(target, ':'):]
	}
	return target
}

func (r *netRig) isAside(target string) bool {
	a, err := netip.ParseAddrPort(target)
	return err == nil && (a.Addr() == r.aside.Addr4() || a.Addr() == r.aside.Addr6())
}

// netDiscards are what was discarded of every target.
func netDiscards(s scrape) map[[2]string]float64 {
	all := make(map[[2]string]float64)
	for _, m := range s["probed_probes_discarded_total"].GetMetric() {
		all[targetOf(m)] += m.GetCounter().GetValue()
	}
	return all
}

// netFailures are those of every target, by job, target and reason.
func netFailures(s scrape) map[[3]string]float64 {
	all := make(map[[3]string]float64)
	for _, m := range s["probed_probe_failures_total"].GetMetric() {
		of := targetOf(m)
		for _, l := range m.GetLabel() {
			if l.GetName() == "reason" {
				all[[3]string{of[0], of[1], l.GetValue()}] += m.GetCounter().GetValue()
			}
		}
	}
	return all
}

// above counts the observations of all histograms of a name, of jobs whose names begin
// with job, that are above a bucket's bound, or the next one.
func above(s scrape, name string, bound float64, job string) (n int) {
	for _, m := range s[name].GetMetric() {
		if !strings.HasPrefix(targetOf(m)[0], job) {
			continue
		}
		h := m.GetHistogram()
		within := uint64(0)
		for _, b := range h.GetBucket() {
			if within = b.GetCumulativeCount(); b.GetUpperBound() >= bound {
				break
			}
		}
		n += int(h.GetSampleCount() - within)
	}
	return n
}

// listed is what is in a YAML list.
func listed(all []string) string { return strings.Join(all, ", ") }
