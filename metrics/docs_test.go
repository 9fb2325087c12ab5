package metrics

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// docs/metrics.md lists every metric, and nothing else.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(probed_[a-z_]+)`").FindAllSubmatch(page, -1) {
		documented = append(documented, string(m[1]))
	}
	var exported []string
	for _, f := range allFamilies() {
		exported = append(exported, f.name)
	}
	for _, name := range exported {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(exported, name) {
			t.Errorf("%s is in docs/metrics.md and not exported", name)
		}
	}
}
