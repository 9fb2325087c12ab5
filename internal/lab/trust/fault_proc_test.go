package trust

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// allKinds probes what servers serves by every kind, each so often that something is
// under way at every moment.
const allKinds = `
global: {limits: {packets_per_second_per_address: 2000}}
modules:
  half: {probe: half_open, interval: 100ms, timeout: 90ms}
  active: {probe: active_close, interval: 200ms, timeout: 3s}
  passive: {probe: passive_close, interval: 200ms, timeout: 3s, send: "x\n"}
  wait: {probe: time_wait, interval: 600ms, timeout: 3s, send: "x\n", after: 200ms}
jobs:
- {name: half, module: half, targets: [%s]}
- {name: active, module: active, targets: ['198.18.0.2:80']}
- {name: passive, module: passive, targets: ['198.18.0.2:81']}
- {name: wait, module: wait, targets: ['198.18.0.2:82']}
- {name: talks_then_closes, module: passive, targets: ['198.18.0.2:83']}
- {name: closed_then_talks, module: active, targets: ['198.18.0.2:84']}
`

// everyKind is that configuration, with n targets of half_open.
func everyKind(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("'198.18.64.%d:80'", i+1)
	}
	return fmt.Sprintf(allKinds, strings.Join(all, ","))
}

// moreThanAWindow is what a kernel doesn't send before some of it is acknowledged: it begins
// with ten segments (RFC 6928).
const moreThanAWindow = 20_000

// servers has a host accept what everyKind asks for: one port whose application closes
// when we have, and two whose closes first; and of either one that waits for our
// acknowledgements before, since it has more to say.
func servers(h *lab.Host) {
	h.AnyIP("198.18.64.0/24")
	h.Serve("tcp", "0.0.0.0:80", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, port := range []string{"81", "82"} {
		h.Serve("tcp", "0.0.0.0:"+port, func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 2)) })
	}
	says := func(c net.Conn) { _, _ = c.Write(make([]byte, 10*moreThanAWindow)) }
	h.Serve("tcp", "0.0.0.0:83", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 2))
		says(c)
	})
	h.Serve("tcp", "0.0.0.0:84", func(c net.Conn) {
		_, _ = io.Copy(io.Discard, c)
		says(c)
	})
}

// An exchange is what a capture shows of SYNs and their answers.
type exchange struct {
	syns, unanswered int
	late             int           // answers to half_open after its timeout
	fins             int           // FINs of ours that went again, and nothing had acknowledged them
	unclosed         int           // connections that we reset since the peer had acknowledged all and did not close
	again            int           // SYN-ACKs and FINs that came again although we had answered them, or what came before was out of order
	slowest          time.Duration // SYN to SYN-ACK
	slowestFIN       time.Duration // what a peer took from our SYN to its FIN, without what we let it wait
	aside            string        // the job whose figures the capture can't tell of
}

// closing is the timeout of everyKind's connections.
const closing = 3 * time.Second

// A halt is when probed did not run, by the wall clock in ns.
type halt struct{ from, to int64 }

// running is how much of a time probed ran.
func running(from, to int64, halts []halt) time.Duration {
	d := to - from
	for _, h := range halts {
		d -= max(min(to, h.to)-max(from, h.from), 0)
	}
	return time.Duration(d)
}

// A connection is one with a guarded port, as the wire has it.
type connection struct {
	opened       int64
	iss, end     probe.Seq // of all that we sent
	acknowledged bool      // all of it
	closed       bool      // the peer has sent its FIN
	reset        bool

	last int64         // when the last segment of either side passed
	owes bool          // the peer has sent what we have not answered
	took time.Duration // for how long we owed nothing, up to the peer's FIN
}

// passes takes in when a segment of ours or of the peer's passed. A peer that takes several
// turns, each as slow as its host is busy, takes the sum of them.
func (k *connection) passes(s *probe.Segment, ours bool, wall int64) {
	const together = 50 * time.Millisecond // what the peer sends again comes after more
	if d := time.Duration(wall - k.last); !k.closed && (!k.owes || !ours && d < together) {
		k.took += d
	}
	k.last, k.owes = wall, !ours && (k.owes || s.Len > 0 || s.Flags&(probe.SYN|probe.FIN) != 0)
}

// sees takes in a segment of ours or of the peer's, and reports whether it is our RST to a
// peer that owes us nothing but its FIN, after as much time as the timeout in which probed
// ran: then the peer's application has not closed.
func (k *connection) sees(s *probe.Segment, ours bool, wall int64, timeout time.Duration, halts []halt) (unclosed bool) {
	switch {
	case !ours:
		k.acknowledged = k.acknowledged || s.Flags.Has(probe.ACK) && k.end.LessEq(s.Ack)
		k.closed = k.closed || s.Flags.Has(probe.FIN)
	case s.Flags.Has(probe.RST):
		const soon = 50 * time.Millisecond // from when a probe is due to its SYN's stamp
		unclosed = !k.reset && k.acknowledged && !k.closed && k.end != k.iss.Add(1) && running(k.opened, wall, halts) >= timeout-soon
		k.reset = true
	case k.end.Less(s.End()):
		k.end, k.acknowledged = s.End(), false
	}
	return unclosed
}

// exchanges reads a capture that was taken beside a probed which was stopped at times.
// Answers that come within patience count.
func exchanges(packets []lab.CapturedPacket, halts ...halt) (x exchange) {
	return exchangesOf(packets, closing, halts)
}

// exchangesOf is exchanges, of connections with another timeout.
func exchangesOf(packets []lab.CapturedPacket, timeout time.Duration, halts []halt) (x exchange) {
	connections := make(map[probe.FourTuple]*connection)
	type key struct {
		local, remote netip.AddrPort
		iss           probe.Seq
	}
	sent, fins := make(map[key]int64), make(map[key]probe.Seq)
	came, answered := make(map[key]probe.Seq), make(map[key]bool) // what the peer sent that takes a number
	next, reordered := make(map[key]probe.Seq), make(map[key]bool)
	for _, c := range packets {
		var p wire.Packet
		if wire.ParseUnverified(c.Data, &p) != nil || p.Kind != wire.KindTCP {
			continue
		}
		src, dst := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
		tuple := probe.FourTuple{Local: src, Remote: dst}
		if !c.Outgoing {
			tuple = probe.FourTuple{Local: dst, Remote: src}
		}
		if s := &p.Segment; c.Outgoing && s.Flags == probe.SYN && src.Port() >= 61128 {
			if k := connections[tuple]; k == nil || k.iss != s.Seq {
				connections[tuple] = &connection{opened: c.Wall, iss: s.Seq, end: s.End(), last: c.Wall}
			}
		} else if k := connections[tuple]; k != nil {
			k.passes(s, c.Outgoing, c.Wall)
			if k.sees(s, c.Outgoing, c.Wall, timeout, halts) {
				x.unclosed++
			}
			if k.closed {
				x.slowestFIN = max(x.slowestFIN, k.took)
			}
		}
		if out := (key{src, dst, 0}); c.Outgoing {
			if end, ok := fins[out]; ok && p.Segment.Flags.Has(probe.FIN) && end == p.Segment.End() {
				x.fins++
			}
			if p.Segment.Flags.Has(probe.FIN) {
				fins[out] = p.Segment.End()
			}
		} else if end, ok := fins[key{dst, src, 0}]; ok && p.Segment.Flags.Has(probe.ACK) && end.LessEq(p.Segment.Ack) {
			delete(fins, key{dst, src, 0})
		}
		if theirs := (key{src, dst, 0}); !c.Outgoing {
			switch s := &p.Segment; {
			case s.Flags.Has(probe.SYN):
				next[theirs], reordered[theirs] = s.End(), false
			case next[theirs].Less(s.Seq): // a peer on two cores, say, which then sends everything again from there on
				reordered[theirs] = true
			case next[theirs].Less(s.End()):
				next[theirs] = s.End()
			}
		}
		if theirs := (key{src, dst, 0}); !c.Outgoing && p.Segment.Flags&(probe.SYN|probe.FIN) != 0 {
			if end, ok := came[theirs]; ok && end == p.Segment.End() && (answered[theirs] || reordered[theirs]) {
				x.again++
			} else if end != p.Segment.End() {
				came[theirs], answered[theirs] = p.Segment.End(), false
			}
		} else if theirs = (key{dst, src, 0}); c.Outgoing && (p.Segment.Flags.Has(probe.RST) || p.Segment.Flags.Has(probe.ACK) && came[theirs].LessEq(p.Segment.Ack)) {
			answered[theirs] = true
		}
		if !p.Segment.Flags.Has(probe.SYN) {
			continue
		}
		if c.Outgoing {
			sent[key{src, dst, p.Segment.Seq}] = c.Wall
			x.syns++
			continue
		}
		k := key{dst, src, p.Segment.Ack.Add(^uint32(0))}
		if at, ok := sent[k]; ok && p.Segment.Flags.Has(probe.ACK) {
			took := time.Duration(c.Wall - at)
			if x.slowest = max(x.slowest, took); took > 90*time.Millisecond && dst.Port() < 61128 {
				x.late++
			}
			delete(sent, k)
		}
	}
	x.unanswered = len(sent)
	return x
}

// bound is what no figure may be beyond: the slowest of the wire, and some ms of our own
// that a teardown may have.
func (x exchange) bound() time.Duration {
	return max(x.slowest, x.slowestFIN, 80*time.Millisecond) + 20*time.Millisecond
}

// String is it in a row's note.
func (x exchange) String() string {
	return fmt.Sprintf("on the wire %d SYNs, %d unanswered, the slowest answer %s", x.syns, x.unanswered, short(x.slowest))
}

// above counts the observations of histograms beyond a bound, which is rounded up to
// that of a bucket.
func (s scrape) above(bound time.Duration, names ...string) (n int) {
	for _, name := range names {
		for _, m := range s[name].GetMetric() {
			h := m.GetHistogram()
			within := uint64(0)
			for _, b := range h.GetBucket() {
				within = b.GetCumulativeCount()
				if b.GetUpperBound() >= bound.Seconds() {
					break
				}
			}
			n += int(h.GetSampleCount() - within)
		}
	}
	return n
}

// handshakes is the histogram of what no application has a part in, and no delay of ours: it
// lies between two stamps.
const handshakes = "probed_handshake_rtt_seconds"

// beyond is what no handshake may take: the slowest of the wire, and what two taps differ by.
func (x exchange) beyond() time.Duration { return x.slowest + 2*time.Millisecond }

// peersFigures are the histograms of what else peers take, but for teardowns.
var peersFigures = []string{
	"probed_fin_ack_rtt_seconds", "probed_close_wait_seconds",
	"probed_peer_close_seconds", "probed_last_ack_rtt_seconds", "probed_time_wait_reuse_rtt_seconds",
}

// teardowns is the histogram of what a FIN of ours that has to go again is in.
const teardowns = "probed_teardown_seconds"

// againsts are the counters of what peers send again.
var againsts = []string{"probed_synack_duplicates_total", "probed_synack_late_total", "probed_fin_retransmits_total"}

// falsehoods is what probed holds against peers that answered all, and at once, beyond
// what a capture shows: failures, segments sent again, and figures beyond its slowest.
func (s scrape) falsehoods(x exchange) int { return falsehoods(x, s) }

// falsehoods are those of several lives.
func falsehoods(x exchange, lives ...scrape) int {
	sum := func(name string, labels ...string) (n int) {
		for _, s := range lives {
			n += int(s.sum(name, labels...))
		}
		return n
	}
	beyond, long := 0, -x.fins
	for _, s := range lives {
		s = s.without(x.aside)
		beyond += s.above(x.bound(), peersFigures...) + s.above(x.beyond(), handshakes)
		long += s.above(x.bound(), teardowns)
	}
	beyond += max(long, 0)
	again := sum("probed_synack_duplicates_total") + sum("probed_fin_retransmits_total", "side", "peer")
	// An answer after its timeout explains a half_open that timed out, and an application
	// that did not close a connection that waited for it: neither anything else.
	timeouts, unclosed := sum("probed_probe_failures_total", "reason", "timeout"), 0
	for _, job := range []string{"active", "passive", "wait", "talks_then_closes", "closed_then_talks"} {
		timeouts -= sum("probed_probe_failures_total", "reason", "timeout", "job_name", job)
	}
	for _, reason := range []string{"fin_missing", "peer_never_closed"} {
		unclosed += sum("probed_probe_failures_total", "reason", reason)
	}
	explained := min(timeouts, x.late) + min(unclosed, x.unclosed)
	return beyond + sum("probed_probe_failures_total") - explained + max(sum("probed_synack_late_total")-x.late, 0) +
		max(sum("probed_fin_retransmits_total", "side", "local")-x.fins, 0) + max(again-x.again, 0)
}

// told is falsehoods in words.
func (s scrape) told(x exchange) string {
	bound := x.bound()
	text := fmt.Sprintf("failures %v, discarded %v, skipped %v", s.values("probed_probe_failures_total", "reason"),
		s.values("probed_probes_discarded_total", "reason"), s.values("probed_probes_skipped_total", "reason"))
	for _, name := range againsts {
		text += fmt.Sprintf(", %s %.0f %v", name, s.sum(name), s.values(name, "side"))
	}
	text += fmt.Sprintf(", %s beyond %v: %d", handshakes, x.beyond(), s.above(x.beyond(), handshakes))
	for _, name := range append(peersFigures, teardowns) {
		text += fmt.Sprintf(", %s beyond %v: %d", name, bound, s.above(bound, name))
	}
	return text
}

// finsAgain is what a capture has of connections whose peer sent its FIN more than once, from the
// first on.
func finsAgain(packets []lab.CapturedPacket) string {
	type flow struct {
		said []string
		fins int
	}
	flows, text := make(map[probe.FourTuple]*flow), ""
	for _, c := range packets {
		var p wire.Packet
		if wire.ParseUnverified(c.Data, &p) != nil || p.Kind != wire.KindTCP {
			continue
		}
		local, remote := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
		if !c.Outgoing {
			local, remote = remote, local
		}
		tuple, s := probe.FourTuple{Local: local, Remote: remote}, &p.Segment
		if f := flows[tuple]; c.Outgoing && s.Flags == probe.SYN {
			if f != nil && f.fins > 1 {
				text += strings.Join(f.said, "\n") + "\n\n"
			}
			flows[tuple] = &flow{}
		} else if f != nil {
			if !c.Outgoing && s.Flags.Has(probe.FIN) {
				f.fins++
			}
			who := "we  "
			if !c.Outgoing {
				who = "peer"
			}
			f.said = append(f.said, fmt.Sprintf("%s %v %s %v seq %d len %d ack %d", time.Unix(0, c.Wall).UTC().Format("15:04:05.000000"), tuple, who, s.Flags, s.Seq, s.Len, s.Ack))
			f.said = f.said[max(0, len(f.said)-40):]
		}
	}
	for _, f := range flows {
		if f.fins > 1 {
			text += strings.Join(f.said, "\n") + "\n\n"
		}
	}
	return text
}

// ours is how many probes were discarded or skipped.
func (s scrape) ours() int {
	return int(s.sum("probed_probes_discarded_total") + s.sum("probed_probes_skipped_total"))
}

// good is how many verdicts of each target were good, by its labels.
func (s scrape) good() map[string]float64 {
	all := make(map[string]float64)
	for name, sign := range map[string]float64{"probed_probes_total": 1, "probed_probe_failures_total": -1} {
		for _, m := range s[name].GetMetric() {
			id := ""
			for _, l := range m.GetLabel() {
				if l.GetName() != "reason" {
					id += l.GetName() + "=" + l.GetValue() + " "
				}
			}
			all[id] += sign * m.GetCounter().GetValue()
		}
	}
	return all
}

// recovers waits for the next good verdict of every target, and returns how long after
// end that came. Verdicts of probes that were under way count, if the peer has answered.
func (d *daemon) recovers(before scrape, end time.Time) time.Duration {
	d.t.Helper()
	was := before.good()
	lab.Eventually(d.t, patience, func() error {
		for id, n := range d.scrape().good() {
			if n <= was[id] {
				return fmt.Errorf("no good verdict of %s", id)
			}
		}
		return nil
	})
	return time.Since(end)
}

// lasting is what left finds now and goes on to find.
func lasting(h *lab.Host) int { return len(staying(h, left(h), time.Now().Add(10*time.Second))) }

// staying is which of a host's sockets left goes on to find until a deadline.
func staying(h *lab.Host, all []lab.Socket, deadline time.Time) []lab.Socket {
	for looks := 0; ; looks++ {
		then := left(h)
		all = slices.DeleteFunc(slices.Clone(all), func(s lab.Socket) bool { return !slices.Contains(then, s) })
		if len(all) == 0 || looks > 10 && time.Now().After(deadline) {
			return all
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// left is what a host's kernel holds that probed's connections have left, TIME-WAIT
// aside, which is the peer's right.
func left(h *lab.Host) (open []lab.Socket) {
	for _, s := range lab.SS(h) {
		if s.State != "TIME-WAIT" && s.State != "LISTEN" && s.RemotePort() >= 61000 {
			open = append(open, s)
		}
	}
	return open
}

// A group is a control group with one controller.
type group struct {
	t    *testing.T
	path string
	v2   bool
}

// newGroup makes one, for as long as the test runs.
func newGroup(t *testing.T, controller string) *group {
	t.Helper()
	const root = "/sys/fs/cgroup"
	g := &group{t: t}
	_, err := os.Stat(root + "/cgroup.controllers")
	g.v2 = err == nil
	name := fmt.Sprintf("probed-trust-%s-%d", strings.NewReplacer("/", "-", "(", "", ")", "").Replace(strings.ToLower(t.Name())), os.Getpid())
	if g.v2 {
		g.path = filepath.Join(root, name)
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+controller), 0); err != nil {
			t.Fatalf("control group's %s controller: %v", controller, err)
		}
	} else {
		g.path = filepath.Join(root, controller, name)
	}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		t.Fatalf("control group: %v", err)
	}
	t.Cleanup(func() {
		g.release()
		lab.Eventually(t, patience, func() error { return os.Remove(g.path) })
	})
	return g
}

// set writes a file of the group: the first version's or the second's.
func (g *group) set(v1, value1, v2, value2 string) {
	g.t.Helper()
	name, value := v1, value1
	if g.v2 {
		name, value = v2, value2
	}
	if err := os.WriteFile(filepath.Join(g.path, name), []byte(value), 0); err != nil {
		g.t.Fatal(err)
	}
}

// add puts a process with all its threads into the group.
func (g *group) add(pid int) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		g.t.Fatal(err)
	}
}

// release puts what is in the group where groups begin.
func (g *group) release() {
	all, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		g.t.Error(err)
	}
	for pid := range strings.Lines(string(all)) {
		// One that has ended meanwhile is gone from the group, too.
		_ = os.WriteFile(filepath.Join(filepath.Dir(g.path), "cgroup.procs"), []byte(strings.TrimSpace(pid)), 0)
	}
}

// background starts a program that is killed with the test.
func background(t *testing.T, h *lab.Host, name string, args ...string) *lab.Cmd {
	t.Helper()
	c := h.Command(context.WithoutCancel(t.Context()), name, args...)
	if err := c.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}
