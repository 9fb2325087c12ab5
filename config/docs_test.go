package config

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v2"
)

// TestDiscoveryPage asserts that the examples of docs/discovery.md are right: each
// is a configuration, or a file of target groups.
func TestDiscoveryPage(t *testing.T) {
	page, err := os.ReadFile("../docs/discovery.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(examples) < 5 {
		t.Errorf("%d examples", len(examples))
	}
	for _, e := range examples {
		if strings.HasPrefix(e[1], "- targets:") {
			var gs []*targetgroup.Group
			if err := yaml.UnmarshalStrict([]byte(e[1]), &gs); err != nil {
				t.Errorf("%v\n%s", err, e[1])
			}
		} else if _, err := Parse("discovery.md", []byte(e[1])); err != nil {
			t.Errorf("%v\n%s", err, e[1])
		}
	}
}
