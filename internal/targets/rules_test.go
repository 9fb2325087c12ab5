package targets

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/config"
)

// limited are limits with lists.
func limited(t testing.TB, lists string) *config.Limits {
	t.Helper()
	return &parse(t, "{global: {limits: {"+lists+"}}, jobs: []}").Global.Limits
}

// What names resolve to is held to the lists, at once when these change, and when
// answers do; however an answer is written.
func TestPermit(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("one.test", "198.18.0.1", "198.18.1.1")
		w.dns.set("all.test", "198.18.0.1", "198.18.1.1", "198.18.1.2")
		w.dns.set("bad.test", "198.18.0.9")
		w.dns.set("mapped.test", "::ffff:198.18.0.9")
		w.dns.set("zone.test", "fe80::9%eth0")
		w.dns.set("translated.test", "64:ff9b::198.18.0.9")
		conf := `
global: {resolve_interval: 30s}
modules: {all: {probe: half_open, resolve: all}}
jobs:
- {name: names, targets: ["one.test:80", "bad.test:80", "mapped.test:80", "zone.test:80", "translated.test:80"]}
- {name: all, module: all, targets: ["all.test:80"]}
`
		w.load(conf)
		w.settle()
		every := "198.18.0.1:80 198.18.0.1:80 198.18.0.9:80 198.18.0.9:80 198.18.1.1:80 198.18.1.2:80 [64:ff9b::c612:9]:80 [fe80::9%eth0]:80"
		w.wantAddresses(every)

		w.Permit(limited(w, "deny: [198.18.0.0/24, 'fe80::/10']")) // and no look-up since
		w.wantAddresses("- - - - 198.18.1.1:80 198.18.1.1:80 198.18.1.2:80")
		w.wantIPs("", "", "", "", "", "198.18.1.1", "198.18.1.2")
		if n := w.Forbidden.Load(); n != 6 {
			t.Errorf("%d addresses are forbidden, want 6", n)
		}
		w.load(conf) // as after a reload
		w.wantAddresses("- - - - 198.18.1.1:80 198.18.1.1:80 198.18.1.2:80")

		w.dns.set("all.test", "198.18.0.2", "198.18.1.3")
		w.dns.set("one.test", "198.18.0.2")
		w.pass(31 * time.Second)
		w.wantAddresses("- - - - - 198.18.1.3:80")
		if n := w.ResolveFailures.Load(); n < 5 {
			t.Errorf("%d look-ups gave nothing to probe", n)
		}

		w.Permit(limited(w, "allow: [198.18.0.0/24]"))
		w.wantAddresses("- - 198.18.0.2:80 198.18.0.2:80 198.18.0.9:80 198.18.0.9:80")
		w.Permit(new(config.Limits))
		w.pass(time.Second)
		w.wantAddresses("198.18.0.2:80 198.18.0.2:80 198.18.0.9:80 198.18.0.9:80 198.18.1.3:80 [64:ff9b::c612:9]:80 [fe80::9%eth0]:80")
		w.load("jobs: []")
		if n := w.Forbidden.Load(); n != 0 {
			t.Errorf("%d addresses of no names are forbidden", n)
		}
		for _, want := range []string{
			`host name does not resolve" host=mapped.test err="198.18.0.9 may not be probed: global.limits.deny has 198.18.0.0/24`,
			`host name has addresses that are not probed" host=all.test`, "host name resolves again",
		} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, w.log)
			}
		}
	})
}

// Who asks for a probe is held to the lists and to what he may have probed, by the
// address that is then probed.
func TestOnceIsForbidden(t *testing.T) {
	making(t, func(w *world, m *maker) {
		w.dns.set("db.test", "198.18.0.1", "198.18.1.2")
		w.dns.set("bad.test", "198.18.0.1")
		w.Permit(limited(w, "deny: [198.18.0.0/24]"))
		no := errors.New("not for you")
		for _, tt := range []struct {
			address string
			may     func(netip.Addr) error
			remote  string
		}{
			{"198.18.0.1:80", anywhere, ""},
			{"bad.test:80", anywhere, ""},
			{"db.test:80", anywhere, "198.18.1.2:80"},
			{"db.test:80", func(a netip.Addr) error {
				if a != netip.MustParseAddr("198.18.0.1") {
					return no
				}
				return nil
			}, ""},
			{"198.18.1.9:80", func(netip.Addr) error { return no }, ""},
		} {
			before := len(m.made)
			_, err := w.Once(w.Context(), one(w, tt.address), tt.may)
			if (err == nil) != (tt.remote != "") || len(m.made)-before != len(tt.remote)/len("198.18.1.2:80") {
				t.Errorf("%s: %v, %d probes", tt.address, err, len(m.made)-before)
			} else if tt.remote != "" && m.made[before].Remote.String() != tt.remote {
				t.Errorf("%s: %v was probed", tt.address, m.made[before].Remote)
			}
		}
	})
}

// What is probed is known by address and port, and by name and port, as the list in force has it.
func TestProbes(t *testing.T) {
	inBubble(t, func(w *world) {
		w.dns.set("db.test.", "198.18.0.1")
		w.load(`{modules: {link: {probe: half_open, interface: eth3}}, jobs: [
			{name: j, targets: ["db.test.:80", "198.18.0.3:82", "[fe80::1%eth0]:80", "[2001:db8::1]:80", "none.test:80"]},
			{name: k, module: link, targets: ["[fe80::2]:80"]}]}`)
		w.settle()
		know := func(a string, want bool) {
			t.Helper()
			if got := w.Probes(netip.MustParseAddrPort(a)); got != want {
				t.Errorf("%s is probed: %v", a, got)
			}
		}
		know("198.18.0.1:80", true)
		know("198.18.0.1:81", false)
		know("[::ffff:198.18.0.1]:80", true)
		know("198.18.0.3:82", true)
		know("198.18.0.3:80", false)
		know("198.18.0.3:0", false)
		know("[fe80::1%eth0]:80", true)
		know("[fe80::1%eth0]:22", false)
		know("[fe80::1%eth1]:80", false) // another host
		know("[fe80::1]:80", false)
		know("[fe80::2%eth3]:80", true) // by its module's interface
		know("[fe80::2%eth0]:80", false)
		know("[2001:db8::1%eth0]:80", true) // which no zone says more of
		know("198.18.0.2:80", false)
		know("[::]:80", false)
		w.dns.set("db.test.", "198.18.0.2")
		w.pass(time.Minute)
		know("198.18.0.1:80", false)
		know("198.18.0.2:80", true)
		for host, want := range map[string]bool{"db.test": true, "db.test.": true, "none.test": true, "x.test": false, "198.18.0.3": false} {
			if w.Names(host, 80) != want {
				t.Errorf("%s is a name: %v", host, !want)
			}
			if w.Names(host, 82) {
				t.Errorf("%s is a name with another port", host)
			}
		}
		w.load("jobs: []")
		know("198.18.0.2:80", false)
		if w.Names("db.test", 80) {
			t.Error("a name of before")
		}
	})
}
