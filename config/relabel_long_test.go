package config_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/probed/probed/config"
)

// What discovery gives is held to less, before any rule: Prometheus's library panics at
// one of more than 16 MiB, which an answer of an HTTP server has room for.
func TestDiscoveredLong(t *testing.T) {
	c, err := config.Parse("a.yml", []byte(`jobs: [{name: a, http_sd_configs: [{url: "http://h"}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{256<<10 + 1, 1 << 24, 1<<24 + 1} {
		long := strings.Repeat("a", n)
		for name, label := range map[string]model.LabelSet{"value": {"x": model.LabelValue(long)}, "hidden": {"__x": model.LabelValue(long)}, "name": {model.LabelName(long): "x"}} {
			for of, g := range map[string]*targetgroup.Group{
				"target": {Targets: []model.LabelSet{label.Merge(model.LabelSet{"__address__": "198.18.0.1:80"})}},
				"group":  {Targets: []model.LabelSet{{"__address__": "198.18.0.1:80"}}, Labels: label},
			} {
				e := c.Expand(map[string][]*targetgroup.Group{"a": {g}})
				if len(e.Targets) != 0 || len(e.Problems) != 1 || !strings.Contains(e.Problems[0].Reason, "longer than 256 KiB") || len(e.Problems[0].Reason) > 1000 {
					t.Errorf("%s of %d octets of a %s: %d targets, %d problems", name, n, of, len(e.Targets), len(e.Problems))
				}
			}
		}
	}
}

// What discovery gives besides what a target is probed with is not kept of each.
func TestDiscoveredIsNotKept(t *testing.T) {
	const n, octets = 1000, 50_000
	c, err := config.Parse("a.yml", []byte(`jobs: [{name: a, http_sd_configs: [{url: "http://h"}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	g := &targetgroup.Group{Labels: model.LabelSet{"__meta_long": model.LabelValue(strings.Repeat("a", octets)), "rack": "1"}}
	for i := range n {
		g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(fmt.Sprintf("198.18.%d.%d:80", i/250, i%250+1))})
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	e := c.Expand(map[string][]*targetgroup.Group{"a": {g}})
	kept := int64(live() - before)
	if len(e.Targets) != n || kept > n*octets/10 {
		t.Errorf("%d targets keep %d octets", len(e.Targets), kept)
	}
	runtime.KeepAlive(e)
}

// Rules that make a label several times itself, one after the other, end in an error while
// there is memory yet.
func TestRelabelLong(t *testing.T) {
	for _, label := range []string{"l", "$1"} {
		rule := `{source_labels: [l, l, l, l], separator: "", target_label: l}`
		if label != "l" {
			rule = `{source_labels: [l], regex: "((a).*)", target_label: "${2}", replacement: "$1$1$1$1"}, {source_labels: [a], target_label: l}`
		}
		text := `jobs: [{name: a, targets: ["198.18.0.1:80"], labels: {l: "` + strings.Repeat("a", 1000) + `"}, relabel_configs: [` +
			strings.Repeat(rule+", ", 6) + `{action: keep, regex: ".*"}]}]`
		_, err := config.Parse("a.yml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
			e := "none"
			if err != nil {
				e = err.Error()[:min(200, len(err.Error()))]
			}
			t.Errorf("%s: error %s", label, e)
		}
	}
}

// Nor is there a rule that does it otherwise: by another action, at once, by names, or by their number.
func TestRelabelLongOtherwise(t *testing.T) {
	letters := ""
	for c := 'a'; c <= 'z'; c++ {
		letters += `{action: labelmap, regex: "(.*)", replacement: "${1}` + string(c) + `"}, `
	}
	for name, rules := range map[string]string{
		"lowercase": strings.Repeat(`{source_labels: [l, l, l, l], separator: "", target_label: l, action: lowercase}, `, 11),
		"at once":   strings.Repeat(`{source_labels: [`+strings.Repeat("l, ", 999)+`l], separator: "", target_label: l}, `, 2),
		"keep":      strings.Repeat(`{source_labels: [`+strings.Repeat("l, ", 999)+`l], separator: "", target_label: l}, `, 1) + `{source_labels: [` + strings.Repeat("l, ", 3999) + `l], action: keep}, `,
		"names":     strings.Repeat(`{action: labelmap, regex: "(l.*)", replacement: "$1$1$1$1"}, `, 15),
		"long name": `{target_label: ` + strings.Repeat("l", 1<<17) + `, replacement: x}, {action: labelmap, regex: "(lll.*)", replacement: "` + strings.Repeat("$1", 1<<15) + `"}, `, // 2^32 octets
		"number":    letters,
		"many":      `{source_labels: [l, l, l, l, l, l, l, l, l, l], separator: "", target_label: l}, ` + strings.Repeat(`{source_labels: [l, l, l, l, l, l, l, l, l, l], separator: "", target_label: __N}, `, 300),
	} {
		for i := 0; strings.Contains(rules, "__N"); i++ {
			rules = strings.Replace(rules, "__N", fmt.Sprint("__", i), 1)
		}
		text := `jobs: [{name: a, targets: ["198.18.0.1:80"], labels: {l: "` + strings.Repeat("a", 1000) + `"}, relabel_configs: [` + rules + `{target_label: l, replacement: x}]}]`
		_, err := config.Parse("a.yml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") && !strings.Contains(err.Error(), "more than 4,096 labels") && !strings.Contains(err.Error(), "more than 16 MiB") {
			e := "none"
			if err != nil {
				e = err.Error()[:min(200, len(err.Error()))]
			}
			t.Errorf("%s: error %s", name, e)
		}
	}
}
