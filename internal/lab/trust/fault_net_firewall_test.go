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
		{"dropped behind routing", "chain c { type filter hook postrouting priority 0; oif %[1]s tcp sport 61000-61255 drop; }", true},
		{"only RSTs dropped", "chain c { type filter hook output priority 0; oif %[1]s tcp sport 61000-61255 tcp flags & rst == rst drop; }", true},
		{"input dropped", "chain c { type filter hook input priority 0; iif %[1]s tcp dport 61000-61255 drop; }", true},
		{"input dropped before connection tracking", "chain c { type filter hook prerouting priority -300; iif %[1]s tcp dport 61000-61255 drop; }", false},
		{"input rejected by a RST", "chain c { type filter hook input priority 0; iif %[1]s tcp dport 61000-61255 reject with tcp reset; }", false},
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
