package trust

import (
	"fmt"
	"testing"
)

// This host's firewall keeps segments from leaving, or what arrives from the kernel.
// The tap is before that, so that answers are seen; what leaves is seen behind it.
func TestFaultNetFirewall(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	r.start(r.probing())
	eth := r.here.Iface()
	for _, f := range []struct {
		what, rules string
		rare        bool
	}{
		{"output dropped", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 drop; }", false},
		{"output rejected", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 reject with tcp reset; }", true},
		{"output rejected now and then", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 numgen random mod 4 0 reject with tcp reset; }", true},
		{"output rejected by ICMP now and then", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 numgen random mod 4 0 reject; }", true},
		{"output rejected as from a router now and then", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 numgen random mod 4 0 reject with icmpx host-unreachable; }", true},
		{"dropped behind routing", "chain c { type filter hook postrouting priority 0; oif %[1]s tcp sport 61000-61255 drop; }", true},
		{"only RSTs dropped", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 tcp flags & rst == rst drop; }", true},
		{"input dropped", "chain c { type filter hook input priority 0; iif %[1]s tcp dport 61000-61255 drop; }", true},
		{"input dropped before connection tracking", "chain c { type filter hook prerouting priority -300; iif %[1]s tcp dport 61000-61255 drop; }", false},
		{"input rejected by a RST", "chain c { type filter hook input priority 0; iif %[1]s tcp dport 61000-61255 reject with tcp reset; }", false},
		{"input rejected by ICMP", "chain c { type filter hook input priority 0; iif %[1]s tcp dport 61000-61255 reject; }", true},
		{"what connection tracking calls invalid dropped, both ways",
			"chain o { type filter hook output priority 0; oif %[1]s ct state invalid drop; }\nchain i { type filter hook input priority 0; iif %[1]s ct state invalid drop; }", true},
	} {
		rules := fmt.Sprintf(f.rules, eth)
		r.suffer(netFault{
			what: "firewall: " + f.what,
			rare: f.rare,
			make: func() { r.here.NFT("table inet fault {\n" + rules + "\n}\n") },
			end:  func() { r.run(r.here, "nft delete table inet fault") },
		})
	}
	r.end()
}

// A firewall that follows connections has not seen the SYN of what went past it, and rejects the
// answer. Once it has, nothing goes past it for ten minutes: so each has a daemon of its own.
func TestFaultNetFirewallPast(t *testing.T) {
	t.Parallel()
	for _, how := range []struct{ what, with string }{{"by ICMP", "icmpx admin-prohibited"}, {"by a RST", "tcp reset"}} {
		t.Run(how.what, func(t *testing.T) {
			t.Parallel()
			r := newNetRig(t)
			r.start(r.probing())
			rules := fmt.Sprintf("chain c { type filter hook input priority 0; iif %[1]s ct state established,related accept\n iif %[1]s tcp dport 61000-61255 reject with %[2]s; }", r.here.Iface(), how.with)
			r.suffer(netFault{
				what:  "firewall: input rejected " + how.what + " unless established",
				tried: 1,
				make:  func() { r.here.NFT("table inet fault {\n" + rules + "\n}\n") },
				end:   func() { r.run(r.here, "nft delete table inet fault") },
			})
			r.end()
		})
	}
}
