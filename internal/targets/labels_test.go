package targets

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/probed/probed/config"
	"github.com/probed/probed/metrics"
)

// A label that the metrics use for themselves is refused by the configuration,
// and no other is. Each of the two packages has a list. Whatever is on one is a
// string in the package's source, so every such string is tried on both.
func TestReservedLabelsAgree(t *testing.T) {
	reserved := 0
	for name := range words(t, "../../config", "../../metrics") {
		_, err := config.Parse("f", []byte("jobs: [{name: j, labels: {"+name+": x}, targets: [\"198.18.0.1:80\"]}]"))
		renamed := exportedAs(t, name) != name
		if refused := err != nil; refused != renamed {
			t.Errorf("label %s: the configuration refuses it: %v (%v); the metrics rename it: %v", name, refused, err, renamed)
		}
		if renamed {
			reserved++
		}
	}
	if reserved < 15 {
		t.Errorf("only %d reserved labels were tried", reserved)
	}
}

// words are the strings in the Go files of some directories, less tests, that
// can be names of labels.
func words(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`"([a-z][a-z_]*)"`).FindAllSubmatch(source, -1) {
				all[string(m[1])] = true
			}
		}
	}
	return all
}

// exportedAs is the name under which the metrics export a target's label.
func exportedAs(t *testing.T, name string) string {
	t.Helper()
	m := metrics.New(metrics.Options{})
	if _, err := m.AddTarget(metrics.Labels{Extra: map[string]string{name: "x"}}, metrics.TargetOptions{}); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := m.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "exported_"+name+`="x"`) {
		return "exported_" + name
	}
	if !strings.Contains(text.String(), name+`="x"`) {
		t.Fatalf("no label %s in\n%s", name, &text)
	}
	return name
}
