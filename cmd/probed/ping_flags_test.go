package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/probe"
)

// TestPingRefuses: what cannot be meant is exit code 2 and says in a line what is
// wrong, all at once.
func TestPingRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "")
	for _, tt := range []struct{ args, want string }{
		{"", "probed: required argument 'host:port' not provided, try --help\n"},
		{"198.18.0.2:80 198.18.0.3:80", "probed: unexpected 198.18.0.3:80, try --help\n"},
		{"--nonsense 198.18.0.2:80", "probed: unknown long flag '--nonsense', try --help\n"},
		{"-x 198.18.0.2:80", "probed: unknown short flag '-x', try --help\n"},
		{"--probe=full_open 198.18.0.2:80", "probed: enum value must be one of half_open,active_close,passive_close,time_wait, got 'full_open', try --help\n"},
		{"-c 0 198.18.0.2:80", "probed: --count=0: allowed is a whole number from 1 to 2147483647, try --help\n"},
		{"-c-1 198.18.0.2:80", "probed: --count=-1: allowed is a whole number from 1 to 2147483647, try --help\n"},
		{"-c many 198.18.0.2:80", "probed: --count=many: allowed is a whole number from 1 to 2147483647, try --help\n"},
		{"-i 5ms 198.18.0.2:80", "probed: --interval=5ms: allowed is 10ms to 24h, try --help\n"},
		{"-i 0 198.18.0.2:80", "probed: --interval=0: allowed is 10ms to 24h, try --help\n"},
		{"-i soon 198.18.0.2:80", "probed: --interval=soon: not a time: write 1s, 200ms, 1m30s, or 0.2 for seconds, try --help\n"},
		{"-i NaN 198.18.0.2:80", "probed: --interval=NaN: not a time: write 1s, 200ms, 1m30s, or 0.2 for seconds, try --help\n"},
		{"-W 1h 198.18.0.2:80", "probed: --timeout=1h: allowed is 1ms to 30m, try --help\n"},
		{"-W 6m 198.18.0.2:80", "probed: ping: a timeout of 6m is too long for half_open; allowed: up to 5m, and for passive_close, time_wait up to 30m\n"},
		{"-i 0.02 --probe=active_close 198.18.0.2:80", "probed: ping: -i 20ms is too fast: a probe is up to 6 packets here, and probed sends an address no more than 200 a second: -i 30ms or more\n"},
		{"-i 0.02 --probe=time_wait 198.18.0.2:80", "probed: ping: -i 20ms is too fast: a probe is up to 7 packets here, and probed sends an address no more than 200 a second: -i 35ms or more\n"},
		{"198.18.0.2", "probed: ping: \"198.18.0.2\" has no port; write 198.18.0.2:443, say\n"},
		{"https://db.test/", "probed: ping: \"https://db.test/\" is a URL; write host:port\n"},
		{"2001:db8::1:80", "probed: ping: \"2001:db8::1:80\" needs brackets around the address; write [2001:db8::1]:80\n"},
		{"db.test:0", "probed: ping: \"0\" is not a port; allowed: 1 to 65535\n"},
		{"224.0.0.1:80", "probed: ping: 224.0.0.1 is a multicast address; only unicast addresses can be probed\n"},
		{"例え.テスト:443", "probed: ping: \"例え.テスト\" is not a host name: '例' is not allowed; allowed: letters, digits, - and _\n"},
		{"\x1b[31mdb.test:80", "probed: ping: \"\\x1b[31mdb.test\" is not a host name: '\\x1b' is not allowed; allowed: letters, digits, - and _\n"},
		{"-6 198.18.0.2:80", "probed: ping: 198.18.0.2 is not of the family that -4, -6 or the source address asks for\n"},
		{"-S 198.18.0.1 [2001:db8::1]:80", "probed: ping: 2001:db8::1 is not of the family that -4, -6 or the source address asks for\n"},
		{"-4 -6 db.test:80", "probed: ping: -4 and -6 exclude each other: leave one out\n"},
		{"-4 -S 2001:db8::1 db.test:80", "probed: ping: the source address 2001:db8::1 is not of the family that -4 or -6 asks for\n"},
		{"-S eth0 198.18.0.2:80", "probed: --source-address=eth0: not an address to send from; an interface goes to -I, try --help\n"},
		{"-S 0.0.0.0 198.18.0.2:80", "probed: --source-address=0.0.0.0: not an address to send from; an interface goes to -I, try --help\n"},
		{"-S 192.0.2.1 198.18.0.2:80", "probed: ping: source_address: 192.0.2.1 is not an address of this host (see ip address): choose one that is, or leave it out\n"},
		{"[fe80::1]:80", "probed: ping: a link-local address needs its interface: write [fe80::1%eth0]:80, say\n"},
		{"-I eth7 [fe80::1%eth0]:80", "probed: ping: fe80::1%eth0 is reached through eth0, and -I says eth7: leave -I out\n"},
		{"--source-ports=61300 198.18.0.2:80", "probed: --source-ports: \"61300\" is not a range of ports; write FIRST-LAST, such as 61000-61255, try --help\n"},
		{"--flows=8 --source-ports=61300-61307 198.18.0.2:80", "probed: ping: up to 8 source ports are in use at once, and there are 7 (one more is for the self-test): give more, lengthen the interval, or shorten the timeout\n"},
		{"--flows=2 -i 0.1 --probe=active_close 198.18.0.2:80", "probed: ping: timeout 5s every 100ms: 50 conversations with a target may be open at once, and it has 2 flows; allow more, lengthen the interval, or shorten the timeout\n"},
		{"--probe=passive_close -W 30m -i 0.1 198.18.0.2:80", "probed: ping: up to 18000 source ports are in use at once, and there are 4279 (one more is for the self-test): give more, lengthen the interval, or shorten the timeout\n"},
		{"--send=x 198.18.0.2:80", "probed: ping: half_open sends nothing: leave --send out, or choose another --probe\n"},
		{"--probe=active_close --send=é 198.18.0.2:80", "probed: ping: --send: 'é' is not ASCII; write its octets, \\xc3\\xa9 in UTF-8, or send a file\n"},
		{`--probe=active_close --send=\q 198.18.0.2:80`, "probed: ping: --send: \\q is not an escape; allowed: \\r, \\n, \\t, \\0, \\\\, \\\" and \\x00 to \\xff\n"},
		{"--probe=active_close --send-file=DIR/none 198.18.0.2:80", "probed: ping: --send-file: \"DIR/none\" cannot be read: no such file or directory\n"},
		{"--probe=active_close --send-file=DIR/empty --send=x 198.18.0.2:80", "probed: ping: --send and --send-file both say what to send: leave one out\n" +
			"probed: ping: --send-file: \"DIR/empty\" is empty; leave send_file out to send nothing\n"},
		{"--hold=1s 198.18.0.2:80", "probed: ping: --hold is for --probe=active_close, and this is half_open\n"},
		{"--probe=active_close --hold=6m 198.18.0.2:80", "probed: --hold=6m: allowed is 0s to 5m, try --help\n"},
		{"--probe=active_close --hold=5s 198.18.0.2:80", "probed: ping: with hold 5s our FIN would go after the timeout of 5s; shorten hold, or lengthen the timeout\n"},
		{"--measure=reuse 198.18.0.2:80", "probed: ping: --measure is for --probe=time_wait, and this is half_open\n"},
		{"--probe=time_wait --measure=duration --after=1s 198.18.0.2:80", "probed: ping: --after is for --probe=time_wait with --measure=reuse\n"},
		{"--probe=time_wait --limit=1m 198.18.0.2:80", "probed: ping: --limit is for --probe=time_wait with --measure=duration\n"},
		{"--probe=time_wait --measure=duration -i 1s 198.18.0.2:80", "probed: ping: measure: duration touches a peer at most once a second, so that one probe must end before the next begins: timeout 5s and limit 4m make 4m5s, the interval is 1s; lengthen it, or shorten limit\n"},
		{"--json --ladder 198.18.0.2:80", "probed: ping: --json has every segment in it: leave --ladder and --segments out\n"},
		{"--json -w - 198.18.0.2:80", "probed: ping: --json and -w - both write to the standard output: give -w a file\n"},
		{"-q --segments 198.18.0.2:80", "probed: ping: -q prints the summary only: leave --ladder and --segments out\n"},
		{"--absolute 198.18.0.2:80", "probed: ping: --absolute is for --segments\n"},
		{"--mss=87 198.18.0.2:80", "probed: --mss=87: allowed is a whole number from 88 to 65535, try --help\n"},
		{"--ttl=256 198.18.0.2:80", "probed: --ttl=256: allowed is a whole number from 1 to 255, try --help\n"},
		{"--tos=-1 198.18.0.2:80", "probed: --tos=-1: allowed is a whole number from 0 to 255, try --help\n"},
		{"-6 --hold=1s --send=x 198.18.0.2:99999", "probed: ping: half_open sends nothing: leave --send out, or choose another --probe\n" +
			"probed: ping: --hold is for --probe=active_close, and this is half_open\n" +
			"probed: ping: \"99999\" is not a port; allowed: 1 to 65535\n"},
	} {
		args := strings.Fields(strings.ReplaceAll(tt.args, "DIR", dir))
		code, stdout, stderr := runHere(append([]string{"ping"}, args...)...)
		if got := strings.ReplaceAll(stderr, dir, "DIR"); code != 2 || stdout != "" || got != tt.want {
			t.Errorf("%s: exit code %d, stdout %q, stderr\n%swant\n%s", tt.args, code, stdout, got, tt.want)
		}
	}
	// The other commands' is 1.
	if code, _, _ := runHere("check-config", "--nonsense"); code != 1 {
		t.Errorf("check-config: exit code %d", code)
	}
}

// TestPingPlan: what the flags make of a target.
func TestPingPlan(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "request")
	write(t, file, "GET\r\n")
	for _, tt := range []struct {
		args  string
		check func(p *pinger, m *config.Module) bool
	}{
		{"198.18.0.2:80", func(p *pinger, m *config.Module) bool {
			return m.Probe == probe.HalfOpen && m.Interval == time.Second && m.Timeout == 900*time.Millisecond && m.Flows == 1 &&
				p.ports() == 128 && p.limits.PerAddress == 200 && p.limits.Global == 20000 && m.IPProtocol == config.AnyIP
		}},
		{"-i 0.01 -W 2 198.18.0.2:80", func(p *pinger, m *config.Module) bool {
			return m.Interval == 10*time.Millisecond && m.Timeout == 2*time.Second && p.limits.PerAddress == 204
		}},
		{"-i 11ms -c 3 198.18.0.2:80", func(p *pinger, m *config.Module) bool {
			return m.Interval == 11*time.Millisecond && p.limits.PerAddress == 200 && p.ports() == 3 && p.probes() == 3
		}},
		{"--probe=active_close -i 50ms --hold=100ms --send-file=" + file + " [2001:db8::2]:80", func(p *pinger, m *config.Module) bool {
			return m.Probe == probe.ActiveClose && m.Timeout == 5*time.Second && m.Hold == 100*time.Millisecond && string(m.Send) == "GET\r\n" && p.ports() == 128
		}},
		{"--probe=active_close -i 30ms 198.18.0.2:80", func(p *pinger, _ *config.Module) bool { return p.ports() == 167 && p.limits.PerAddress == 208 }},
		{`--probe=time_wait --send=a\r\n --after=0 --tos=184 --ttl=9 --mss=1220 db.test:80`, func(_ *pinger, m *config.Module) bool {
			return m.Probe == probe.TimeWaitProbe && m.Measure == probe.MeasureReuse && m.After == 0 && string(m.Send) == "a\r\n" &&
				m.TOS == 184 && m.TTL == 9 && m.MSS == 1220 && m.TCPOptions.Timestamps
		}},
		{"--probe=time_wait --measure=duration --limit=90s db.test:80", func(_ *pinger, m *config.Module) bool {
			return m.Measure == probe.MeasureDuration && m.Limit == 90*time.Second && m.Interval == 5*time.Minute && !m.TCPOptions.Timestamps
		}},
		{"-4 db.test:80", func(_ *pinger, m *config.Module) bool { return m.IPProtocol == config.IP4 }},
		{"-6 db.test:80", func(_ *pinger, m *config.Module) bool { return m.IPProtocol == config.IP6 }},
		{"-S 2001:db8::1 db.test:80", func(_ *pinger, m *config.Module) bool { return m.IPProtocol == config.IP6 && m.SourceAddress.Is6() }},
		{"--flows=300 -I eth0 198.18.0.2:80", func(p *pinger, m *config.Module) bool {
			return m.Flows == 300 && p.ports() == 300 && m.Interface == "eth0"
		}},
	} {
		p := parsePing(t, strings.Fields(tt.args)...)
		if err := p.plan(); err != nil {
			t.Errorf("%s: %v", tt.args, err)
		} else if !tt.check(p, p.conf.Module) {
			t.Errorf("%s: %+v, %d ports, limits %+v", tt.args, p.conf.Module, p.ports(), p.limits)
		}
	}
}

// parsePing parses the flags of a ping.
func parsePing(t *testing.T, args ...string) *pinger {
	t.Helper()
	p := new(pinger)
	app := kingpin.New("probed", "")
	p.command(app)
	if _, err := app.Parse(append([]string{"ping"}, args...)); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return p
}

func TestJoinDash(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"ping -w - x:1":      "ping --write=- x:1",
		"ping --write - x:1": "ping --write=- x:1",
		"ping -w f - x:1":    "ping -w f - x:1",
		"- ping":             "- ping",
	} {
		if got := strings.Join(joinDash(strings.Fields(args)), " "); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}

// TestPortsOf: each kind has the ports of the range but one.
func TestPortsOf(t *testing.T) {
	t.Parallel()
	for k, want := range map[probe.Kind]string{
		probe.HalfOpen:    "{{61300 61308} {61309 61309}}",
		probe.ActiveClose: "{{61300 61300} {61301 61309}}",
	} {
		if got := fmt.Sprint(portsOf(config.PortRange{First: 61300, Last: 61309}, k)); got != want {
			t.Errorf("%v: %s, want %s", k, got, want)
		}
	}
}

func TestPingExitCode(t *testing.T) {
	t.Parallel()
	discard := func(d probe.DiscardReason) probe.Observation {
		return probe.Observation{Kind: probe.Discarded, Discard: d}
	}
	ok, failed := probe.Observation{Kind: probe.Verdict}, probe.Observation{Kind: probe.Verdict, Reason: probe.Refused}
	shutdown, sendError := discard(probe.DiscardShutdown), discard(probe.DiscardSendError)
	for _, tt := range []struct {
		probes []probe.Observation
		want   int
	}{
		{nil, pingLost},
		{[]probe.Observation{ok, ok}, pingAnswered},
		{[]probe.Observation{ok, shutdown}, pingAnswered},
		{[]probe.Observation{ok, failed}, pingLost},
		{[]probe.Observation{ok, sendError}, pingLost},
		{[]probe.Observation{sendError, shutdown}, pingCannot},
		{[]probe.Observation{shutdown}, pingLost},
	} {
		var tally ping.Tally
		for i := range tt.probes {
			var tr probe.Transcript
			tr.NotOpened(0, &tt.probes[i])
			tally.Settle(&tr, false)
		}
		if got := exitCodeOf(&tally); got != tt.want {
			t.Errorf("%+v: exit code %d, want %d", tt.probes, got, tt.want)
		}
	}
}

// TestTerminalOf: what is no terminal has no colour, whatever the environment says.
func TestTerminalOf(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		term string
		want terminal
	}{{"xterm", terminal{80, false}}, {"dumb", terminal{80, false}}} {
		env := func(name string) string { return map[string]string{"TERM": tt.term}[name] }
		if got := terminalOf(f, env); got != tt.want {
			t.Errorf("a file with TERM=%s is %+v", tt.term, got)
		}
		if got := terminalOf(new(strings.Builder), env); got != tt.want {
			t.Errorf("what is no file is %+v", got)
		}
	}
}

// A taker is a reader that takes nothing until it is let go.
type taker struct {
	strings.Builder
	free chan struct{}
	err  error
}

func (w *taker) Write(b []byte) (int, error) {
	<-w.free
	if w.err != nil {
		return 0, w.err
	}
	return w.Builder.Write(b)
}

// TestPingGoesOnWithoutAReader: who stops the terminal does not stop probing; what
// is not shown is counted.
func TestPingGoesOnWithoutAReader(t *testing.T) {
	t.Parallel()
	w := &taker{free: make(chan struct{})}
	p := &pinger{stdout: w, stderr: w}
	p.quiet = true // for begin
	o, err := p.output(pingPorts{})
	if err != nil {
		t.Fatal(err)
	}
	o.begin()
	p.quiet = false
	const n = pingBacklog + 500
	for range n {
		o.put(pingEvent{ours: "not sent: late"})
	}
	close(w.free)
	if err := o.end(new(ping.Tally), time.Second); err != nil {
		t.Fatal(err)
	}
	shown, said := strings.Count(w.String(), "not sent: late"), 0
	for _, m := range regexp.MustCompile(`(\d+) lines are not shown: nobody took them\n`).FindAllStringSubmatch(w.String(), -1) { // as often as something is
		some, _ := strconv.Atoi(m[1])
		said += some
	}
	if shown < pingBacklog || shown > pingBacklog+2 || said != n-shown {
		t.Errorf("%d of %d lines are shown, and %d are said not to be:\n…%s", shown, n, said, w.String()[max(w.Len()-400, 0):])
	}
}

// TestPingEndsWithItsReader: what cannot be written ends it.
func TestPingEndsWithItsReader(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		endsWithItsReader(t, late)
	}
}

// endsWithItsReader has the first line fail to be written, or a later one.
func endsWithItsReader(t *testing.T, late bool) {
	t.Helper()
	w := &taker{free: make(chan struct{}), err: errors.New("no room")}
	close(w.free)
	p := &pinger{stdout: w, stderr: w}
	o, err := p.output(pingPorts{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{}, 2)
	o.failed = func() { stopped <- struct{}{} }
	p.quiet = late
	o.begin()
	p.quiet = false
	o.put(pingEvent{ours: "x"})
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Error("it does not stop")
	}
	if err := o.end(new(ping.Tally), time.Second); err == nil || err.Error() != "no room" {
		t.Errorf("%v", err)
	}
}
