package targets

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/recorder"
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
		conf.Module = &config.Module{Name: "half_open"}
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
		return &config.Target{Job: job, Endpoint: config.Endpoint{Address: address}, Module: &config.Module{Name: module}, Labels: labels}
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
	for i, a := range all {
		for j, b := range all {
			if is := same(a, b); is != (i == j) {
				t.Errorf("targets %d and %d are the same: %v", i, j, is)
			}
			if is := idOf(a, "") == idOf(b, ""); is != (i == j) {
				t.Errorf("targets %d and %d have the same ID: %v", i, j, is)
			}
		}
	}
}

// Targets whose hashes are the same are kept apart all the same.
func TestSameHash(t *testing.T) {
	w := newWorld(t)
	w.hash = func(*config.Target) uint64 { return 1 }
	addresses := func(from, to int) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "198.18.0.%d:80, ", i)
		}
		return "jobs: [{name: edge, module: half_open, targets: [" + b.String() + "]}]"
	}
	was := make(map[string]*recorder.Recorder)
	for _, tt := range []struct{ from, to int }{{1, 10}, {1, 10}, {3, 12}, {3, 4}, {1, 10}, {9, 10}, {1, 2}, {1, 10}} {
		w.load(addresses(tt.from, tt.to))
		views := w.Views()
		if len(views) != tt.to-tt.from || len(w.engine.targets()) != len(views) {
			t.Fatalf("%+v: %d targets, %d probed", tt, len(views), len(w.engine.targets()))
		}
		now := make(map[string]*recorder.Recorder)
		for i, v := range views {
			if want := fmt.Sprintf("198.18.0.%d:80", tt.from+i); v.Target.Address != want || v.Remote.String() != want {
				t.Fatalf("%+v: %s at %v, want %s", tt, v.Target.Address, v.Remote, want)
			}
			now[v.Target.Address] = v.Recorder
			if before := was[v.Target.Address]; before != nil && before != v.Recorder {
				t.Errorf("%+v: %s starts again", tt, v.Target.Address)
			}
		}
		was = now
	}
}
