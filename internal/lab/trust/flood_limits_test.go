package trust

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// The limits hold in every second, of all and of each address, whatever no check of the
// configuration can foresee: two thousand targets, by names, ports and modules, that are
// one address; answers of a name server that move them all to another address every
// second, some written as IPv6, and names with twenty addresses each; and ten reloads a
// second that change targets and limits.
func TestFloodLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what, yaml string
		args       []string
	}{
		{what: "one loop"},
		{what: "two loops", yaml: ", loops: 2"},
		{what: "one of two shards", args: []string{"--shard=0/2"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			floodLimits(t, tt.what, tt.yaml, tt.args)
		})
	}
}

func floodLimits(t *testing.T, what, global string, args []string) {
	const names, ports, many = 50, 20, 10
	type limits struct{ all, each int }
	high, low := limits{1200, 60}, limits{1000, 40}
	if args != nil { // half of the targets
		high, low = limits{600, 60}, limits{500, 40}
	}
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24")
	for port := range ports {
		there.Serve("tcp", fmt.Sprintf("[::]:%d", 8000+port), lab.Discard)
	}
	ns := here.NSD(t, "flood.test")
	zone := func(round int) {
		var b strings.Builder
		one := fmt.Sprintf("198.18.64.%d", 1+round%5)
		for i := range names {
			if i%5 == 0 {
				fmt.Fprintf(&b, "n%d AAAA ::ffff:%s\n", i, one)
			} else {
				fmt.Fprintf(&b, "n%d A %s\n", i, one)
			}
		}
		for i := range many {
			for k := range 20 {
				fmt.Fprintf(&b, "m%d A 198.18.64.%d\n", i, 10+(round*7+20*i+k)%240)
			}
		}
		ns.Zone(b.String())
	}
	zone(0)
	ns.Start(dnsmessage.RCodeSuccess)
	config := func(round int, l limits) string {
		var b strings.Builder
		fmt.Fprintf(&b, "global: {resolve_interval: 1s%s, limits: {packets_per_second: %d, packets_per_second_per_address: %d}}\n", global, l.all, l.each)
		b.WriteString("modules: {all: {probe: half_open, resolve: all}, hops: {probe: half_open, ttl: 9}}\njobs:\n")
		// Both half_open: what other kinds have begun under the higher limits goes on under the
		// lower ones.
		for _, module := range []string{"half_open", "hops"} {
			fmt.Fprintf(&b, "- name: %s\n  module: %[1]s\n  interval: 10s\n  labels: {round: 'r%d'}\n  targets:\n", module, round%3)
			for i := range names {
				if i%10 != round%10 {
					for port := range ports {
						fmt.Fprintf(&b, "  - n%d.flood.test:%d\n", i, 8000+port)
					}
				}
			}
		}
		b.WriteString("- name: many\n  module: all\n  interval: 200ms\n  timeout: 150ms\n  targets:\n")
		for i := range many {
			fmt.Fprintf(&b, "  - m%d.flood.test:8000\n", i)
		}
		return b.String()
	}
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, config(0, high), resolving(t), withArgs(args...))
	reloads := times(600, 40)
	changing := time.Now()
	for i := range reloads {
		time.Sleep(time.Until(changing.Add(time.Duration(i) * 100 * time.Millisecond)))
		if i%10 == 0 {
			zone(i / 10)
			ns.Reload()
		}
		l := high
		if i%2 == 0 {
			l = low
		}
		d.write(config(i, l))
		if code, body := d.do("POST", "/-/reload"); code != 200 {
			t.Fatalf("reload: %d %s", code, body)
		}
	}
	took := time.Since(changing)
	d.write(config(0, low))
	if code, body := d.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	calm := time.Now().Add(1100 * time.Millisecond)
	time.Sleep(2500 * time.Millisecond)
	s := d.scrape()
	d.signal(15)
	d.end(patience)
	all := leavers(t, capture)
	// While they changed the higher ones were in force half of the time.
	whole, last := loadOf(all, 0, high.all, high.each), loadOf(all, calm.UnixNano(), low.all, low.each)
	if whole.second < low.all*8/10 || whole.address < low.each*8/10 {
		t.Errorf("%v: nothing is shown", whole)
	}
	if s.sum("probed_probes_skipped_total", "reason", "rate_limit") == 0 {
		t.Error("nothing was asked for beyond the limits")
	}
	verdicts, lost := int(s.sum("probed_probes_total")), int(s.sum("probed_probe_failures_total"))
	book(t, Row{
		Part: "flood", What: "targets that are one address, DNS that moves them, reloads: " + what, Tried: reloads, Of: "reloads",
		Probes: verdicts, False: whole.above + last.above, Discarded: int(s.sum("probed_probes_discarded_total") + s.sum("probed_probes_skipped_total")), Left: lasting(there),
		Note: fmt.Sprintf("in %s: %v (limits %s and %d); then %v (%s and %d); %d failures", short(took), whole, thousands(high.all), high.each, last, thousands(low.all), low.each, lost),
	})
}
