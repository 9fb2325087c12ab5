package targets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// oneName is a configuration with one host name, in a module with a key of its
// own.
func oneName(module string) string {
	return `
global: {resolve_interval: 30s}
modules: {m: {probe: half_open, ` + module + `}}
jobs: [{name: j, module: m, targets: ["db.test:80"]}]
`
}

func TestLiterals(t *testing.T) {
	inBubble(t, func(w *world) {
		w.load(`jobs: [{name: j, module: half_open, targets: ["198.18.0.1:80", "[2001:db8::1]:80"]}]`)
		w.wantAddresses("198.18.0.1:80 [2001:db8::1]:80")
		w.pass(time.Hour)
		if len(w.dns.questions()) != 0 {
			t.Errorf("addresses were looked up: %v", w.dns.questions())
		}
		w.wantIPs("", "")
	})
}

func TestResolveFirst(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "198.18.0.1", "198.18.0.2")
		w.load(oneName("resolve: first"))
		w.settle()
		w.wantAddresses("198.18.0.1:80")
		w.wantIPs("")
		before := w.engine.only()

		w.dns.set("db.test", "198.18.0.3", "198.18.0.2", "198.18.0.1")
		w.pass(30 * time.Second)
		if w.engine.only() != before {
			t.Error("the address in use is still in the answer, but the target was replaced")
		}

		w.dns.set("db.test", "198.18.0.3", "198.18.0.2")
		w.pass(30 * time.Second)
		w.wantAddresses("198.18.0.3:80")
		if after := w.engine.only(); after.ID != before.ID || after.Sink != before.Sink {
			t.Error("at its new address it is another target")
		}
		w.wantIPs("")
		w.wantFailures(0)
	})
}

func TestResolveAll(t *testing.T) {
	inBubble(t, func(w *world) {
		w.load(oneName("resolve: all"))
		w.settle()
		w.wantAddresses("-")
		w.wantIPs("") // it fails, and is counted without the label
		w.wantFailures(1)

		w.dns.set("db.test", "198.18.0.1", "2001:db8::1")
		w.pass(30 * time.Second)
		w.wantAddresses("198.18.0.1:80 [2001:db8::1]:80")
		w.wantIPs("198.18.0.1", "2001:db8::1")
		stays := w.find("198.18.0.1:80")

		w.dns.set("db.test", "198.18.0.2", "198.18.0.1")
		w.pass(30 * time.Second)
		w.wantAddresses("198.18.0.1:80 198.18.0.2:80")
		w.wantIPs("198.18.0.1", "198.18.0.2")
		if w.find("198.18.0.1:80") != stays {
			t.Error("an address that stays was touched")
		}

		w.dns.reply("db.test", reply{err: errNotFound})
		w.pass(30 * time.Second)
		w.wantAddresses("-")
		w.wantIPs("")
		w.wantFailures(2)

		w.load(`jobs: []`)
		w.wantAddresses("")
		if s := w.series(); s != "" {
			t.Errorf("left behind: %s", s)
		}
	})
}

// find returns the engine's target at an address.
func (w *world) find(remote string) any {
	w.Helper()
	for _, t := range w.engine.targets() {
		if t.Remote.String() == remote {
			return t
		}
	}
	w.Fatalf("the engine has no target at %s", remote)
	return nil
}

// What says that there is nothing to probe ends the probing of what there was.
func TestGone(t *testing.T) {
	for name, r := range map[string]reply{
		"no such host":     {err: errNotFound},
		"wrapped":          {err: fmt.Errorf("resolver: %w", errNotFound)},
		"an empty answer":  {},
		"only a multicast": {addrs: []netip.Addr{netip.MustParseAddr("224.0.0.1")}},
		"only the other":   {addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.dns.set("db.test", "198.18.0.1")
				w.load(oneName("ip_protocol: ip4"))
				w.settle()
				w.wantAddresses("198.18.0.1:80")
				before := w.engine.only()
				w.dns.reply("db.test", r)
				w.pass(30 * time.Second)
				w.wantAddresses("-")
				w.wantFailures(1)
				if after := w.engine.only(); after.ID != before.ID || after.Sink != before.Sink {
					t.Error("without an address it is another target")
				}
				w.dns.set("db.test", "198.18.0.1")
				w.pass(30 * time.Second)
				w.wantAddresses("198.18.0.1:80")
				w.wantIPs("")
			})
		})
	}
}

// A look-up that merely failed says nothing against the addresses of the last.
func TestTemporaryFailure(t *testing.T) {
	for name, r := range map[string]reply{
		"server":    {err: errServer},
		"timeout":   {addrs: []netip.Addr{netip.MustParseAddr("198.18.0.9")}, delay: lookupTimeout + time.Second},
		"no DNS":    {err: errors.New("cannot read resolv.conf")},
		"operation": {err: &net.OpError{Op: "dial", Err: errors.New("network is unreachable")}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.dns.reply("db.test", r)
				w.load(oneName("resolve: all"))
				if r.delay > 0 {
					w.settle()
					w.wantAddresses("") // nobody knows yet
					w.pass(lookupTimeout)
				}
				w.settle()
				w.wantAddresses("-") // the first one failed
				w.wantFailures(1)

				w.dns.set("db.test", "198.18.0.1", "198.18.0.2")
				w.pass(30 * time.Second)
				w.wantAddresses("198.18.0.1:80 198.18.0.2:80")
				calls := w.engine.updates()

				w.dns.reply("db.test", r)
				w.pass(5 * 30 * time.Second)
				w.wantAddresses("198.18.0.1:80 198.18.0.2:80")
				if w.engine.updates() != calls {
					t.Error("the engine was bothered with what did not change")
				}
				w.wantFailures(6)
				if n := strings.Count(w.log.String(), "host name does not resolve"); n != 2 {
					t.Errorf("said %d times, want once when it begins:\n%s", n, w.log)
				}
			})
		})
	}
}

func TestIPProtocol(t *testing.T) {
	for key, want := range map[string]string{
		"any": "198.18.0.1:80 [2001:db8::1]:80",
		"ip4": "198.18.0.1:80",
		"ip6": "[2001:db8::1]:80",
	} {
		inBubble(t, func(w *world) {
			w.dns.set("db.test", "198.18.0.1", "2001:db8::1")
			w.load(oneName("resolve: all, ip_protocol: " + key))
			w.settle()
			w.wantAddresses(want)
			network := strings.Replace(key, "any", "ip", 1)
			if n := w.dns.times(network + " db.test"); n != 1 || len(w.dns.questions()) != 1 {
				t.Errorf("%s: asked %v", key, w.dns.questions())
			}
		})
	}
}

// A SYN has the MSS of its address's family, unless the module says otherwise.
func TestMSS(t *testing.T) {
	for module, want := range map[string][2]uint16{"mss: 1220": {1220, 1220}, "mss: off": {0, 0}, "flows: 1": {1460, 1440}} {
		inBubble(t, func(w *world) {
			w.dns.set("db.test", "198.18.0.1", "2001:db8::1")
			w.load(oneName("resolve: all, " + module))
			w.settle()
			for _, x := range w.engine.targets() {
				family := 0
				if x.Remote.Addr().Is6() {
					family = 1
				}
				if o := x.SYN.Value().Options; o.MSS != want[family] || (o.Set&probe.OptMSS != 0) != (want[family] > 0) {
					t.Errorf("%s: %v has %+v, want MSS %d", module, x.Remote, o, want[family])
				}
				if own := module != "flows: 1"; x.FitMSS == own {
					t.Errorf("%s: %v fits the route: %v", module, x.Remote, x.FitMSS)
				}
			}
		})
	}
}

func TestUsable(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "224.0.0.1", "ff02::1", "0.0.0.0", "0.1.2.3", "::", "240.0.0.1", "255.255.255.255", "::ffff:198.18.0.1", "198.18.0.1",
			"::ffff:224.0.0.1", "::ffff:0.0.0.0", "::ffff:240.0.0.1", "::ffff:255.255.255.255", "2001:db8::1", "2001:db8::1")
		w.load(oneName("resolve: all"))
		w.settle()
		w.wantAddresses("198.18.0.1:80 [2001:db8::1]:80")
		w.wantIPs("198.18.0.1", "2001:db8::1")
	})
}

// A link-local address needs an interface to be reached through: the zone of
// the address, which DNS has not, or the module's.
func TestLinkLocal(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "fe80::1")
		w.load(oneName("resolve: all"))
		w.pass(5 * 30 * time.Second)
		w.wantAddresses("-")
		w.wantFailures(6)
		if n := strings.Count(w.log.String(), "only link-local addresses, which need the module to name its interface"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, w.log)
		}
		w.load(oneName("resolve: all, interface: eth0"))
		w.settle()
		w.wantAddresses("[fe80::1]:80")
	})
	inBubble(t, func(w *world) {
		w.dns.set("db.test", "fe80::1", "2001:db8::1", "169.254.0.1", "fe80::2%eth1")
		w.load(oneName("resolve: all"))
		w.settle()
		w.wantAddresses("169.254.0.1:80 [2001:db8::1]:80 [fe80::2%eth1]:80")
		w.wantFailures(0)
	})
}

// However many addresses a name has, so many are probed and no more, and it is
// said once which are not. Those that are probed stay.
func TestTooManyAddresses(t *testing.T) {
	all := make([]string, 300)
	for i := range all {
		all[i] = fmt.Sprintf("198.18.%d.%d", i>>8, i&0xff)
	}
	inBubble(t, func(w *world) {
		w.dns.set("db.test", all...)
		w.load(oneName("resolve: all"))
		w.settle()
		before := w.addresses()
		if n := len(w.engine.targets()); n != maxAddresses || strings.Contains(before, "198.18.1.") {
			t.Errorf("%d targets, want the first %d of the answer", n, maxAddresses)
		}
		calls := w.engine.updates()
		slices.Reverse(all)
		w.dns.set("db.test", all...)
		w.pass(5 * 30 * time.Second)
		if w.addresses() != before || w.engine.updates() != calls {
			t.Error("another order of the answer changed what is probed")
		}
		said := func() int { return strings.Count(w.log.String(), "host name has too many addresses") }
		if said() != 1 || !strings.Contains(w.log.String(), "198.18.1.43") || strings.Contains(w.log.String(), "198.18.0.1 ") {
			t.Errorf("said %d times, want once which are left out:\n%s", said(), w.log)
		}

		w.dns.set("db.test", all[:maxAddresses]...) // 198.18.0.0 to .43 are gone
		w.pass(30 * time.Second)
		if n := len(w.engine.targets()); n != maxAddresses || !strings.Contains(w.addresses(), "198.18.1.43:80") {
			t.Errorf("%d targets, want all %d of the answer", n, maxAddresses)
		}
		w.dns.set("db.test", all...)
		w.pass(30 * time.Second)
		if said() != 2 {
			t.Errorf("said %d times, want again as it begins again", said())
		}
	})
	inBubble(t, func(w *world) {
		w.dns.set("db.test", all...)
		w.load(oneName("resolve: first"))
		w.settle()
		if w.log.Len() > 0 {
			t.Errorf("said though only the first address is wanted:\n%s", w.log)
		}
		w.load(oneName("resolve: all"))
		if n := len(w.engine.targets()); n != maxAddresses {
			t.Errorf("%d targets after the reload, want %d", n, maxAddresses)
		}
		w.pass(30 * time.Second)
		if !strings.Contains(w.log.String(), "host name has too many addresses") {
			t.Error("said nothing though all addresses are wanted")
		}
	})
}

// A name is looked up once an interval, whoever has it, and neither early nor
// ever later.
func TestInterval(t *testing.T) {
	inBubble(t, func(w *world) {
		var targets strings.Builder
		for port := range 50 {
			fmt.Fprintf(&targets, "\"db.test:%d\",", port+1)
		}
		w.dns.reply("db.test", reply{addrs: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, delay: time.Second})
		yaml := `
global: {resolve_interval: %s}
jobs: [{name: a, module: half_open, targets: [` + targets.String() + `]}, {name: b, module: half_open, targets: [` + targets.String() + `]}]
`
		w.load(fmt.Sprintf(yaml, "10s"))
		began := time.Now()
		w.pass(95 * time.Second)
		asked := w.dns.questions()["ip db.test"]
		if len(asked) != 10 {
			t.Fatalf("asked %d times in 95 s, want 10", len(asked))
		}
		for i, at := range asked {
			if want := time.Duration(i) * 10 * time.Second; at.Sub(began) != want {
				t.Errorf("asked after %v, want %v", at.Sub(began), want)
			}
		}
		if n := len(w.engine.targets()); n != 100 {
			t.Errorf("%d targets, want 100", n)
		}

		w.load(fmt.Sprintf(yaml, "2s")) // a shorter one counts from the last look-up, 5 s ago
		w.settle()
		if n := w.dns.times("ip db.test"); n != 11 {
			t.Errorf("asked %d times after the interval was shortened, want 11", n)
		}
		w.pass(4 * time.Second)
		if n := w.dns.times("ip db.test"); n != 13 {
			t.Errorf("asked %d times, want 13", n)
		}
	})
}

// A look-up that takes longer than the interval is not joined by another.
func TestSlowerThanTheInterval(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.reply("db.test", reply{addrs: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, delay: 2500 * time.Millisecond})
		w.load(strings.Replace(oneName("flows: 1"), "30s", "1s", 1))
		w.pass(time.Minute)
		w.wantAddresses("198.18.0.1:80")
		w.wantFailures(0)
		_, most := w.dns.load()
		if n := w.dns.times("ip db.test"); most != 1 || n < 15 {
			t.Errorf("asked %d times, %d at once", n, most)
		}
	})
}

// manyNames is a configuration with names from the first to the last.
func manyNames(first, last int) string {
	var b strings.Builder
	b.WriteString("global: {resolve_interval: 30s, limits: {packets_per_second: 1000000}}\njobs:\n- name: j\n  module: half_open\n  targets:\n")
	for i := first; i < last; i++ {
		fmt.Fprintf(&b, "  - h%d.test:80\n", i)
	}
	return b.String()
}

// A dead resolver is asked about few names at once, and delays nobody: neither
// a reload nor the names that come with it.
func TestDeadResolver(t *testing.T) {
	inBubble(t, func(w *world) {
		for i := range 1000 {
			w.dns.reply(fmt.Sprintf("h%d.test", i), reply{delay: time.Hour})
		}
		w.load(manyNames(0, 1000))
		w.settle()
		if now, most := w.dns.load(); now != lookups || most != lookups {
			t.Errorf("%d look-ups, at most %d, want %d", now, most, lookups)
		}
		w.pass(2 * lookupTimeout)
		w.wantFailures(2 * lookups)
		if n := len(w.engine.targets()); n != 2*lookups {
			t.Errorf("%d targets fail, want %d", n, 2*lookups)
		}

		w.dns.set("live.test", "198.18.0.1")
		before := time.Now()
		w.load(`jobs: [{name: j, module: half_open, targets: ["live.test:80"]}]`)
		if took := time.Since(before); took != 0 {
			t.Errorf("the reload took %v", took)
		}
		w.pass(lookupTimeout)
		w.wantAddresses("198.18.0.1:80")
		w.wantFailures(2 * lookups) // names that nobody has any more don't count

		for i := range 1000 {
			w.dns.set(fmt.Sprintf("h%d.test", i), "198.18.0.1")
		}
		w.load(manyNames(0, 1000))
		w.settle()
		if n := strings.Count(w.addresses(), "198.18.0.1:80"); n != 1000 {
			t.Errorf("%d of 1000 resolve", n)
		}
		if _, most := w.dns.load(); most != lookups {
			t.Errorf("%d look-ups at once", most)
		}
	})
}

// Every name has its turn, however long a round takes.
func TestFairness(t *testing.T) {
	inBubble(t, func(w *world) {
		for i := range 400 {
			w.dns.reply(fmt.Sprintf("h%d.test", i), reply{err: errServer, delay: 4 * time.Second})
		}
		w.load(manyNames(0, 400))
		w.pass(3 * 100 * time.Second) // 400 names of 4 s, 16 at once, are 100 s
		for i := range 400 {
			if n := w.dns.times(fmt.Sprintf("ip h%d.test", i)); n != 3 && n != 4 {
				t.Errorf("h%d.test was asked %d times in three rounds", i, n)
			}
		}
	})
}

// What Run started does not outlive it.
func TestRunEnds(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.reply("db.test", reply{delay: time.Hour})
		w.load(oneName("flows: 1"))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		w.settle()
		cancel()
		<-done
	})
}
