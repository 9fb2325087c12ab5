package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
	"github.com/probed/probed/rawsock"
)

// The tests of this file put probed into the situations of
// docs/troubleshooting.md. What probed says must be what the page says, and what
// the page advises must help.

// troubleshooting reads the page.
func troubleshooting(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pageHas fails unless the page has a text, word for word.
func pageHas(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(troubleshooting(t), text) {
		t.Errorf("docs/troubleshooting.md does not say %q", text)
	}
}

// advised returns the ruleset of the page.
func advised(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(troubleshooting(t), "```nft\n")
	rules, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/troubleshooting.md has no nft block")
	}
	return rules
}

// errValue is err= in a log.
var errValue = regexp.MustCompile(` err=("(?:[^"\\]|\\.)*"|\S+)`)

// logged are the errors in a log.
func logged(log string) (errs []string) {
	for _, m := range errValue.FindAllStringSubmatch(log, -1) {
		text := m[1]
		if plain, err := strconv.Unquote(text); err == nil {
			text = plain
		}
		errs = append(errs, text)
	}
	return errs
}

// output and input are rulesets with one chain.
func output(rules string) string { return chain("output", rules) }
func input(rules string) string  { return chain("input", rules) }
func chain(hook, rules string) string {
	return fmt.Sprintf("table inet %[1]s { chain c { type filter hook %[2]s priority 0; %[3]s; }; }\n", hook+"s", hook, rules)
}

// withoutMD5 runs probed on a kernel that says that it has no TCP MD5 signatures.
func withoutMD5(c *lab.Cmd) { c.Env = append(c.Env, noMD5+"=1") }

// A refusal to start and what the page says of it.
func TestTroubleshootingStart(t *testing.T) {
	t.Parallel()
	const selfTest = "self-test on loopback: "
	for _, c := range []struct {
		name    string
		rules   string
		options []option
		want    string // of stderr, behind "probed: "
	}{
		{"no way in on loopback", input("iif lo tcp dport != 10965 drop"), nil,
			selfTest + "IPv4: no SYN-ACK came back: does a firewall drop TCP on loopback?"},
		{"no way out on loopback", output("oif lo meta l4proto tcp drop"), nil,
			selfTest + "::1: a SYN could not be sent: sendmmsg: operation not permitted: does a firewall stop raw sockets on loopback?"},
		{"no RSTs", output("tcp flags rst drop"), nil,
			selfTest + "IPv4: the kernel sent no RST in answer to a SYN-ACK to port 61000: does a firewall drop it, or is another socket listening there?"},
		{"no MD5", "", []option{unprivileged(unix.CAP_NET_RAW), withoutMD5},
			"source port 61128: neither an MD5 key (CONFIG_TCP_MD5SIG) nor a filter (CAP_NET_ADMIN): setsockopt TCP_MD5SIG_EXT: protocol not available"},
		{"few files", "", []option{func(c *lab.Cmd) { c.Env = append(c.Env, fewFiles+"=100") }},
			"too many open files: raise the limit of open files (LimitNOFILE)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := lab.NewHost(t, "a")
			if c.rules != "" {
				h.NFT(c.rules)
			}
			file := filepath.Join(readableDir(t), "probed.yml")
			write(t, file, minimal)
			p := launchFile(t, h, file, c.options...)
			lab.Eventually(t, 10*time.Second, func() error {
				select {
				case <-p.ended:
					return nil
				default:
				}
				if c.name == "no MD5" && strings.Contains(p.said(), "msg=probing") {
					return nil // a kernel that lets it filter: before 6.18 or so, as the page has it
				}
				return errors.New("it runs")
			})
			if said := p.said(); !strings.Contains(said, c.want) && !strings.Contains(said, "msg=probing") {
				t.Errorf("it said\n%swant\n%s", said, c.want)
			}
			pageHas(t, strings.TrimPrefix(c.want, selfTest))
		})
	}
	// What TestStartUpErrors holds probed to.
	for _, name := range []string{"a source port in use", "no CAP_NET_RAW", "loopback is down"} {
		for _, f := range failures {
			if f.name == name {
				pageHas(t, strings.TrimPrefix(strings.TrimSpace(f.want), "probed: "+selfTest))
			}
		}
	}
}

// A situation in which probed runs, and what it says.
type situation struct {
	name  string
	rules string                                    // of nftables, on probed's host
	make  func(*testing.T, *lab.Host, *lab.Host)    // what else
	yaml  func(a, b *lab.Host) string               // nil: both ports are 80
	err   string                                    // in the log, and on the page; empty: nothing is
	check func(*testing.T, scrape, *lab.Host) error // tried until it gives nil
}

var situations = []situation{
	{
		name:  "an output rule",
		rules: output("tcp dport 80 drop"),
		err:   "sendmmsg: operation not permitted",
		check: discarded("send_error"),
	}, {
		name:  "an output rule that rejects",
		rules: output("tcp dport 80 reject with tcp reset"),
		err:   "sendmmsg: operation not permitted",
		check: discarded("send_error"),
	}, {
		name:  "an input rule",
		rules: input("tcp sport 80 drop"),
		err:   noResetSeen,
		check: answered,
	}, {
		name:  "RSTs dropped",
		rules: output("oif != lo tcp flags rst drop"),
		err:   "sendmmsg: operation not permitted", // and the one before it
		check: func(t *testing.T, s scrape, b *lab.Host) error {
			if len(lab.SS(b, "syn-recv")) == 0 || s.sum("probed_synack_duplicates_total", nil) == 0 {
				return fmt.Errorf("half-open connections %v, duplicates %v", lab.SS(b, "syn-recv"), s.sum("probed_synack_duplicates_total", nil))
			}
			return answered(t, s, b)
		},
	}, {
		name:  "invalid segments dropped",
		rules: input("ct state invalid drop") + output("ct state invalid drop"),
		check: answered,
	}, {
		name:  "a reverse-path filter",
		make:  func(t *testing.T, a, b *lab.Host) { asymmetric(t, a, b, "1") },
		err:   noResetSeen,
		check: answered,
	}, {
		name:  "a loose reverse-path filter",
		make:  func(t *testing.T, a, b *lab.Host) { asymmetric(t, a, b, "2") },
		check: answered,
	}, {
		name:  "source NAT",
		rules: "table ip n { chain c { type nat hook postrouting priority 100; oif != lo ip protocol tcp masquerade to :2000-3000 fully-random; }; }",
		err:   unseen,
		check: skipped("unsent"),
	}, {
		name: "source NAT without probed",
		rules: "table ip n { chain c { type nat hook postrouting priority 100; tcp sport 61000-61255 accept; " +
			"oif != lo ip protocol tcp masquerade to :2000-3000 fully-random; }; }",
		check: answered,
	}, {
		name:  "destination NAT",
		rules: "table ip n { chain c { type nat hook output priority -100; ip daddr 198.18.0.99 dnat to 198.18.0.2; }; }",
		yaml:  func(_, b *lab.Host) string { return simpleConfig("50ms", "40ms", "198.18.0.99:80") },
		err:   unseen,
		check: skipped("unsent"),
	}, {
		name: "a neighbour that is not there",
		yaml: func(_, _ *lab.Host) string { return simpleConfig("50ms", "40ms", "198.18.0.77:80") },
		err:  unseen,
		check: func(t *testing.T, s scrape, b *lab.Host) error {
			if s.reasons("probed_probe_failures_total", nil)["unreachable"] == 0 {
				return fmt.Errorf("failures %v", s.reasons("probed_probe_failures_total", nil))
			}
			return skipped("unsent")(t, s, b)
		},
	}, {
		name:  "no route",
		yaml:  func(_, _ *lab.Host) string { return simpleConfig("50ms", "40ms", "203.0.113.1:80") },
		err:   "route to 203.0.113.1: connect: network is unreachable",
		check: discarded("send_error"),
	}, {
		name:  "a broadcast address",
		yaml:  func(_, _ *lab.Host) string { return simpleConfig("50ms", "40ms", "198.18.0.255:80") },
		err:   "route to 198.18.0.255: not a unicast address",
		check: discarded("send_error"),
	}, {
		name: "ICMP errors that are rationed",
		make: func(_ *testing.T, _, b *lab.Host) { b.Refuse(80, lab.AdminProhibited) },
		check: func(_ *testing.T, s scrape, _ *lab.Host) error {
			if r := s.reasons("probed_probe_failures_total", nil); r["prohibited"] == 0 || r["timeout"] == 0 {
				return fmt.Errorf("failures %v", r)
			}
			return nil
		},
	},
}

const (
	noResetSeen = "no RST of this host's kernel was seen leaving in time after the SYN-ACK, so that probed sends its own: " +
		"a firewall rule or rp_filter keeps the SYN-ACK from the kernel or its RST from leaving, or it waits in a queue"
	unseen = "SYNs to it are not seen leaving: its neighbour does not answer ARP or ND, " +
		"NAT on this host gives them another source or destination, or they wait in a queue"
)

func discarded(reason string) func(*testing.T, scrape, *lab.Host) error {
	return func(t *testing.T, s scrape, _ *lab.Host) error {
		if n := s.sum("probed_probes_total", nil); n > 0 {
			t.Errorf("%v probes are booked on the target", n)
		}
		if r := s.reasons("probed_probes_discarded_total", nil); r[reason] < 5 {
			return fmt.Errorf("discarded %v", r)
		}
		return nil
	}
}

func skipped(reason string) func(*testing.T, scrape, *lab.Host) error {
	return func(_ *testing.T, s scrape, _ *lab.Host) error {
		if r := s.reasons("probed_probes_skipped_total", nil); r[reason] < 5 {
			return fmt.Errorf("skipped %v", r)
		}
		return nil
	}
}

// answered expects that every probe is, of a job that only asks and of one that
// closes.
func answered(t *testing.T, s scrape, _ *lab.Host) error {
	if r := s.reasons("probed_probe_failures_total", nil); len(r) > 0 {
		t.Errorf("failures %v", r)
	}
	for _, job := range []string{"asks", "closes"} {
		if n := s.sum("probed_probes_total", labels{"job_name": job}); n < 10 {
			return fmt.Errorf("%s: %v probes", job, n)
		}
	}
	return nil
}

// asymmetric has b answer on another wire than it is asked on.
func asymmetric(t *testing.T, a, b *lab.Host, filter string) {
	for _, dev := range []string{"all", a.End(0).Iface, a.End(1).Iface} {
		a.Sysctl("net.ipv4.conf."+dev+".rp_filter", filter)
	}
	for _, dev := range []string{"all", b.End(0).Iface, b.End(1).Iface} {
		b.Sysctl("net.ipv4.conf."+dev+".rp_filter", "0")
	}
	var mac net.HardwareAddr
	a.Do(func() {
		dev, err := net.InterfaceByName(a.End(1).Iface)
		if err != nil {
			t.Fatal(err)
		}
		mac = dev.HardwareAddr
	})
	b.Route(a.Addr4().String()+"/32", a.End(1).Addr4)
	// a would drop b's ARP request too.
	out, err := b.Command(t.Context(), "ip", "neighbour", "replace", a.End(1).Addr4.String(), "lladdr", mac.String(), "dev", b.End(1).Iface).CombinedOutput()
	if err != nil {
		t.Fatalf("ip neighbour: %v %s", err, out)
	}
}

func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	for _, c := range situations {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			a, b := l.Host("a"), l.Host("b")
			l.Join(a, b)
			l.Join(a, b)
			b.Serve("tcp", "[::]:80", lab.Discard)
			if c.make != nil {
				c.make(t, a, b)
			}
			if c.rules != "" {
				a.NFT(c.rules)
			}
			yaml := fmt.Sprintf(`
global: {interval: 50ms, timeout: 500ms}
jobs:
- {name: asks, targets: ["%[1]v:80"]}
- {name: closes, module: active_close, targets: ["%[1]v:80"]}
`, b.Addr4())
			if c.yaml != nil {
				yaml = c.yaml(a, b)
			}
			p := start(t, a, yaml)
			lab.Eventually(t, 15*time.Second, func() error { return c.check(t, p.scrape(), b) })
			errs := logged(p.said())
			switch {
			case c.err == "" && len(errs) > 0:
				t.Errorf("the log has %q", errs)
			case c.err != "":
				pageHas(t, c.err)
				lab.Eventually(t, time.Second, func() error {
					for _, err := range logged(p.said()) {
						if err == c.err {
							return nil
						}
					}
					return fmt.Errorf("the log has %q, not %q", logged(p.said()), c.err)
				})
			}
		})
	}
}

// The page's ruleset keeps probed's segments out of connection tracking, and its
// answers come through a firewall all the same.
func TestTroubleshootingUntracked(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", lab.Discard)
	const accept = "ct state established,related,untracked accept"
	pageHas(t, accept)
	a.NFT(advised(t))
	a.NFT(input("policy drop; iif lo accept; meta l4proto ipv6-icmp accept; " + accept))
	a.NFT("table inet count { chain c { type filter hook output priority 10; oif != lo ct state untracked counter name untracked; " +
		"oif != lo tcp sport 61000-61255 ct state != untracked counter name tracked; }; counter untracked { }; counter tracked { }; }")
	p := start(t, a, fmt.Sprintf(`
global: {interval: 20ms, timeout: 500ms}
jobs:
- {name: asks, targets: ["%[1]v:80", "[%[2]v]:80"]}
- {name: closes, module: active_close, interval: 100ms, targets: ["%[1]v:80", "[%[2]v]:80"]}
`, b.Addr4(), b.Addr6()))
	lab.Eventually(t, 10*time.Second, func() error { return answered(t, p.scrape(), b) })
	if errs := logged(p.said()); len(errs) > 0 {
		t.Errorf("the log has %q", errs)
	}
	packets := func(counter string) int {
		t.Helper()
		out, err := a.Command(t.Context(), "nft", "list", "counter", "inet", "count", counter).CombinedOutput()
		m := regexp.MustCompile(`packets (\d+)`).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("nft: %v %s", err, out)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	if untracked, tracked := packets("untracked"), packets("tracked"); untracked < 20 || tracked > 0 {
		t.Errorf("%d packets left untracked, %d tracked", untracked, tracked)
	}
}

// What the log says of a name that does not resolve.
func TestTroubleshootingNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   string
		serve func(*testing.T, *lab.Host)
	}{
		{"no such host", func(t *testing.T, h *lab.Host) { serveDNS(t, h, nil) }},
		{"server misbehaving", func(t *testing.T, h *lab.Host) {
			serveDNS(t, h, nil).fail(dnsmessage.TypeA, dnsmessage.TypeAAAA)
		}},
		{"connection refused", func(*testing.T, *lab.Host) {}},
		{"i/o timeout", func(_ *testing.T, h *lab.Host) { h.NFT(input("udp dport 53 drop")) }},
		{"no unicast address", func(t *testing.T, h *lab.Host) {
			serveDNS(t, h, map[string][]netip.Addr{"db.example.net": parseAddrs("224.0.0.1")})
		}},
	} {
		t.Run(c.err, func(t *testing.T) {
			t.Parallel()
			h := lab.NewHost(t, "a")
			c.serve(t, h)
			p := start(t, h, simpleConfig("50ms", "40ms", "db.example.net:80"), withDNS(t, "127.0.0.1"))
			lab.Eventually(t, 10*time.Second, func() error {
				for _, err := range logged(p.said()) {
					if strings.HasSuffix(err, c.err) && strings.Contains(p.said(), `msg="host name does not resolve"`) {
						return nil
					}
				}
				return fmt.Errorf("the log has %q", logged(p.said()))
			})
			pageHas(t, "| `"+c.err+"` |")
			pageHas(t, "`host name does not resolve`")
		})
	}
}

// A link on the way that takes less than the peer sends, and no ICMP error about
// it: a probe with a smaller MSS gets through. Our own interface stands for the link here, so
// that it takes an mss of its own for a SYN to announce more.
func TestTroubleshootingMTU(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Serve("tcp", "[::]:80", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 100))
		_, _ = c.Write(make([]byte, 5000))
	})
	// Segmentation offload would take it for one packet.
	if out, err := b.Command(t.Context(), "ip", "link", "set", b.Iface(), "gso_max_segs", "1").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v %s", err, out)
	}
	if out, err := a.Command(t.Context(), "ip", "link", "set", a.Iface(), "mtu", "1300").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v %s", err, out)
	}
	pageHas(t, "`mss: 1200`")
	p := start(t, a, fmt.Sprintf(`
modules:
  whole: {probe: passive_close, interval: 100ms, timeout: 2s, send: "GET / HTTP/1.0\r\n\r\n", mss: 1460}
  small: {probe: passive_close, interval: 100ms, timeout: 2s, send: "GET / HTTP/1.0\r\n\r\n", mss: 1200}
jobs:
- {name: whole, module: whole, targets: ["%[1]v:80"]}
- {name: small, module: small, targets: ["%[1]v:80"]}
- {name: asks, interval: 100ms, timeout: 90ms, targets: ["%[1]v:80"]}
`, b.Addr4()))
	lab.Eventually(t, 10*time.Second, func() error {
		s := p.scrape()
		failed := s.reasons("probed_probe_failures_total", labels{"job_name": "whole"})
		if n := failed["peer_never_closed"] + failed["timeout"]; n < 5 {
			return fmt.Errorf("failures %v", failed)
		}
		for _, job := range []string{"small", "asks"} {
			if r := s.reasons("probed_probe_failures_total", labels{"job_name": job}); len(r) > 0 {
				t.Fatalf("%s: failures %v", job, r)
			}
			if n := s.sum("probed_probes_total", labels{"job_name": job}); n < 10 {
				return fmt.Errorf("%s: %v probes", job, n)
			}
		}
		return nil
	})
}

// What a router on the way has no room for goes again in shorter segments, and in no fragments.
func TestNarrowPath(t *testing.T) {
	t.Parallel()
	const octets = 3000
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	link := l.Link(a, b, lab.Direction{Impairment: lab.Impairment{MTU: 1280}}, lab.Direction{})
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, octets)) })
	p := start(t, a, fmt.Sprintf(`
modules:
  talk: {probe: passive_close, interval: 100ms, timeout: 5s, send: %[2]q}
jobs:
- {name: talk, module: talk, targets: ["%[1]v:80", "[%[3]v]:80"]}
`, b.Addr4(), strings.Repeat("x", octets), b.Addr6()))
	lab.Eventually(t, 10*time.Second, func() error {
		s := p.scrape()
		if r := s.reasons("probed_probe_failures_total", nil); len(r) > 0 {
			t.Fatalf("failures %v", r)
		}
		for _, peer := range []netip.Addr{b.Addr4(), b.Addr6()} {
			if n := s.sum("probed_probes_total", labels{"target": netip.AddrPortFrom(peer, 80).String()}); n < 10 {
				return fmt.Errorf("%v probes of %v", n, peer)
			}
		}
		return nil
	})
	for _, r := range link.AtoB.Records() {
		if h := r.Head(); h[0]>>4 == 4 && h[6] != 0x40 || h[0]>>4 == 6 && h[6] == unix.IPPROTO_FRAGMENT {
			t.Fatalf("without DF, or a fragment: % x", h[:20])
		}
	}
}

// Nor does a router that rations its ICMP errors, of which few probes get one, have any time out.
func TestNarrowPathRationed(t *testing.T) {
	t.Parallel()
	const octets = 3000
	l := lab.New(t)
	a, router, b := l.Host("a"), l.Host("router"), l.Host("b")
	ar, rb := l.Join(a, router), l.Join(router, b)
	router.Forward()
	a.Route("198.18.1.0/24", ar.B.Addr4)
	a.Route("2001:db8:0:1::/64", ar.B.Addr6)
	b.Route("198.18.0.0/24", rb.A.Addr4)
	b.Route("2001:db8::/64", rb.A.Addr6)
	if out, err := router.Command(t.Context(), "ip", "link", "set", rb.A.Iface, "mtu", "1280").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v %s", err, out)
	}
	router.NFT(`table inet ration { chain output { type filter hook output priority 0
icmp type destination-unreachable icmp code frag-needed limit rate 1/second burst 1 packets accept
icmp type destination-unreachable icmp code frag-needed counter drop
icmpv6 type packet-too-big limit rate 1/second burst 1 packets accept
icmpv6 type packet-too-big counter drop
}; }
`)
	b.Serve("tcp", "[::]:80", func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, octets)) })
	p := start(t, a, fmt.Sprintf(`
modules:
  talk: {probe: passive_close, interval: 100ms, timeout: 3s, send: %[2]q}
jobs:
- {name: talk, module: talk, targets: ["%[1]v:80", "[%[3]v]:80"]}
`, rb.B.Addr4, strings.Repeat("x", octets), rb.B.Addr6))
	lab.Eventually(t, 20*time.Second, func() error {
		s := p.scrape()
		if r := s.reasons("probed_probe_failures_total", nil); len(r) > 0 {
			t.Fatalf("failures %v", r)
		}
		for _, peer := range []netip.Addr{rb.B.Addr4, rb.B.Addr6} {
			if n := s.sum("probed_probes_total", labels{"target": netip.AddrPortFrom(peer, 80).String()}); n < 50 {
				return fmt.Errorf("%v probes of %v", n, peer)
			}
		}
		return nil
	})
}

// A router that cuts the answers into fragments leaves no verdict, and no connection that the
// peer goes on with.
func TestTroubleshootingFragments(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Link(a, b, lab.Direction{}, lab.Direction{Impairment: lab.Impairment{MTU: 1000}})
	b.Sysctl("net.ipv4.ip_no_pmtu_disc", "1") // sends without DF
	b.Serve("tcp", "[::]:80", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 100))
		_, _ = c.Write(make([]byte, 100_000))
	})
	pageHas(t, "`tap_drop` of one target")
	p := start(t, a, fmt.Sprintf(`
modules:
  whole: {probe: passive_close, interval: 100ms, timeout: 2s, send: "GET / HTTP/1.0\r\n\r\n"}
  small: {probe: passive_close, interval: 100ms, timeout: 2s, send: "GET / HTTP/1.0\r\n\r\n", mss: 900}
jobs:
- {name: whole, module: whole, targets: ["%[1]v:80"]}
- {name: small, module: small, targets: ["%[1]v:80"]}
`, b.Addr4()))
	lab.Eventually(t, 10*time.Second, func() error {
		s := p.scrape()
		if r := s.reasons("probed_probe_failures_total", nil); len(r) > 0 || s.sum("probed_tap_drops_total", nil) > 0 {
			t.Fatalf("failures %v, drops of the tap %v", r, s.sum("probed_tap_drops_total", nil))
		}
		discards := s.reasons("probed_probes_discarded_total", labels{"job_name": "whole"})
		whole, small := s.sum("probed_probes_total", labels{"job_name": "whole"}), s.sum("probed_probes_total", labels{"job_name": "small"})
		if discards["tap_drop"] < 10 || whole > 0 || small < 10 {
			return fmt.Errorf("discards %v, verdicts %v, of small segments %v", discards, whole, small)
		}
		return nil
	})
	p.signal(syscall.SIGTERM)
	p.end(10 * time.Second)
	lab.Eventually(t, 5*time.Second, func() error {
		left, err := b.Command(t.Context(), "ss", "-Htano", "exclude", "listening", "exclude", "time-wait").CombinedOutput()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the peer has left: %s", left)
		}
		return err
	})
}

// A NAT that gives every connection another port makes the peer take a SYN for a
// stranger's, so that its TIME-WAIT seems to end at the first touch.
func TestTroubleshootingTimeWaitBehindNAT(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	a, router, b := l.Host("a"), l.Host("router"), l.Host("b")
	l.Join(a, router)
	l.Join(router, b)
	router.Forward()
	a.Route("198.18.1.0/24", router.End(0).Addr4)
	router.NFT(fmt.Sprintf("table ip n { chain c { type nat hook postrouting priority 100; oif %s masquerade fully-random; }; }", router.End(1).Iface))
	b.Serve("tcp", "[::]:80", func(c net.Conn) {}) // the peer closes first
	cmd := program(t, a, "ping", "-c", "1", "--probe=time_wait", "--measure=duration", b.Addr4().String()+":80")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if code := exitCode(t, cmd.Run()); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const says = "time_wait 0 s to 1"
	if !strings.Contains(out.String(), says) {
		t.Errorf("ping says\n%s", &out)
	}
	pageHas(t, "(`"+says)
}

// Probed does not run while more comes to its ports than its ring holds: what was
// under way is discarded, and nothing is lost. The slots that have gone are late.
func TestTroubleshootingFlood(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	p := start(t, a, simpleConfig("20ms", "900ms", b.Addr4().String()+":80"))
	lab.Eventually(t, 5*time.Second, func() error {
		if n := p.scrape().sum("probed_probes_total", nil); n < 10 {
			return fmt.Errorf("%v probes", n)
		}
		return nil
	})
	p.signal(syscall.SIGSTOP)
	flood(t, b, netip.AddrPortFrom(b.Addr4(), 9), netip.AddrPortFrom(a.Addr4(), 61001), 30000)
	p.signal(syscall.SIGCONT)
	lab.Eventually(t, 10*time.Second, func() error {
		s := p.scrape()
		if s.sum("probed_tap_drops_total", nil) < 1000 || s.reasons("probed_probes_skipped_total", nil)["late"] == 0 {
			return fmt.Errorf("drops %v, skipped %v", s.sum("probed_tap_drops_total", nil), s.reasons("probed_probes_skipped_total", nil))
		}
		return nil
	})
	if r := p.scrape().reasons("probed_probe_failures_total", nil); len(r) > 0 {
		t.Errorf("failures %v", r)
	}
	pageHas(t, "24,960 packets")
}

// flood sends n segments that belong to nothing.
func flood(t *testing.T, h *lab.Host, from, to netip.AddrPort, n int) {
	t.Helper()
	h.Do(func() {
		sender, err := rawsock.NewSender()
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		tuple := probe.FourTuple{Local: from, Remote: to}
		segment := wire.AppendTCP(nil, &tuple, &probe.Segment{Flags: probe.ACK, Seq: 1, Ack: 2, Window: 1024}, nil)
		burst := make([]rawsock.Packet, 64)
		for i := range burst {
			burst[i] = rawsock.Packet{Segment: segment, Src: from.Addr(), Dst: to.Addr()}
		}
		for range n / len(burst) {
			sender.Send(burst, func(_ int, err error) { t.Errorf("flood: %v", err) })
		}
	})
}
