package bench

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A reading is a round-trip time that a tool says.
type reading struct {
	rtt  time.Duration
	port uint16    // our end's, 0 where the tool doesn't say
	at   time.Time // when it began, if there is a port
}

// Lines of what the tools print.
var (
	npingLine   = regexp.MustCompile(`(?m)^(SENT|RCVD) \(([0-9.]+)s\) TCP`)
	npingMean   = regexp.MustCompile(`Avg rtt: ([0-9.]+)ms`)
	hpingLine   = regexp.MustCompile(`(?m)^len=\d+ .* flags=SA .* rtt=([0-9.]+) ms`)
	scamperLine = regexp.MustCompile(`(?m)^\d+ bytes from .* tcp=open .* time=([0-9.]+) ms`)
	pingLine    = regexp.MustCompile(`(?m)^\d+ bytes from .* time=([0-9.]+) ms`)
)

// parseNping takes the times between SENT and RCVD, which have four decimals, and
// the mean, which nping knows to a microsecond.
func parseNping(text string) (all []reading, mean time.Duration, err error) {
	sent := -1.0
	for _, m := range npingLine.FindAllStringSubmatch(text, -1) {
		at, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, 0, err
		}
		if m[1] == "SENT" {
			sent = at
			continue
		}
		if sent < 0 {
			return nil, 0, fmt.Errorf("an answer to nothing: %q", m[0])
		}
		all = append(all, reading{rtt: seconds(at - sent)})
		sent = -1
	}
	m := npingMean.FindStringSubmatch(text)
	if m == nil {
		return nil, 0, fmt.Errorf("no mean")
	}
	ms, err := strconv.ParseFloat(m[1], 64)
	return all, seconds(ms / 1e3), err
}

// parseMilliseconds takes what an expression finds.
func parseMilliseconds(line *regexp.Regexp, text string) (all []reading, err error) {
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, err
		}
		all = append(all, reading{rtt: seconds(ms / 1e3)})
	}
	return all, nil
}

// parseNanoseconds reads a number a line.
func parseNanoseconds(text string) (all []reading, err error) {
	for line := range strings.Lines(text) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, reading{rtt: time.Duration(ns)})
	}
	return all, nil
}

// parseProbedPing reads probed ping --json: an object a line, the last a summary.
func parseProbedPing(text string) (all []reading, err error) {
	for line := range strings.Lines(text) {
		var c struct {
			RTT float64 `json:"handshake_rtt_seconds"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return nil, err
		}
		if c.RTT > 0 {
			all = append(all, reading{rtt: seconds(c.RTT)})
		}
	}
	return all, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// What the tools of Debian 12 print.
func TestOutputs(t *testing.T) {
	nping, mean, err := parseNping(`
Starting Nping 0.7.93 ( https://nmap.org/nping ) at 2026-11-21 16:29 UTC
SENT (0.0127s) TCP 198.18.0.1:64146 > 198.19.0.1:80 S ttl=64 id=19973 iplen=40  seq=2329514384 win=1480 
RCVD (0.0130s) TCP 198.19.0.1:80 > 198.18.0.1:64146 SA ttl=64 id=0 iplen=44  seq=1482483745 win=64240 <mss 1460>
SENT (0.0230s) TCP 198.18.0.1:64146 > 198.19.0.1:80 S ttl=64 id=19973 iplen=40  seq=2329514384 win=1480 
RCVD (0.0231s) TCP 198.19.0.1:80 > 198.18.0.1:64146 SA ttl=64 id=0 iplen=44  seq=1482642898 win=64240 <mss 1460>
 
Max rtt: 0.123ms | Min rtt: 0.037ms | Avg rtt: 0.076ms
`)
	check(t, "nping", nping, err, "300µs 100µs")
	if mean.Round(time.Microsecond) != 76*time.Microsecond {
		t.Errorf("nping's mean: %v", mean)
	}
	hping, err := parseMilliseconds(hpingLine, `HPING 198.19.0.1 (eth0 198.19.0.1): S set, 40 headers + 0 data bytes
len=44 ip=198.19.0.1 ttl=64 DF id=0 sport=80 flags=SA seq=0 win=64240 rtt=0.5 ms
len=40 ip=198.19.0.1 ttl=64 DF id=0 sport=80 flags=RA seq=1 win=0 rtt=0.3 ms
len=44 ip=198.19.0.1 ttl=64 DF id=0 sport=80 flags=SA seq=2 win=64240 rtt=1.3 ms
`)
	check(t, "hping3", hping, err, "500µs 1.3ms")
	scamper, err := parseMilliseconds(scamperLine, `ping 198.18.0.1 to 198.19.0.1: 40 byte packets
44 bytes from 198.19.0.1, seq=0 tcp=open ttl=64 time=9.311 ms
44 bytes from 198.19.0.1, seq=1 tcp=open ttl=64 time=0.077 ms
round-trip min/avg/max/stddev = 0.060/3.149/9.311/4.356 ms
`)
	check(t, "scamper", scamper, err, "9.311ms 77µs")
	ping, err := parseMilliseconds(pingLine, `PING 198.19.0.1 (198.19.0.1) 56(84) bytes of data.
64 bytes from 198.19.0.1: icmp_seq=1 ttl=64 time=0.024 ms
64 bytes from 198.19.0.1: icmp_seq=2 ttl=64 time=0.039 ms
rtt min/avg/max/mdev = 0.024/0.034/0.039/0.007 ms
`)
	check(t, "ping", ping, err, "24µs 39µs")
	dialer, err := parseNanoseconds("1234\n5678\n")
	check(t, "dialer", dialer, err, "1µs 6µs")
	probed, err := parseProbedPing(`{"number":1,"verdict":"ok","handshake_rtt_seconds":0.000012345}
{"number":2,"verdict":"failed","reason":"timeout"}
{"summary":{"probes":2}}
`)
	check(t, "probed ping", probed, err, "12µs")
}

// check compares readings, in microseconds.
func check(t *testing.T, tool string, all []reading, err error, want string) {
	t.Helper()
	var got []string
	for _, r := range all {
		got = append(got, r.rtt.Round(time.Microsecond).String())
	}
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("%s: %v, %v; want %s", tool, got, err, want)
	}
}

func TestSamples(t *testing.T) {
	var got []string
	err := samples(strings.NewReader(`# HELP x A thing.
# TYPE x counter
x_total{target="198.19.0.1:80",job_name="a b"} 7 1234
y 0.5
x_bucket{le="0.1"} 3 # {} 0.05
`), func(s sample) {
		got = append(got, fmt.Sprint(s.name, "|", s.label("target"), "|", s.label("job_name"), "|", s.value))
	})
	want := "[x_total|198.19.0.1:80|a b|7 y|||0.5 x_bucket|||3]"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got  %v, %v\nwant %s", got, err, want)
	}
}

func TestIdle(t *testing.T) {
	text := "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 400 5 6 7 80 0 0\ncpu1 1 2 3 500 5 6 7 0 0 0\n"
	if d, err := parseIdle(text, 0); d != 4850*time.Millisecond || err != nil {
		t.Error(d, err)
	}
	if _, err := parseIdle(text, 2); err == nil {
		t.Error("a core that is not there")
	}
}
