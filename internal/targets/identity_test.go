package targets

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/probed/probed/config"
)

// An ID is the same in every process: phases don't move when probed is started
// again, and shards agree on whose target it is.
func TestIDIsStable(t *testing.T) {
	c := parse(t, `jobs: [{name: edge, module: half_open, labels: {team: core, site: b}, targets: ["db.test:80"]}]`)
	conf := &c.Targets()[0]
	// FNV-1a of "edge""db.test:80""half_open""site""b""team""core", quotes
	// included, and the ip label.
	for ip, want := range map[string]uint64{"": 0x54cf1ab33434b845, "198.18.0.1": 0x2a105cff0a036ecb} {
		if got := Probing(conf, ip, netip.Addr{}).ID; got != want {
			t.Errorf("ip %q: ID %#x, want %#x", ip, got, want)
		}
	}
	if a, b := Probing(conf, "", netip.Addr{}), Probing(conf, "", netip.MustParseAddr("198.18.0.1")); a.ID != b.ID {
		t.Error("the ID follows the address")
	}
}

func TestIDsAreDistinct(t *testing.T) {
	seen := make(map[uint64]string, 100000)
	for i := range 100000 {
		conf := config.Target{Job: "edge", Endpoint: config.Endpoint{Address: fmt.Sprintf("198.18.%d.%d:%d", i>>8&0xff, i&0xff, 80+i>>16)}}
		conf.Module.Name = "half_open"
		ip := ""
		if i%2 == 1 {
			ip = "2001:db8::1"
		}
		id := Probing(&conf, ip, netip.Addr{}).ID
		if other := seen[id]; other != "" {
			t.Fatalf("%s and %s have the ID %#x", conf.Address, other, id)
		}
		seen[id] = conf.Address
	}
}

// What differs in any part is another target, however the parts are cut.
func TestIdentity(t *testing.T) {
	target := func(job, address, module string, labels ...config.Label) *config.Target {
		c := &config.Target{Job: job, Endpoint: config.Endpoint{Address: address}, Labels: labels}
		c.Module.Name = module
		return c
	}
	all := []*config.Target{
		target("j", "a:1", "m"),
		target("ja", ":1", "m"),
		target("j", "a:1m", ""),
		target("j", "a:1", "m", config.Label{Name: "a", Value: "b"}),
		target("j", "a:1", "m", config.Label{Name: "ab", Value: ""}),
		target("j", "a:1", "m", config.Label{Name: "a", Value: "1"}, config.Label{Name: "b", Value: "2"}),
		target("j", "a:1", "m", config.Label{Name: "a", Value: "1\x00b\x002"}),
		target("j", "a:1", "m", config.Label{Name: "a", Value: `1""b""2`}),
		target("j", "a:1", "m", config.Label{Name: "a", Value: "\ufffd"}),
	}
	seen := make(map[string]int)
	for i, c := range all {
		id := identity(c)
		if other, taken := seen[id]; taken {
			t.Errorf("targets %d and %d are the same", other, i)
		}
		seen[id] = i
	}
}
