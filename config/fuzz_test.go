package config

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	promyaml "go.yaml.in/yaml/v2"
	"gopkg.in/yaml.v3"
)

// FuzzRelabel has one rule of any kind read by us and by Prometheus, and a target of any
// labels go through both. We may refuse what Prometheus takes, and never take what it
// refuses; and what both take makes the same target.
func FuzzRelabel(f *testing.F) {
	f.Add("replace", "a,b", ";", "(.*);(.*)", "c_$1", "${2}x", uint64(0), "x", "y")
	f.Add("labelmap", "", "", "__meta_(.+)", "", "$1_z", uint64(0), "x", "y")
	f.Add("hashmod", "a", ";", "", "shard", "", uint64(7), "x", "")
	f.Add("keepequal", "a", "", "", "b", "", uint64(0), "x", "x")
	f.Add("Drop", "__address__", ";", "a:[0-9]+", "", "", uint64(0), "", "")
	f.Add("labelkeep", "", "", "__.*|a", "", "", uint64(0), "x", "y")
	f.Add("replace", "a", ";", "(.+)", "__address__", "$1", uint64(0), "198.18.0.1:80", "y")
	f.Add("uppercase", "a", ";", "", "a", "", uint64(0), "ß", "y")
	f.Fuzz(func(t *testing.T, action, source, separator, regex, target, replacement string, modulus uint64, a, b string) {
		rule := map[string]any{"action": action}
		for key, value := range map[string]string{"separator": separator, "regex": regex, "target_label": target, "replacement": replacement} {
			if value != "" {
				rule[key] = value
			}
		}
		if source != "" {
			rule["source_labels"] = strings.Split(source, ",")
		}
		if modulus != 0 {
			rule["modulus"] = modulus
		}
		if !utf8.ValidString(action + source + separator + regex + target + replacement + a + b) {
			return // no YAML
		}
		rules := []any{rule}
		ours, err := yaml.Marshal(map[string]any{"jobs": []any{map[string]any{
			"name": "j", "file_sd_configs": []any{map[string]any{"files": []string{"x.yml"}}}, "relabel_configs": rules,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse("f", ours)
		if err != nil {
			return
		}
		theirs, err := yaml.Marshal(map[string]any{"relabel_configs": rules})
		if err != nil {
			t.Fatal(err)
		}
		var prometheus asPrometheus
		if err := promyaml.UnmarshalStrict(theirs, &prometheus); err != nil {
			t.Fatalf("Prometheus refuses %s: %v", theirs, err)
		}
		for _, r := range prometheus.Relabel {
			if err := r.Validate(model.LegacyValidation); err != nil {
				t.Fatalf("Prometheus refuses %s: %v", theirs, err)
			}
		}
		own := map[string]string{model.AddressLabel: "a:1", "a": a, "b": b, "__meta_x": b}
		set := make(model.LabelSet)
		for name, value := range own {
			set[model.LabelName(name)] = model.LabelValue(value)
			if value == "" {
				delete(own, name)
			}
		}
		// Three labels stand before the rules that Prometheus does not have.
		own[moduleLabel], own[intervalLabel], own[timeoutLabel] = "half_open", "1s", "900ms"
		builder := promlabels.NewBuilder(promlabels.FromMap(own))
		keep := relabel.ProcessBuilder(builder, prometheus.Relabel...)
		x := c.Expand(map[string][]*targetgroup.Group{"j": {{Source: "s", Targets: []model.LabelSet{set}}}})
		if dropped := x.Jobs[0].Dropped == 1; dropped == keep {
			t.Fatalf("%s: dropped %v, by Prometheus %v; %v", theirs, dropped, !keep, x.Problems)
		}
		if len(x.Targets) != 1 {
			return // dropped, or not to be probed
		}
		y := &x.Targets[0]
		check(t, y)
		want := make(map[string]string)
		builder.Labels().Range(func(l promlabels.Label) {
			if !strings.HasPrefix(l.Name, "__") {
				want[l.Name] = l.Value
			}
		})
		for _, l := range y.Labels {
			if want[l.Name] != l.Value {
				t.Errorf("%s: %s is %q, by Prometheus %q", theirs, l.Name, l.Value, want[l.Name])
			}
			delete(want, l.Name)
		}
		if len(want) > 0 || y.Address != builder.Get(model.AddressLabel) {
			t.Errorf("%s: %s lacks %q", theirs, y.Address, want)
		}
	})
}

// FuzzWords reads any text as an address and as a duration: what is read is what it
// reads as again in its canonical form, and what is not is said in words that can be
// shown.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{"a:1", "[2001:db8::1]:443", "198.18.0.1:80", "[fe80::1%eth0]:22", "u:p@h:1", "1m30s", "0", "-1s", "1.5s", "292y", "30h", "9ms", "24h", "10000000w", "0x7f.1:1", "::1:80", "é:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s)
		if err != nil {
			if text := err.Error(); len(text) > 2000+8*len(s) || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
				t.Errorf("%q", text)
			}
		} else {
			host := e.Host
			if e.IP.Is6() {
				host = "[" + host + "]"
			}
			again, err := ParseEndpoint(fmt.Sprintf("%s:%d", host, e.Port))
			if err != nil || again.Host != e.Host || again.IP != e.IP || again.Port != e.Port || e.Address != s {
				t.Errorf("%+v, then %+v, %v", e, again, err)
			}
			if e.Port == 0 || e.IP.IsValid() && NotUnicast(e.IP) != "" || strings.ContainsFunc(e.Host, func(r rune) bool { return !strconv.IsPrint(r) || r == ' ' }) && e.IP.Zone() == "" {
				t.Errorf("%+v", e)
			}
		}
		const least, most = 10 * time.Millisecond, 24 * time.Hour
		d, wrong := parseDuration(s, least, most)
		p, err := model.ParseDuration(s)
		switch {
		case wrong == "":
			if err != nil || time.Duration(p) != d || d < least || d > most {
				t.Errorf("%q is %v, by Prometheus %v, %v", s, d, p, err)
			}
			if again, wrong := parseDuration(model.Duration(d).String(), least, most); again != d || wrong != "" {
				t.Errorf("%v, then %v: %s", d, again, wrong)
			}
		case err == nil && time.Duration(p) >= least && time.Duration(p) <= most:
			t.Errorf("%q: %s, and Prometheus takes it", s, wrong)
		}
	})
}
