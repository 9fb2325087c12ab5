package trust

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// What a connection is to send it sends when its peer has done something. Applications
// that take up to 0.9 s before they answer or close, by chance, and discovered targets that
// ask for some times what the limits are: no second has more.
func TestFloodLatePeers(t *testing.T) {
	t.Parallel()
	const addresses, ports, all, each = 4, 15, 150, 50
	here, there := lab.Pair(t)
	there.AnyIP("198.18.67.0/24")
	for port := range ports {
		there.Serve("tcp", fmt.Sprintf("[::]:%d", 8000+port), func(c net.Conn) {
			n, _ := c.Read(make([]byte, 1)) // an octet or a FIN
			time.Sleep(rand.N(900 * time.Millisecond))
			if n > 0 {
				_, _ = c.Write([]byte("bye"))
			}
		})
	}
	var targets strings.Builder
	for port := range ports {
		for a := range addresses {
			fmt.Fprintf(&targets, "- {targets: ['198.18.67.%d:%d']}\n", 1+a, 8000+port)
		}
	}
	lists, err := os.MkdirTemp("", "probed-trust-") // which user 65534 may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(lists) })
	if err := os.Chmod(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	found := filepath.Join(lists, "targets.yml")
	if err := os.WriteFile(found, []byte(targets.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	jobs := []string{
		"active: {probe: active_close, interval: 1s}",
		"passive: {probe: passive_close, interval: 1s, send: x}",
		"time_wait: {probe: time_wait, interval: 3s, timeout: 1400ms, after: 100ms, send: x}",
		"cookies: {probe: half_open, interval: 1s, detect_syn_cookies: true}",
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global: {limits: {packets_per_second: %d, packets_per_second_per_address: %d}}\nmodules:\n", all, each)
	for _, module := range jobs {
		fmt.Fprintf(&b, "  %s\n", module)
	}
	b.WriteString("jobs:\n")
	for _, module := range jobs {
		name, _, _ := strings.Cut(module, ":")
		fmt.Fprintf(&b, "- {name: %s, module: %[1]s, file_sd_configs: [{files: [%q]}]}\n", name, found)
	}
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, b.String())
	probing := time.Now()
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 10) })
	time.Sleep(time.Duration(times(60, 4)) * time.Second)
	s := d.scrape()
	took := time.Since(probing)
	d.signal(15)
	d.end(patience)
	most := loadOf(leavers(t, capture), 0, all, each)
	if most.second < all/2 || most.address < each/2 {
		t.Errorf("%v: nothing is shown", most)
	}
	if s.sum("probed_probes_skipped_total", "reason", "rate_limit") == 0 {
		t.Error("nothing was asked for beyond the limits")
	}
	for _, module := range jobs {
		name, _, _ := strings.Cut(module, ":")
		if s.sum("probed_probes_total", "job_name", name) == 0 {
			t.Errorf("no probe of %s", name)
		}
	}
	book(t, Row{
		Part: "flood", What: "connections to peers that close up to 0.9 s late", Tried: len(jobs) * ports * addresses, Of: "targets",
		Probes: int(s.sum("probed_probes_total")), False: most.above,
		Discarded: int(s.sum("probed_probes_discarded_total") + s.sum("probed_probes_skipped_total")), Left: lasting(there),
		Note: fmt.Sprintf("in %s: %v (limits %d and %d); %.0f failures", short(took), most, all, each, s.sum("probed_probe_failures_total")),
	})
}

// Connections to peers that don't close, all of which a reload takes away, with lower limits:
// they are reset as those have room, and no peer keeps any.
func TestFloodTakenAway(t *testing.T) {
	t.Parallel()
	const addresses, ports, all, each = 4, 25, 60, 20
	here, there := lab.Pair(t)
	there.AnyIP("198.18.68.0/24")
	var targets []string
	for port := range ports {
		there.Serve("tcp", fmt.Sprintf("[::]:%d", 8000+port), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		for a := range addresses {
			targets = append(targets, fmt.Sprintf("'198.18.68.%d:%d'", 1+a, 8000+port))
		}
	}
	config := func(all, each int, targets ...string) string {
		return fmt.Sprintf(`
global: {limits: {packets_per_second: %d, packets_per_second_per_address: %d}}
modules:
  open: {probe: passive_close, interval: 5s, timeout: 1m, send: x}
jobs: [{name: open, module: open, targets: [%s]}]
`, all, each, strings.Join(targets, ", "))
	}
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, config(10000, 2000, targets...))
	open := 0
	lab.Eventually(t, patience, func() error {
		if open = len(left(there)); open < times(8, 2)*len(targets) {
			return fmt.Errorf("%d connections", open)
		}
		return nil
	})
	d.write(config(all, each, "'198.18.68.9:8000'"))
	probes := d.scrape().sum("probed_probes_total")
	from := time.Now()
	if code, body := d.do("POST", "/-/reload"); code != 200 {
		t.Fatal(code, body)
	}
	s := d.scrape()
	lab.Eventually(t, patience, func() error {
		if n := len(left(there)); n > 15 { // of the one that stays, one every 5 s
			return fmt.Errorf("%d connections of %d are left", n, open)
		}
		return nil
	})
	end := time.Now()
	took := end.Sub(from)
	d.signal(15)
	d.end(patience)
	// What our own end resets has no room to wait for.
	before := slices.DeleteFunc(leavers(t, capture), func(l leaver) bool { return l.wall > end.UnixNano() })
	most := loadOf(before, from.UnixNano(), all, each)
	if most.second < all*8/10 {
		t.Errorf("%v: nothing is shown", most)
	}
	book(t, Row{
		Part: "flood", What: "open connections that a reload takes away while it lowers the limits", Tried: open, Of: "connections",
		Probes: int(probes), False: most.above + int(s.sum("probed_probe_failures_total")),
		Recovery: took, Left: lasting(there),
		Note: fmt.Sprintf("%v (limits %d and %d); recovery: until the peers had none", most, all, each),
	})
}
