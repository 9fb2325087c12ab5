package monitoring

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// TestLive has real Prometheus servers scrape a real probed whose peers misbehave:
// one takes native histograms, one classic ones. Every rule must be evaluated
// without an error, every recording rule have a series, the alerts of what is wrong
// fire and no others, and every question of the dashboard have an answer.
//
// Times are divided by faster: a day is 24 minutes. What the latency was a day ago is
// written into the servers' data before they start.
func TestLive(t *testing.T) {
	program := buildProbed(t)
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "probed.yml")
	write(t, file, w.configuration())
	write(t, filepath.Join(filepath.Dir(file), "found.yml"), w.found())
	probed := start(t, w.probe, "127.0.0.1:10965", program, "--config.file="+file)
	history := w.yesterday(time.Now())
	servers := []*prometheus{
		startPrometheus(t, w.probe, "native", "127.0.0.1:9090", history, "--enable-feature=native-histograms"),
		startPrometheus(t, w.probe, "classic", "127.0.0.1:9091", history),
	}

	reload := func(configuration string) {
		write(t, file, configuration)
		if err := probed.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range servers {
		lab.Eventually(t, 10*time.Second, func() error { return p.has("probed_config_last_reload_success_timestamp_seconds") })
	}
	reload(w.configuration())
	for _, p := range servers {
		lab.Eventually(t, 10*time.Second, func() error {
			return p.has("changes(probed_config_last_reload_success_timestamp_seconds[1m]) > 0")
		})
	}
	// What is in force stays, and the alert says that it is not what is in the file.
	reload("jobs: 7\n")

	t.Run("histograms", func(t *testing.T) { w.histograms(t, servers[0], servers[1]) })
	for _, p := range servers {
		t.Run("recorded/"+p.name, func(t *testing.T) { p.recorded(t) })
	}
	for _, p := range servers {
		t.Run("alerts/"+p.name, func(t *testing.T) { w.alerts(t, p) })
	}
	t.Run("dashboard", func(t *testing.T) {
		answerDashboard(t, w, servers)
		linkToPage(t, w, probed)
	})
	for _, p := range servers {
		if err := p.healthy(); err != nil {
			t.Error(err)
		}
	}
}

// yesterday is what the rules recorded a day ago of one target, in OpenMetrics' text:
// a tenth of a millisecond, which is no longer true.
func (w *world) yesterday(now time.Time) string {
	var b strings.Builder
	for _, name := range []string{"p50", "mean"} {
		fmt.Fprintf(&b, "# TYPE target:probed_handshake_rtt_seconds:%s_rate20m gauge\n", name)
		day := now.Add(-24 * time.Hour / faster)
		for at := day.Add(-2 * time.Minute); at.Before(day.Add(5 * time.Minute)); at = at.Add(time.Second) {
			fmt.Fprintf(&b, "target:probed_handshake_rtt_seconds:%s_rate20m{job=%q,instance=%q,job_name=%q,target=%q,module=%q,team=%q} 0.0001 %.3f\n",
				name, "probed", "127.0.0.1:10965", "edge", w.at(healthy), "half_open", "core", float64(at.UnixMilli())/1e3)
		}
	}
	b.WriteString("# EOF\n")
	return b.String()
}

// histograms shows that one server has native ones and no others, and the other
// classic ones, and that the rules get the same out of both: the link's round trip.
func (w *world) histograms(t *testing.T, native, classic *prometheus) {
	with := fmt.Sprintf("{job_name=%q,target=%q}", "edge", w.at(healthy))
	count := func() error { return native.has("histogram_count(probed_handshake_rtt_seconds" + with + ") > 20") }
	lab.Eventually(t, 30*time.Second, count)
	buckets := "probed_handshake_rtt_seconds_bucket" + with
	lab.Eventually(t, 30*time.Second, func() error { return classic.has(buckets) })
	if err := native.has(buckets); err == nil {
		t.Error("native: it has classic buckets too, so that the rules' second half would not be needed")
	}
	if err := classic.has("histogram_count(probed_handshake_rtt_seconds" + with + ")"); err == nil {
		t.Error("classic: it has native histograms too")
	}
	for _, p := range []*prometheus{native, classic} {
		for _, record := range []string{"p50", "mean"} {
			lab.Eventually(t, 30*time.Second, func() error {
				return p.has(fmt.Sprintf("target:probed_handshake_rtt_seconds:%s_rate20m%s > %f < 0.025", record, with, (2 * delay).Seconds()))
			})
		}
	}
}

// recorded waits until every recording rule has a series.
func (p *prometheus) recorded(t *testing.T) {
	all, err := p.rules()
	if err != nil {
		t.Fatal(err)
	}
	var records int
	for _, r := range all {
		if r.Type == "recording" {
			records++
			lab.Eventually(t, 30*time.Second, func() error { return p.has(r.Name) })
		}
	}
	if want := strings.Count(read(t, deployed+"rules.yml"), "- record:"); records != want {
		t.Errorf("%d recording rules are loaded, want %d", records, want)
	}
	if want := strings.Count(read(t, deployed+"alerts.yml"), "- alert:"); len(all)-records != want {
		t.Errorf("%d alerts are loaded, want %d", len(all)-records, want)
	}
}

// alerts waits until the alerts of all that is wrong fire, and looks for others.
func (w *world) alerts(t *testing.T, p *prometheus) {
	us := "127.0.0.1:10965"
	want := map[string]string{ // and what the description has
		"ProbedTargetDown edge " + w.at(silent):               "end as timeout",
		"ProbedLossHigh edge " + w.at(loses):                  "%",
		"ProbedLoss edge " + w.at(loses):                      "%",
		"ProbedLoss paths " + w.at(paths):                     "%",
		"ProbedFlowsFailing paths " + w.at(paths):             "1 of the source ports",
		"ProbedLatencyRegression edge " + w.at(healthy):       "ms",
		"ProbedNotResolved names no-such-host.invalid:88":     "",
		"ProbedResets web " + w.at(resets):                    "100%",
		"ProbedCloseWaitLeak web " + w.at(leaks):              "100%",
		"ProbedCloseFailing hang " + w.at(idles):              "peer_never_closed",
		"ProbedTimeWaitReuseRefused refused " + w.at(hangsUp): "challenge_ack",
		"ProbedInstanceDown " + nobody:                        "",
		"ProbedConfigReloadFailed " + us:                      "",
		"ProbedDiscoveryFailing " + us:                        "",
		"ProbedTargetsInvalid found " + us:                    "1 of",
		"ProbedDiscarding " + us:                              "send_error",
		"ProbedTargetUnseen nowhere 198.19.0.1:80":            "of the last 15 minutes",
		"ProbedProbeFailing " + w.at(silent):                  "the last as timeout",
	}
	// A busy machine, and that says so.
	ours := []string{"ProbedLate " + us, "ProbedSkipping " + us}

	var firing map[string]alert
	began := time.Now()
	lab.Eventually(t, 90*time.Second, func() (err error) {
		if firing, err = p.firing(); err != nil {
			return err
		}
		var missing []string
		for name := range want {
			if _, ok := firing[name]; !ok {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return errors.New("not firing: " + strings.Join(missing, ", "))
		}
		return nil
	})
	t.Logf("%d alerts fire, after another %v: %s", len(firing), time.Since(began).Round(time.Second),
		strings.Join(slices.Sorted(maps.Keys(firing)), ", "))
	for name, a := range firing {
		text := a.Annotations["description"]
		switch part, ok := want[name]; {
		case slices.Contains(ours, name):
		case !ok:
			t.Errorf("%s fires: %s", name, text)
		case !strings.Contains(text, part) || strings.Contains(text, "error calling"):
			t.Errorf("%s says %q, and not %q", name, text, part)
		}
	}
}

// linkToPage follows the dashboard's link from a target to probed's own page.
func linkToPage(t *testing.T, w *world, probed *server) {
	page, err := probed.get("/?q=target%3D%22" + url.QueryEscape(w.at(healthy)) + "%22")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), w.at(healthy)) || strings.Contains(string(page), w.at(silent)) {
		t.Errorf("the page does not show %s, or not alone", w.at(healthy))
	}
	if link := `/?q=target%3D%22${__data.fields.target:percentencode}%22`; !strings.Contains(read(t, "../../deploy/grafana/probed.json"), link) {
		t.Errorf("the dashboard has no link %s", link)
	}
}
