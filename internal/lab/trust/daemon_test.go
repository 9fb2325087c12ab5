package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/probed/probed/internal/lab"
)

// capNetRaw is CAP_NET_RAW of linux/capability.h.
const capNetRaw = 13

// A daemon is a probed that runs inside a host as its unit has it run: user 65534 with
// CAP_NET_RAW alone.
type daemon struct {
	t    *testing.T
	host *lab.Host
	cmd  *lab.Cmd
	file string // its configuration
	base string // of its URLs
	http *http.Client
	out  lab.Output

	ended chan struct{}
	err   error // once ended: Wait's
}

// An option changes how probed is started.
type option func(*lab.Cmd)

// withArgs adds arguments.
func withArgs(args ...string) option {
	return func(c *lab.Cmd) { c.Args = append(c.Args, args...) }
}

// withEnv adds to the environment: "GOMEMLIMIT=32MiB".
func withEnv(env ...string) option {
	return func(c *lab.Cmd) { c.Env = append(c.Env, env...) }
}

// asRoot leaves the daemon all that root has.
func asRoot(c *lab.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{} }

// launch starts probed with a configuration and does not wait for it.
func launch(t *testing.T, h *lab.Host, yaml string, options ...option) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-trust-") // which user 65534 may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &daemon{
		t: t, host: h, file: filepath.Join(dir, "probed.yml"), ended: make(chan struct{}), base: "http://127.0.0.1:10965",
		http: &http.Client{Timeout: patience, Transport: &http.Transport{
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				return h.Dial(network, addr, patience)
			},
		}},
	}
	t.Cleanup(d.http.CloseIdleConnections)
	d.write(yaml)
	d.cmd = h.Command(context.WithoutCancel(t.Context()), probedPath(t), "--config.file="+d.file)
	d.cmd.Env = os.Environ()
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}},
		AmbientCaps: []uintptr{capNetRaw},
	}
	d.cmd.Stderr, d.cmd.Stdout = &d.out, &d.out
	for _, o := range options {
		o(d.cmd)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start probed: %v", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGCONT)
		_ = d.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
		<-d.ended
		if t.Failed() {
			t.Logf("probed said:\n%s", d.out.String())
		}
	})
	return d
}

// start starts probed and waits until it is ready.
func start(t *testing.T, h *lab.Host, yaml string, options ...option) *daemon {
	t.Helper()
	d := launch(t, h, yaml, options...)
	d.awaitReady()
	return d
}

// write replaces the configuration file.
func (d *daemon) write(yaml string) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(yaml), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) awaitReady() {
	d.t.Helper()
	lab.Eventually(d.t, patience, func() error {
		select {
		case <-d.ended:
			d.t.Fatalf("probed ended: %v\n%s", d.err, d.out.String())
		default:
		}
		resp, err := d.http.Get(d.base + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// signal sends it a signal.
func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatalf("%v: %v", s, err)
	}
}

// end waits for its end.
func (d *daemon) end(limit time.Duration) {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(limit):
		d.t.Fatalf("probed still runs after %v", limit)
	}
}

// do makes a request and returns the status code and the body.
func (d *daemon) do(method, path string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.base+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(body)
}

// A scrape is what /metrics said.
type scrape map[string]*dto.MetricFamily

// scrape reads /metrics.
func (d *daemon) scrape() scrape {
	d.t.Helper()
	code, body := d.do("GET", "/metrics")
	if code != http.StatusOK {
		d.t.Fatalf("/metrics: %d", code)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	s, err := p.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		d.t.Fatalf("/metrics: %v", err)
	}
	return s
}

// sum adds up the counters and gauges of a name whose labels have the given values,
// "reason", "timeout", …; of a histogram its count.
func (s scrape) sum(name string, labels ...string) (sum float64) {
	f := s[name]
	for _, m := range f.GetMetric() {
		if !has(m, labels) {
			continue
		}
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			sum += m.GetCounter().GetValue()
		case dto.MetricType_GAUGE:
			sum += m.GetGauge().GetValue()
		case dto.MetricType_HISTOGRAM:
			sum += float64(m.GetHistogram().GetSampleCount())
		default:
			sum += m.GetUntyped().GetValue()
		}
	}
	return sum
}

// without is a scrape without a job's series.
func (s scrape) without(job string) scrape {
	others := make(scrape)
	for name, f := range s {
		others[name] = &dto.MetricFamily{Type: f.Type}
		for _, m := range f.GetMetric() {
			if !has(m, []string{"job_name", job}) {
				others[name].Metric = append(others[name].Metric, m)
			}
		}
	}
	return others
}

// values are the sums by a label's value.
func (s scrape) values(name, label string) map[string]float64 {
	all := make(map[string]float64)
	for _, m := range s[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label {
				all[l.GetValue()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return all
}

func has(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// descriptors is how many files and sockets a process has open.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
