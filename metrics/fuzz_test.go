package metrics

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/probed/probed/probe"
)

// FuzzExposition exports a target of any labels to a client that accepts anything.
// Prometheus's own reader reads what comes, promtool's rules find nothing, and the
// labels are those that went in.
func FuzzExposition(f *testing.F) {
	const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	f.Add("edge", "198.18.0.1:443", "half_open", "", "team", "core", "", "")
	f.Add("say \"B\"\\\n", "a\xffb", "\x00", "2001:db8::1", "le", "5", "text/plain;version=0.0.4", "gzip")
	f.Add("", "", "", "", "target", "mine\r\n# HELP x", protobuf, "identity")
	f.Add("j", "{a=\"b\"} 1", "m", "", "exported_target", "\u2028\ufeff", protobuf+";escaping=allow-utf-8", "br, gzip;q=0.1")
	f.Add("j", "t", "m", "", "__name__", "x", "application/openmetrics-text; version=1.0.0", "gzip;q=0")
	f.Fuzz(func(t *testing.T, job, target, module, ip, name, value, accept, encoding string) {
		m := New(Options{Version: value, Revision: target, SkipReasons: []string{"late"}})
		m.Discovery([]Discovered{{job, 1, 0}})
		labels := Labels{Job: job, Target: target, Module: module, IP: ip, Extra: map[string]string{name: value}}
		x, err := m.AddTarget(labels, TargetOptions{Kind: probe.ActiveClose, Flows: 3})
		if good := model.LegacyValidation.IsValidLabelName(name) && !strings.HasPrefix(name, "__"); good != (err == nil) {
			t.Fatalf("%q: %v", name, err)
		}
		if err == nil {
			if _, err := m.AddTarget(labels, TargetOptions{}); !errors.Is(err, ErrDuplicate) {
				t.Errorf("twice: %v", err)
			}
			for _, o := range answered(time.Duration(len(value)) * time.Millisecond) {
				x.Observe(&o)
			}
		}
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header["Accept"], r.Header["Accept-Encoding"] = []string{accept}, []string{encoding}
		w := httptest.NewRecorder()
		m.Handler(nil).ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		body := w.Body.Bytes()
		if w.Header().Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		format := expfmt.ResponseFormat(w.Header())
		found := false
		for d := expfmt.NewDecoder(bytes.NewReader(body), format); ; {
			var family dto.MetricFamily
			err := d.Decode(&family)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			if family.GetName() == "probed_probes_total" {
				found = true
				sameLabels(t, family.Metric, &labels)
			}
		}
		if found != (err == nil) {
			t.Errorf("its series are there: %v; added: %v", found, err)
		}
		if format.FormatType() == expfmt.TypeTextPlain {
			problems, err := promlint.New(bytes.NewReader(body)).Lint()
			problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool {
				return name != strings.ToLower(name) && strings.Contains(p.Text, "camelCase") // whose label it is
			})
			if err != nil || len(problems) > 0 {
				t.Errorf("promtool says %v, %v", problems, err)
			}
		}
	})
}

// sameLabels holds a target's labels to what they were, by Prometheus's rules: none is
// empty, and none is not UTF-8.
func sameLabels(t *testing.T, all []*dto.Metric, l *Labels) {
	want := map[string]string{"job_name": l.Job, "target": l.Target, "module": l.Module, "ip": l.IP}
	for name, value := range l.Extra {
		want[l.exported(name)] = value
	}
	if len(all) != 1 {
		t.Fatalf("%d series", len(all))
	}
	got := make(map[string]string)
	for _, p := range all[0].Label {
		if _, twice := got[p.GetName()]; twice {
			t.Errorf("%s is there twice", p.GetName())
		}
		got[p.GetName()] = p.GetValue()
	}
	for name, value := range want {
		if value = strings.ToValidUTF8(value, "\uFFFD"); got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also %q", got)
	}
}
