package trust

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// figures are what /metrics said, added up: by name, by name and job_name after a
// slash, by name and reason after a hash.
type figures map[string]float64

// of is a name's sum over a job's targets, or over everything with "".
func (f figures) of(name, job string) int {
	if job != "" {
		name += "/" + job
	}
	return int(f[name])
}

func (f figures) discarded() int { return f.of("probed_probes_discarded_total", "") }

// reasons are a name's sums by the label reason.
func (f figures) reasons(name string) map[string]float64 {
	all := make(map[string]float64)
	for key, value := range f {
		if reason, ok := strings.CutPrefix(key, name+"#"); ok && value > 0 {
			all[reason] = value
		}
	}
	return all
}

// read adds up the samples of an exposition that the soak asks for.
func (f figures) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		end := strings.IndexAny(line, "{ ")
		if end < 0 || line[0] == '#' {
			continue
		}
		name := line[:end]
		if strings.HasSuffix(name, "_bucket") || !strings.HasPrefix(name, "probed_") && !strings.HasPrefix(name, "go_") {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		f[name] += value
		if _, rest, ok := strings.Cut(line, `job_name="`); ok {
			job, _, _ := strings.Cut(rest, `"`)
			f[name+"/"+job] += value
		}
		if _, rest, ok := strings.Cut(line, `reason="`); ok {
			reason, _, _ := strings.Cut(rest, `"`)
			f[name+"#"+reason] += value
		}
	}
	return lines.Err()
}

// Visitors are Prometheus and people with browsers.
type visitors struct {
	soak    *soak
	scrapes timed
	pages   timed
	streams tally
	probes  tally
	given   tally // of probes: given up

	stopping context.CancelFunc
	all      sync.WaitGroup
}

// A timed is how long requests of a kind took.
type timed struct {
	mu  sync.Mutex
	all []time.Duration
}

func (m *timed) add(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, d)
}

func (m *timed) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all)
}

func (m *timed) quantile(q float64) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(m.all))
	return sorted[int(q*float64(len(sorted)-1))]
}

func (m *timed) greatest() time.Duration { return m.quantile(1) }

// A tally counts.
type tally struct {
	mu sync.Mutex
	n  int
}

func (c *tally) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *tally) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func newVisitors(s *soak) *visitors { return &visitors{soak: s} }

// figures scrapes /metrics as Prometheus does.
func (v *visitors) figures(ctx context.Context) (figures, error) {
	f := make(figures)
	began := time.Now()
	err := v.get(ctx, "/metrics", http.Header{"Accept-Encoding": {"gzip"}}, func(resp *http.Response) error {
		body, err := gzip.NewReader(resp.Body)
		if err != nil {
			return err
		}
		return f.read(body)
	})
	v.scrapes.add(time.Since(began))
	return f, err
}

// get makes a request, whose answer must be as it should.
func (v *visitors) get(ctx context.Context, path string, header http.Header, read func(*http.Response) error) error {
	return v.do(ctx, http.MethodGet, path, header, read)
}

func (v *visitors) do(ctx context.Context, method, path string, header http.Header, read func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, method, v.soak.d.base+path, nil)
	if err != nil {
		return err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := v.soak.d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, body)
	}
	if read == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return read(resp)
}

// start has them come until stop.
func (v *visitors) start() {
	ctx, stop := context.WithCancel(v.soak.t.Context())
	v.stopping = stop
	short := v.soak.plan.wide
	every := func(d, inShort time.Duration) time.Duration {
		if short {
			return inShort
		}
		return d
	}
	v.repeat(ctx, every(5*time.Second, time.Second), v.scrape)
	v.repeat(ctx, every(500*time.Millisecond, 200*time.Millisecond), v.page)
	v.repeat(ctx, every(2*time.Second, 500*time.Millisecond), v.probe)
	for range 3 {
		v.repeat(ctx, 100*time.Millisecond, v.watch)
	}
}

func (v *visitors) stop() {
	v.stopping()
	v.all.Wait()
}

// repeat does something again and again.
func (v *visitors) repeat(ctx context.Context, every time.Duration, f func(ctx context.Context, n int) error) {
	v.all.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := f(ctx, n); err != nil && ctx.Err() == nil {
				v.soak.t.Errorf("%v after the start: %v", time.Since(v.soak.began).Round(time.Millisecond), err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
		}
	})
}

// scrape reads /metrics as Prometheus with native histograms does.
func (v *visitors) scrape(ctx context.Context, _ int) error {
	began := time.Now()
	err := v.get(ctx, "/metrics", http.Header{
		"Accept":          {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"},
		"Accept-Encoding": {"gzip"},
	}, nil)
	v.scrapes.add(time.Since(began))
	return err
}

// page looks at one page after the other.
func (v *visitors) page(ctx context.Context, n int) error {
	list := struct {
		Targets []struct {
			ID string `json:"id"`
		} `json:"targets"`
	}{}
	job := []string{"calm", "rough", "calm_active", "rough_passive", "calm_time_wait"}[n%5]
	began := time.Now()
	err := v.get(ctx, fmt.Sprintf("/api/v1/targets?limit=50&page=%d&q=job_name=%s", 1+n%2, job), nil, func(resp *http.Response) error {
		return json.NewDecoder(resp.Body).Decode(&list)
	})
	v.pages.add(time.Since(began))
	if err != nil {
		return err
	}
	if len(list.Targets) == 0 {
		return nil
	}
	id := list.Targets[n%len(list.Targets)].ID
	paths := []string{"/", "/?sort=-p99&page=2", "/targets/" + id, "/api/v1/targets/" + id, "/api/v1/targets/" + id + "/samples",
		"/api/v1/targets/" + id + "/transcripts", "/api/v1/targets/" + id + "/capture.pcapng", "/config", "/static/base.css"}
	began = time.Now()
	err = v.get(ctx, paths[n%len(paths)], http.Header{"Accept-Encoding": {"gzip"}}, nil)
	v.pages.add(time.Since(began))
	return err
}

// probe has one made on request, of an address of the calm peer's that is no target.
func (v *visitors) probe(ctx context.Context, n int) error {
	err := v.get(ctx, fmt.Sprintf("/probe?target=%s:85&debug=%v", v.soak.calm.address(1+n%1000), n%2 == 0), nil, nil)
	if err == nil {
		v.probes.add(1)
		return nil
	}
	if ctx.Err() == nil && strings.Contains(err.Error(), "503") { // no verdict, through no fault of the target
		v.given.add(1)
		v.soak.t.Logf("%v after the start: %v", time.Since(v.soak.began).Round(time.Millisecond), err)
		return nil
	}
	return err
}

// watch looks at a live page for a while.
func (v *visitors) watch(ctx context.Context, _ int) error {
	ctx, stop := context.WithTimeout(ctx, min(20*time.Second, v.soak.plan.length/5))
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.soak.d.base+"/events?sort=-loss", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: v.soak.d.http.Transport} // without a time-out
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/events: %s", resp.Status)
		}
		var n int64
		n, err = io.Copy(io.Discard, resp.Body)
		if n == 0 {
			return errors.New("/events: nothing")
		}
		v.streams.add(1)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// report is what they did.
func (v *visitors) report() string {
	return fmt.Sprintf("%s scrapes (median %s, greatest %s), %s pages (median %s, greatest %s), %s live streams, %s probes on request and %s given up",
		thousands(v.scrapes.count()), short(v.scrapes.quantile(0.5)), short(v.scrapes.greatest()),
		thousands(v.pages.count()), short(v.pages.quantile(0.5)), short(v.pages.greatest()),
		thousands(v.streams.count()), thousands(v.probes.count()), thousands(v.given.count()))
}
