package trust

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// What limits.deny has is sent nothing, whoever asks: a name server whose answers change
// every second, a discovery, a scrape of /probe, or a page. And a reload that denies what
// is being probed, and to which connections are open, ends that at once.
func TestFloodDenied(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24", "198.18.66.0/24", "2001:db8:1:66::/64")
	there.Serve("tcp", "[::]:80", lab.Discard)
	ns := here.NSD(t, "deny.test")
	zone := func(round int) { // what is denied from the start is 198.18.66.0/24
		good, bad := "198.18.64.1", "198.18.66.1"
		flap := []string{good, bad}[round%2]
		ns.Zone(fmt.Sprintf(`
good A %[1]s
bad A %[2]s
flap A %[3]s
mixed A %[1]s
mixed A %[2]s
mixed AAAA 2001:db8:1:66::1
mapped AAAA ::ffff:%[2]s
`, good, bad, flap))
	}
	zone(0)
	ns.Start(dnsmessage.RCodeSuccess)
	lists, err := os.MkdirTemp("", "probed-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(lists) })
	if err := os.Chmod(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	found := filepath.Join(lists, "found.json")
	if err := os.WriteFile(found, []byte(`[{"targets": ["198.18.64.2:80", "198.18.66.2:80", "[2001:db8:1:66::2]:80"]}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	config := func(deny string) string {
		return fmt.Sprintf(`
global: {interval: 50ms, timeout: 40ms, resolve_interval: 1s, limits: {deny: [%s]}}
modules:
  all: {probe: half_open, resolve: all}
  hold: {probe: active_close, interval: 500ms, timeout: 10s, hold: 9s}
jobs:
- {name: all, module: all, targets: ["good.deny.test:80", "bad.deny.test:80", "flap.deny.test:80", "mixed.deny.test:80", "mapped.deny.test:80"]}
- {name: first, targets: ["good.deny.test:80", "flap.deny.test:80", "mixed.deny.test:80"]}
- {name: hold, module: hold, targets: ["good.deny.test:80"]}
- {name: found, file_sd_configs: [{files: [%q]}]}
- {name: found_hold, module: hold, file_sd_configs: [{files: [%q]}]}
`, deny, found, found)
	}
	const first = `198.18.66.0/24, "2001:db8:1:66::/64"`
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, config(first), resolving(t))
	asked, refused := 0, 0
	ask := func() {
		for _, to := range []string{"198.18.66.1:80", "bad.deny.test:80", "mapped.deny.test:81", "[2001:db8:1:66::9]:80", "flap.deny.test:80"} {
			asked++
			code, body := d.do("GET", "/probe?target="+to)
			switch {
			case code == 403 && strings.Contains(body, "global.limits.deny"):
				refused++
			case code != 200 || !strings.HasPrefix(to, "flap"):
				t.Errorf("/probe of %s: %d %s", to, code, body)
			}
		}
	}
	for i := range times(30, 3) {
		zone(i)
		ns.Reload()
		ask()
		time.Sleep(time.Second)
	}
	s := d.scrape()
	if n := s.sum("probed_forbidden_addresses"); n < 4 {
		t.Errorf("%.0f addresses are forbidden by the metrics", n)
	}
	if n := s.sum("probed_discovered_targets_invalid"); n != 4 {
		t.Errorf("%.0f discovered targets are left out, want 4", n)
	}
	open := func() (n int) {
		for _, x := range lab.SS(there, "estab", "syn-recv", "close-wait", "last-ack") {
			if strings.Contains(x.Local, "198.18.64.") {
				n++
			}
		}
		return n
	}
	if open() < 4 {
		t.Errorf("%d connections are open: nothing is shown", open())
	}
	// Now all of it.
	d.write(config(first + ", 198.18.64.0/24"))
	if code, body := d.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	denied := time.Now()
	lab.Eventually(t, patience, func() error {
		if n := open(); n > 0 {
			return fmt.Errorf("%d connections are open at what is denied", n)
		}
		return nil
	})
	closed := time.Now()
	took := closed.Sub(denied)
	ask()
	time.Sleep(6 * time.Second)
	last := d.scrape()
	left := int(last.sum("probed_conversations")) + open()
	// A target that the file has there is an error, and the old one stays.
	d.write(config(first) + "- {name: wrong, targets: ['198.18.66.7:80']}\n")
	if code, body := d.do("POST", "/-/reload"); code != 500 || !strings.Contains(body, "global.limits.deny has 198.18.66.0/24 (line 2)") {
		t.Errorf("reload with a denied target: %d %s", code, body)
	}
	d.signal(15)
	d.end(patience)
	wrong, after, syns := 0, 0, 0
	for _, s := range leavers(t, capture) {
		at := time.Unix(0, s.wall)
		switch {
		case netip.MustParsePrefix("198.18.66.0/24").Contains(s.Dst) || netip.MustParsePrefix("2001:db8:1:66::/64").Contains(s.Dst):
			wrong++
		case at.After(denied) && s.Segment.Flags.Has(2): // SYN
			syns++
		case at.After(closed.Add(5 * time.Second)):
			after++
		}
	}
	book(t, Row{
		Part: "flood", What: "what limits.deny has, by names, discovery, /probe and a reload", Tried: asked, Of: "requests, and names that change every second",
		Probes: int(last.sum("probed_probes_total")), False: wrong + syns + after, Recovery: took, Left: left,
		Note: fmt.Sprintf("%d segments to what was denied; %d of the requests refused; after the reload %d SYNs, and %d segments later than 5 s after the last connection was closed; recovery: until the peers had no connection", wrong, refused, syns, after),
	})
}

// Who may have what probed by /probe: this host anything, others what the jobs probe, and
// with limits.allow everybody what that has.
func TestFloodStrangers(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24")
	there.Serve("tcp", "[::]:80", lab.Discard)
	ns := here.NSD(t, "deny.test")
	ns.Zone("in A 198.18.64.1\nout A 198.18.64.9\n")
	ns.Start(dnsmessage.RCodeSuccess)
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, "jobs: [{name: j, interval: 1s, targets: ['198.18.64.1:80']}]", resolving(t))
	stranger := &daemon{t: t, base: "http://198.18.0.1:10965"} // as the other host sees it
	stranger.http = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return there.Dial(network, addr, patience)
		},
	}}
	t.Cleanup(stranger.http.CloseIdleConnections)
	tried := 0
	want := func(who *daemon, target string, code int) {
		t.Helper()
		tried++
		if got, body := who.do("GET", "/probe?target="+target); got != code {
			t.Errorf("%s: %d %s, want %d", target, got, body, code)
		}
	}
	want(d, "198.18.64.3:80", 200)
	want(d, "out.deny.test:80", 200)
	want(stranger, "198.18.64.1:80", 200)
	want(stranger, "198.18.64.1:81", 403) // another port of what is probed
	scanned := times(2000, 200)
	for i := range scanned { // a scan of a network
		want(stranger, fmt.Sprintf("198.18.64.%d:%d", 10+i%240, 1+i), 403)
	}
	want(stranger, "in.deny.test:80", 403) // no name of a job
	want(stranger, "out.deny.test:80", 403)
	d.write("{global: {limits: {allow: [198.18.64.0/29]}}, jobs: [{name: j, interval: 1s, targets: ['198.18.64.1:80']}]}")
	if code, body := d.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	for _, who := range []*daemon{d, stranger} {
		want(who, "198.18.64.3:80", 200)
		want(who, "in.deny.test:80", 200)
		want(who, "198.18.64.9:80", 403)
		want(who, "out.deny.test:80", 403)
	}
	s := d.scrape()
	d.signal(15)
	d.end(patience)
	wrong := 0
	for _, s := range leavers(t, capture) {
		if last := s.Dst.As4()[3]; last > 9 {
			wrong++
		}
	}
	book(t, Row{
		Part: "flood", What: "another host scans a network by /probe", Tried: tried, Of: "requests",
		Probes: int(s.sum("probed_probes_total")), False: wrong, Left: lasting(there), Note: fmt.Sprintf("%d segments to what it may not have probed", wrong),
	})
}
