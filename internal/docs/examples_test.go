package docs

import (
	"strings"
	"testing"

	"github.com/probed/probed/config"
)

// TestExamplesAreGood reads each example of a whole configuration as probed does.
func TestExamplesAreGood(t *testing.T) {
	t.Parallel()
	examples := 0
	for _, p := range every(t) {
		for _, b := range p.blocks {
			if b.info != "yaml" || !strings.HasPrefix(b.text, "# probed.yml") {
				continue
			}
			examples++
			if _, err := config.Parse(p.path, []byte(b.text)); err != nil {
				t.Errorf("%s: %v\n%s", p.path, err, b.text)
			}
		}
	}
	if examples < 2 {
		t.Errorf("%d examples begin with # probed.yml", examples)
	}
}
