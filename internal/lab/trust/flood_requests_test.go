package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// Two hundred clients ask for probes as fast as they are answered, of the addresses that
// the schedule probes and of others, by /probe and by the button of a page: the limits
// hold, and the schedule's probes go.
func TestFloodRequests(t *testing.T) {
	t.Parallel()
	const (
		clients, all, each = 200, 600, 150
		targets            = 20 // on four addresses, 100 packets a second each
	)
	here, there := lab.Pair(t)
	there.AnyIP("198.18.64.0/24")
	there.Serve("tcp", "[::]:80", lab.Discard)
	var config bytes.Buffer
	fmt.Fprintf(&config, "global: {interval: 100ms, timeout: 90ms, limits: {packets_per_second: %d, packets_per_second_per_address: %d}}\njobs:\n- name: schedule\n  targets:\n", all, each)
	for i := range targets {
		there.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", 8000+i))
		fmt.Fprintf(&config, "  - 198.18.64.%d:%d\n", 1+i%4, 8000+i)
	}
	capture := here.Capture(t, here.Iface(), fromOurs, lab.Immediate)
	d := start(t, here, config.String())
	lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), targets) })
	var pages []string
	_, list := d.do("GET", "/api/v1/targets")
	var listed struct {
		Targets []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(list), &listed); err != nil || len(listed.Targets) != targets {
		t.Fatalf("%v: %s", err, list)
	}
	for _, x := range listed.Targets {
		pages = append(pages, "/targets/"+x.ID+"/probe")
	}
	before := d.scrape()
	began := time.Now()
	end := began.Add(time.Duration(times(60, 5)) * time.Second)
	codes := make(map[int]int)
	asked := 0
	var mu sync.Mutex
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			for n := i; time.Now().Before(end); n++ {
				path, method := pages[n%targets], "POST"
				if n%10 > 0 {
					to, module := fmt.Sprintf("198.18.64.%d:80", 1+n%4), "half_open"
					if n%30 == 1 {
						to, module = fmt.Sprintf("198.18.64.%d:80", 10+n%200), "active_close"
					}
					path, method = "/probe?module="+module+"&target="+url.QueryEscape(to), "GET"
				}
				code := d.ask(method, path)
				mu.Lock()
				codes[code]++
				asked++
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	after := d.scrape()
	took := time.Since(began)
	d.signal(15)
	d.end(patience)
	l := loadOf(leavers(t, capture), 0, all, each)
	grew := func(name string, labels ...string) float64 {
		return after.sum(name, labels...) - before.sum(name, labels...)
	}
	due := took.Seconds() * targets * 10
	made, lost := grew("probed_probes_total"), grew("probed_probe_failures_total")
	skipped, late := grew("probed_probes_skipped_total", "reason", "rate_limit"), grew("probed_probes_skipped_total", "reason", "late")
	if made < due*0.5 {
		t.Errorf("%.0f probes of %.0f in %v", made, due, took)
	}
	if skipped > due/20 {
		t.Errorf("%.0f of the schedule's probes had no room", skipped)
	}
	if codes[200] < 50 || asked < 1000 || l.second < all*8/10 {
		t.Errorf("%v, answered %v: nothing is shown", l, codes)
	}
	note := ""
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		note += fmt.Sprintf(", %s × %d", thousands(codes[code]), code)
	}
	book(t, Row{
		Part: "flood", What: fmt.Sprintf("%d clients ask for probes", clients), Tried: asked, Of: "requests", Probes: int(made),
		False: l.above + int(lost), Discarded: int(grew("probed_probes_discarded_total") + skipped + late), Left: lasting(there),
		Note: fmt.Sprintf("in %s: %v (limits %d and %d); of the schedule's %.0f probes %.0f had no room, %.0f were late%s", short(took), l, all, each, due, skipped, late, note),
	})
}

// ask makes a request as a page of probed's own does, and returns the answer's status; 0
// if there is none.
func (d *daemon) ask(method, path string) int {
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.base+path, nil)
	if err != nil {
		d.t.Error(err)
		return 0
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Accept", "application/json")
	resp, err := d.http.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
