package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A pinged is what came of a `probed ping`.
type pinged struct {
	code           int
	stdout, stderr string
}

// lines are those of the probes.
func (p *pinged) lines() []string {
	body, _, _ := strings.Cut(p.stdout, "\n\n--- ")
	all := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	return all[1:] // the first says what begins
}

// runPing runs `probed ping` in a host to its end.
func runPing(t *testing.T, h *lab.Host, args []string, options ...option) pinged {
	t.Helper()
	cmd := program(t, h, append([]string{"ping"}, args...)...)
	for _, o := range options {
		o(cmd)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return pinged{exitCode(t, err), stdout.String(), stderr.String()}
}

// matches fails the test where text is not what a regular expression says from its
// beginning to its end.
func matches(t *testing.T, text, expression string) {
	t.Helper()
	if !regexp.MustCompile("^(?:" + expression + ")$").MatchString(text) {
		t.Errorf("%q does not match %s", text, expression)
	}
}

// Parts of what a line can have.
const (
	someTime = `[0-9.]+ (?:ns|µs|ms|s)`
	rttLine  = `half_open seq=%d rtt=` + someTime + ` ttl=64 mss=14[46]0`
)

// TestPing pings over both families, by address and by name.
func TestPing(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	serveDNS(t, a, map[string][]netip.Addr{"db.test": {b.Addr4(), b.Addr6()}, "six.test": {b.Addr6()}})
	dns := withDNS(t, "127.0.0.1")
	v4, v6 := b.Addr4().String(), b.Addr6().String()
	for _, tt := range []struct{ args, as string }{
		{v4 + ":80", v4 + ":80"},
		{"[" + v6 + "]:80", "[" + v6 + "]:80"},
		{"-4 db.test:80", "db.test:80 (" + v4 + ")"},
		{"-6 db.test:80", "db.test:80 (" + v6 + ")"},
		{"-S " + a.Addr6().String() + " DB.test:80", "DB.test:80 (" + v6 + ")"},
		{"-I " + a.Iface() + " six.test.:80", "six.test.:80 (" + v6 + ")"},
	} {
		p := runPing(t, a, append([]string{"-c5", "-i100ms"}, strings.Fields(tt.args)...), dns)
		if p.code != 0 || p.stderr != "" {
			t.Errorf("%s: exit code %d, stderr %s", tt.args, p.code, p.stderr)
		}
		as := regexp.QuoteMeta(tt.as)
		first, _, _ := strings.Cut(p.stdout, "\n")
		matches(t, first, "probing "+as+`: half_open every 100 ms, timeout 900 ms, from source ports \d+-\d+`)
		lines := p.lines()
		if len(lines) != 5 {
			t.Fatalf("%s: %d lines\n%s", tt.args, len(lines), p.stdout)
		}
		for i, line := range lines {
			matches(t, line, as+" "+fmt.Sprintf(rttLine, i+1))
		}
		_, summary, _ := strings.Cut(p.stdout, "\n\n")
		matches(t, summary, "--- "+as+` half_open, `+someTime+` ---\n5 probes: 5 ok, 0 failed, 0 % loss\n +n +min +p50 +p90 +p99 +max +jitter\nhandshake_rtt +5(?: +`+
			someTime+`){6}\n\nhandshake_rtt\n(?:.*to.*\d\n)+(?:.*and more.*\n)?`)
	}
	// What cannot be probed at all.
	for args, want := range map[string]string{
		"none.test:80":        "probed: ping: none.test does not resolve: lookup none.test on 127.0.0.1:53: no such host\n",
		"-4 six.test:80":      "probed: ping: six.test does not resolve: lookup six.test",
		"-I eth7 db.test:80":  "probed: ping: interface: this host has no \"eth7\"; it has lo, " + a.Iface() + "\n",
		"-w /no/f db.test:80": "probed: ping: -w: open /no/f: no such file or directory\n",
	} {
		if p := runPing(t, a, strings.Fields(args), dns); p.code != 2 || p.stdout != "" || !strings.HasPrefix(p.stderr, want) || strings.Count(p.stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, stdout %s, stderr %s", args, p.code, p.stdout, p.stderr)
		}
	}
	if left := lab.SS(b, "syn-recv"); len(left) > 0 {
		t.Errorf("half-open state left: %v", left)
	}
}

// TestPingFailures pings what does not answer as it should.
func TestPingFailures(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.AllICMP()
	b.Listen("tcp", "[::]:80")
	b.Refuse(90, lab.Drop)
	b.Refuse(92, lab.PortUnreachable)
	b.Refuse(95, lab.AdminProhibited)
	v4, v6 := b.Addr4().String(), b.Addr6().String()
	for _, tt := range []struct {
		args, line, failed string
		code               int
	}{
		{v4 + ":81", "refused after " + someTime, "failed: refused 3", 1},
		{"[" + v6 + "]:81", "refused after " + someTime, "failed: refused 3", 1},
		{"-W 0.15 " + v4 + ":90", "timeout after 150 ms", "failed: timeout 3", 1},
		{v4 + ":92", "unreachable after " + someTime + ": ICMP " + v4 + " tcp port 92 unreachable", "failed: unreachable 3", 1},
		{"[" + v6 + "]:95", "prohibited after " + someTime + ": ICMP6, destination unreachable, unreachable prohibited " + v6, "failed: prohibited 3", 1},
		{"--probe=passive_close -W 0.2 " + v4 + ":80", `peer_never_closed after 200 ms \(handshake ` + someTime + `\)`, "failed: peer_never_closed 3", 1},
		{"198.19.0.1:80", "discarded: send_error, this host did not let it out", "discarded, ours and not the network's: send_error 3", 2},
	} {
		p := runPing(t, a, append([]string{"-c3", "-i50ms"}, strings.Fields(tt.args)...))
		if p.code != tt.code || p.stderr != "" {
			t.Errorf("%s: exit code %d, stderr %s", tt.args, p.code, p.stderr)
		}
		n := 0
		for _, line := range p.lines() {
			if !strings.HasPrefix(line, "ours, not the network's: ") {
				n++
				matches(t, line, `.*seq=\d `+tt.line)
			}
		}
		if n != 3 || !strings.Contains(p.stdout, "\n"+tt.failed+"\n") {
			t.Errorf("%s:\n%s", tt.args, p.stdout)
		}
	}
}

// TestPingKinds pings by every kind that goes past the SYN-ACK.
func TestPingKinds(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.Copy(io.Discard, c); time.Sleep(100 * time.Millisecond) })
	b.Serve("tcp", "[::]:83", func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, len("GET\r\n\x00\xff")))
		_, _ = io.WriteString(c, "200")
	})
	file := filepath.Join(readableDir(t), "request")
	write(t, file, "GET\r\n\x00\xff")
	request := `--send=GET\r\n\x00\xff`
	// The first two come before the peer is known to delay its ACK.
	for _, tt := range []struct{ args, port, line string }{
		{"--probe=active_close", "80", `active_close seq=[3-9] four_way: handshake T, fin_ack T, close_wait 1\d\d(?:\.\d)? ms, teardown T`},
		{"--probe=passive_close " + request, "83", `passive_close seq=\d four_way: handshake T, peer_close T, last_ack T, teardown T`},
		{"--probe=passive_close --send-file=" + file, "83", `passive_close seq=\d four_way: handshake T, peer_close T, last_ack T, teardown T`},
		{"--probe=time_wait --after=50ms " + request, "83", `time_wait seq=\d four_way: handshake T, peer_close T, last_ack T, teardown T, reuse accepted T`},
	} {
		for _, to := range []string{b.Addr4().String(), "[" + b.Addr6().String() + "]"} {
			var p pinged
			for range 3 { // a machine that is shared keeps it from running now and then
				p = runPing(t, a, append([]string{"-c5", "-i200ms"}, append(strings.Fields(tt.args), to+":"+tt.port)...))
				if !strings.Contains(p.stdout, "ours, not the network's: ") {
					break
				}
			}
			if p.code != 0 || p.stderr != "" {
				t.Errorf("%s: exit code %d, stderr %s", tt.args, p.code, p.stderr)
			}
			lines := p.lines()
			if len(lines) != 5 || !strings.Contains(p.stdout, "5 probes: 5 ok, 0 failed, 0 % loss\nteardown: four_way 5\n") {
				t.Fatalf("%s:\n%s", tt.args, p.stdout)
			}
			for _, line := range lines[2:] {
				matches(t, line, ".*"+strings.ReplaceAll(tt.line, "T", someTime))
			}
		}
	}
	// Linux's TIME-WAIT lasts 60 s: here the limit ends the wait for it.
	p := runPing(t, a, []string{"-c1", "--probe=time_wait", "--measure=duration", "--limit=3s", "-W1", "-i10", request, b.Addr4().String() + ":83"})
	if lines := p.lines(); p.code != 0 || len(lines) != 1 || !strings.HasSuffix(lines[0], ", time_wait not over after 3 s") {
		t.Errorf("exit code %d\n%s", p.code, p.stdout)
	}
	lab.Eventually(t, 4*time.Second, func() error {
		if left := holding(b); len(left) > 0 {
			return fmt.Errorf("the peer is left with %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// TestPingPrivileges: without CAP_NET_RAW a line says how to get it, and with it
// nothing else is needed.
func TestPingPrivileges(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	to := b.Addr4().String() + ":80"
	p := runPing(t, a, []string{"-c1", to}, unprivileged())
	want := "probed: ping: raw sockets need CAP_NET_RAW: run as root, or once: sudo setcap cap_net_raw+ep $(command -v probed)\n"
	if p.code != 2 || p.stdout != "" || p.stderr != want {
		t.Errorf("exit code %d, stdout %s, stderr %s", p.code, p.stdout, p.stderr)
	}
	for _, kind := range []string{"half_open", "active_close"} {
		if p := runPing(t, a, []string{"-c2", "-i50ms", "-W300ms", "--probe=" + kind, to}, unprivileged(unix.CAP_NET_RAW)); p.stderr != "" || !strings.Contains(p.stdout, "2 probes: ") {
			t.Errorf("%s: exit code %d, stderr %s\n%s", kind, p.code, p.stderr, p.stdout)
		}
	}
}

// A live is a `probed ping` that runs.
type live struct {
	*lab.Cmd
	t      *testing.T
	lines  chan string // of stdout
	stderr bytes.Buffer
	ended  sync.WaitGroup
	err    error
}

func startPing(t *testing.T, h *lab.Host, args ...string) *live {
	t.Helper()
	p := &live{Cmd: program(t, h, append([]string{"ping"}, args...)...), t: t, lines: make(chan string, 10000)}
	p.Stderr = &p.stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout = w
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	p.ended.Go(func() {
		defer close(p.lines)
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			p.lines <- s.Text()
		}
		p.err = p.Wait()
	})
	t.Cleanup(func() {
		_ = p.Process.Kill()
		p.ended.Wait()
	})
	return p
}

// await reads lines until one matches.
func (p *live) await(expression string) string {
	p.t.Helper()
	want, late := regexp.MustCompile(expression), time.After(15*time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("it ended without %s", expression)
			}
			if want.MatchString(line) {
				return line
			}
		case <-late:
			p.t.Fatalf("no line %s", expression)
		}
	}
}

// end sends a signal and returns the exit code and the lines that were left.
func (p *live) end(s os.Signal) (int, string) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	return p.rest()
}

func (p *live) rest() (int, string) {
	p.t.Helper()
	var b strings.Builder
	for line := range p.lines {
		b.WriteString(line + "\n")
	}
	p.ended.Wait()
	return exitCode(p.t, p.err), b.String()
}

// TestPingInterrupted: Ctrl-C prints the summary, and the peer is left with
// nothing.
func TestPingInterrupted(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	b.Refuse(90, lab.Drop)
	b.Serve("tcp", "[::]:82", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // never closes first
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := startPing(t, a, "-i50ms", b.Addr4().String()+":80")
		p.await("seq=4 rtt=")
		code, rest := p.end(s)
		if code != 0 || p.stderr.Len() > 0 {
			t.Errorf("%v: exit code %d, stderr %s", s, code, &p.stderr)
		}
		matches(t, rest, `(?:.*seq=.*\n)*\n--- .*half_open, .*\n\d+ probes: \d+ ok, 0 failed, 0 % loss\n(?:.*\n)*`)
	}
	// Two signals while probes are under way: the first waits for them, not long.
	p := startPing(t, a, "-i50ms", "-W5", b.Addr4().String()+":90")
	p.await("probing ")
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	code, rest := p.end(os.Interrupt)
	if took := time.Since(began); code != 1 || took > pingDrain+1500*time.Millisecond {
		t.Errorf("exit code %d after %v", code, took)
	}
	matches(t, rest, `(?:.*seq=\d+ discarded: shutdown, stopped before its end\n)+\n--- .*\nno probe came to a verdict\ndiscarded, ours and not the network's: shutdown \d+\n`)
	// A connection that waits for the peer is reset.
	p = startPing(t, a, "-i50ms", "-W20", "--probe=passive_close", "["+b.Addr6().String()+"]:82")
	lab.Eventually(t, 5*time.Second, func() error {
		if n := len(lab.SS(b, "estab")); n < 3 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	if code, _ := p.end(os.Interrupt); code != 1 {
		t.Errorf("exit code %d", code)
	}
	lab.Eventually(t, time.Second, func() error {
		if left := holding(b); len(left) > 0 {
			return fmt.Errorf("the peer is left with %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// A pingJSON is the output of --json.
type pingJSON struct {
	probes  []show.ConversationJSON
	summary ping.SummaryJSON
}

func parseJSON(t *testing.T, text string) (j pingJSON) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines[:len(lines)-1] {
		var c show.ConversationJSON
		decode(t, line, &c)
		j.probes = append(j.probes, c)
	}
	var last struct{ Summary *ping.SummaryJSON }
	decode(t, lines[len(lines)-1], &last)
	if last.Summary == nil {
		t.Fatalf("no summary at the end: %s", lines[len(lines)-1])
	}
	j.summary = *last.Summary
	return j
}

func decode(t *testing.T, line string, to any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
}

// TestPingAgreesWithTheWire holds --json against a tcpdump beside it.
func TestPingAgreesWithTheWire(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	capture := a.Capture(t, a.Iface(), "tcp port 80")
	const n = 100
	p := runPing(t, a, []string{"-c", fmt.Sprint(n), "-i50ms", "--json", b.Addr4().String() + ":80"})
	if p.code != 0 || p.stderr != "" {
		t.Fatalf("exit code %d, stderr %s", p.code, p.stderr)
	}
	j := parseJSON(t, p.stdout)
	if len(j.probes) != n || j.summary.Probes != n || j.summary.OK != n || j.summary.HandshakeRTT.Count != n || j.summary.Skipped != nil {
		t.Fatalf("%d probes, summary %+v", len(j.probes), j.summary)
	}
	type wired struct{ syn, synAck int64 }
	wire := make(map[string]*wired) // by our end and the time
	for _, s := range segments(t, capture.Packets()) {
		us := netip.AddrPortFrom(s.Src, s.SrcPort)
		switch {
		case s.is(probe.SYN):
			wire[us.String()] = &wired{syn: s.wall}
		case s.is(probe.SYN | probe.ACK):
			wire[netip.AddrPortFrom(s.Dst, s.DstPort).String()].synAck = s.wall
		}
	}
	if len(wire) != n {
		t.Fatalf("%d SYNs on the wire, each from a port of its own", len(wire))
	}
	var rtts, errs []time.Duration
	for i := range j.probes {
		c := &j.probes[i]
		w := wire[c.Local]
		if w == nil || c.HandshakeRTT == nil || c.Remote != b.Addr4().String()+":80" || c.Verdict != "ok" || c.Number != uint64(i+1) {
			t.Fatalf("probe %+v, on the wire %+v", c, w)
		}
		if at := time.Unix(0, w.syn).UTC().Format("2006-01-02T15:04:05.000000000Z"); c.Started != at {
			t.Errorf("the SYN left at %s, on the wire at %s", c.Started, at)
		}
		rtt := time.Duration(*c.HandshakeRTT)
		rtts, errs = append(rtts, rtt), append(errs, rtt-time.Duration(w.synAck-w.syn))
	}
	slices.Sort(rtts)
	slices.Sort(errs)
	if median := errs[n/2]; median.Abs() > 10*time.Microsecond { // the accuracy itself is another test's
		t.Errorf("off by %v in the median", median)
	}
	s := j.summary.HandshakeRTT
	for what, pair := range map[string][2]time.Duration{
		"min": {time.Duration(s.Min), rtts[0]}, "p50": {time.Duration(s.P50), rtts[n/2-1]}, "p90": {time.Duration(s.P90), rtts[n*9/10-1]},
		"p99": {time.Duration(s.P99), rtts[n*99/100-1]}, "max": {time.Duration(s.Max), rtts[n-1]},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, of the probes it is %v", what, pair[0], pair[1])
		}
	}
}

// TestPingCapture: tshark reads the file without a word and finds the same RTT in
// it.
func TestPingCapture(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	file := filepath.Join(t.TempDir(), "ping.pcapng")
	to := b.Addr4().String() + ":80"
	p := runPing(t, a, []string{"-c3", "-i100ms", "--probe=active_close", "--json", "-w", file, to})
	if p.code != 0 || p.stderr != "" {
		t.Fatalf("exit code %d, stderr %s", p.code, p.stderr)
	}
	j := parseJSON(t, p.stdout)
	want := make([]string, len(j.probes))
	for i, c := range j.probes {
		want[i] = fmt.Sprintf("%.9f", time.Duration(*c.HandshakeRTT).Seconds())
	}
	if got := synACKs(t, file); !slices.Equal(got, want) {
		t.Errorf("tshark finds RTTs of %v, probed of %v", got, want)
	}

	// To the standard output it goes alone; what a person reads is on the other.
	p = runPing(t, a, []string{"-c2", "-i50ms", "-w", "-", to})
	write(t, file, p.stdout)
	if got := synACKs(t, file); p.code != 0 || len(got) != 2 || strings.Count(p.stderr, " seq=") != 2 || !strings.Contains(p.stderr, "2 probes: 2 ok") {
		t.Errorf("exit code %d, RTTs %v, stderr\n%s", p.code, got, p.stderr)
	}

	// What cannot be written is said, and ends it.
	p = runPing(t, a, []string{"-i50ms", "-w", "/dev/full", to})
	if p.code != 2 || p.stderr != "probed: ping: -w: write /dev/full: no space left on device\n" {
		t.Errorf("exit code %d, stderr %s", p.code, p.stderr)
	}
}

// synACKs returns the RTT that tshark finds of each SYN-ACK in a file.
func synACKs(t *testing.T, file string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "tshark", "-r", file, "-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 1", "-T", "fields", "-e", "tcp.analysis.ack_rtt")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, &stderr)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "Running as user") {
			t.Errorf("tshark: %s", line)
		}
	}
	return strings.Fields(string(out))
}

// TestPingBesideDaemon pings on the host of a daemon, several at a time.
func TestPingBesideDaemon(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	to := b.Addr4().String() + ":80"
	p := start(t, a, simpleConfig("50ms", "900ms", to))
	var all sync.WaitGroup
	results := make([]pinged, 8)
	for i := range results {
		all.Go(func() { results[i] = runPing(t, a, []string{"-c10", "-i150ms", to}) })
	}
	all.Wait()
	used := make(map[string]bool)
	for i := range results {
		r := &results[i]
		if r.code != 0 || len(r.lines()) != 10 {
			t.Errorf("exit code %d, stderr %s\n%s", r.code, r.stderr, r.stdout)
			continue
		}
		first, _, _ := strings.Cut(r.stdout, "\n")
		_, ports, _ := strings.Cut(first, "source ports ")
		if used[ports] {
			t.Errorf("two at once from %s", ports)
		}
		used[ports] = true
	}
	lab.Eventually(t, 5*time.Second, func() error {
		if n := p.scrape().sum("probed_handshake_rtt_seconds", nil); n < 10 {
			return fmt.Errorf("the daemon has %v handshakes", n)
		}
		return nil
	})
	s := p.scrape()
	for _, bad := range []string{"probed_probe_failures_total", "probed_probes_discarded_total", "probed_replies_rejected_total"} {
		if n := s.sum(bad, nil); n > 0 {
			t.Errorf("the daemon's %s is %v", bad, n)
		}
	}
	// A range of the daemon's is taken, and another one is as good as any.
	if r := runPing(t, a, []string{"-c1", "--source-ports=61200-61210", to}); r.code != 2 || !strings.HasPrefix(r.stderr, "probed: ping: source port 61200 is in use by another socket") {
		t.Errorf("exit code %d, stderr %s", r.code, r.stderr)
	}
	if r := runPing(t, a, []string{"-c4", "-i50ms", "--flows=2", "--source-ports=50000-50002", to}); r.code != 0 ||
		strings.Count(r.stdout, " port=50000 ") != 2 || strings.Count(r.stdout, " port=50001 ") != 2 || !regexp.MustCompile(`(?m)^port 50001 +2 +0 +0 %`).MatchString(r.stdout) {
		t.Errorf("exit code %d, stderr %s\n%s", r.code, r.stderr, r.stdout)
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestPingShows has the segments and the ladder, and the summary alone.
func TestPingShows(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	to := b.Addr4().String() + ":80"
	stamp := `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} IP `
	us, them := regexp.QuoteMeta(a.Addr4().String())+`\.\d+`, regexp.QuoteMeta(b.Addr4().String())+`\.80`
	for _, tt := range []struct{ flag, seq, ack string }{{"", "0", "1"}, {"--absolute", `\d{3,}`, `\d{3,}`}} {
		lines := func() []string {
			p := runPing(t, a, slices.DeleteFunc([]string{"-c1", "--segments", tt.flag, to}, func(s string) bool { return s == "" }))
			return p.lines()
		}()
		if len(lines) != 4 {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		matches(t, lines[1], stamp+us+` > `+them+`: Flags \[S\], seq `+tt.seq+`, win 64240, options \[mss 1460,.*\], length 0`)
		matches(t, lines[2], stamp+them+` > `+us+`: Flags \[S\.\], seq `+tt.seq+`, ack `+tt.ack+`, win \d+, options \[mss 1460,.*\], length 0`)
		matches(t, lines[3], stamp+us+` > `+them+`: Flags \[R\], seq `+tt.ack+`, win 0, length 0`)
	}
	p := runPing(t, a, []string{"-c1", "--ladder", to})
	for _, want := range []string{"SYN-SENT", "SYN-RECEIVED", "SYN seq 0", "SYN-ACK seq 0 ack 1", "RST seq 1", "handshake_rtt", "verdict: ok"} {
		if !strings.Contains(p.stdout, want) {
			t.Errorf("the ladder has no %s:\n%s", want, p.stdout)
		}
	}
	if p := runPing(t, a, []string{"-c5", "-i100ms", "-q", to}); p.code != 0 || !strings.HasPrefix(p.stdout, "--- "+to) || strings.Contains(p.stdout, "seq=") {
		t.Errorf("exit code %d\n%s", p.code, p.stdout)
	}
	if p := runPing(t, a, []string{"-c5", "-i100ms", "-q", "--json", to}); p.code != 0 || strings.Count(p.stdout, "\n") != 1 || parseJSON(t, p.stdout).summary.OK != 5 {
		t.Errorf("exit code %d\n%s", p.code, p.stdout)
	}
	p = runPing(t, a, []string{"-c1", "--tos=184", "--ttl=9", "--mss=1220", "--json", to})
	syn := parseJSON(t, p.stdout).probes[0].Steps[1].Segment
	if syn.TOS != 184 || syn.TTL != 9 || !strings.HasPrefix(syn.Options, "mss 1220,") {
		t.Errorf("the SYN is %+v", syn)
	}
}

// TestPingLate: an answer after the timeout is shown, and told apart from loss.
func TestPingLate(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	slow := lab.Direction{Impairment: lab.Impairment{Delay: 60 * time.Millisecond}}
	l.Link(a, b, slow, slow)
	b.Listen("tcp", "[::]:80")
	p := startPing(t, a, "-i200ms", "-W50ms", b.Addr4().String()+":80")
	p.await("seq=1 timeout after 50 ms")
	p.await(`seq=1 answered too late, after 1[2-9]\d`)
	code, rest := p.end(os.Interrupt)
	if code != 1 || !strings.Contains(rest, " 100 % loss\n") || !regexp.MustCompile(`also seen: \d+ answers after the timeout`).MatchString(rest) {
		t.Errorf("exit code %d\n%s", code, rest)
	}
}

// TestPingOnATerminal: colours, for who wants them, and the terminal's width.
func TestPingOnATerminal(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	for _, tt := range []struct {
		env    []string
		width  uint16
		colour bool
	}{
		{[]string{"TERM=xterm"}, 100, true},
		{[]string{"TERM=xterm", "NO_COLOR="}, 60, true},
		{[]string{"TERM=xterm", "NO_COLOR=1"}, 100, false},
		{[]string{"TERM=dumb"}, 0, false},
	} {
		host, user := terminalPair(t, tt.width)
		cmd := program(t, a, "ping", "-c5", "-i100ms", b.Addr4().String()+":80")
		cmd.Env = append(slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, "NO_COLOR=") }), tt.env...)
		cmd.Stdout = user
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		_ = user.Close()
		out, err := io.ReadAll(host)
		if err != nil && !errors.Is(err, syscall.EIO) { // the other end is closed
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(out), "\r\n", "\n")
		if got := strings.Contains(text, "rtt=\x1b[1m"); got != tt.colour || got != strings.Contains(text, "\x1b[32m█") || got != strings.Contains(text, "\x1b") {
			t.Errorf("%v: colour %v:\n%q", tt.env, got, text)
		}
		width := 0
		_, chart, _ := strings.Cut(text, "jitter")
		for line := range strings.Lines(chart) {
			plain := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(strings.TrimSuffix(line, "\n"), "")
			if strings.Contains(plain, "█") {
				width = max(width, show.Width(plain))
			}
		}
		if want := int(tt.width); want == 0 && width > 80 || want > 0 && (width > want || width < want-3) {
			t.Errorf("%v: the longest bar ends in column %d of %d\n%s", tt.env, width, tt.width, text)
		}
	}
}

// terminalPair opens a pseudoterminal of some columns: what sits before it, and
// what a program writes to.
func terminalPair(t *testing.T, columns uint16) (host, user *os.File) {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	fd := int(host.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: columns}); err != nil {
		t.Fatal(err)
	}
	user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	return host, user
}
