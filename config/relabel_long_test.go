package config_test

import (
	"strings"
	"testing"

	"github.com/probed/probed/config"
)

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
		"number":    letters,
	} {
		text := `jobs: [{name: a, targets: ["198.18.0.1:80"], labels: {l: "` + strings.Repeat("a", 1000) + `"}, relabel_configs: [` + rules + `]}]`
		_, err := config.Parse("a.yml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") && !strings.Contains(err.Error(), "more than 4,096 labels") {
			e := "none"
			if err != nil {
				e = err.Error()[:min(200, len(err.Error()))]
			}
			t.Errorf("%s: error %s", name, e)
		}
	}
}
