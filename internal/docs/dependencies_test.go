package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probed/probed/internal/tools/licence"
)

// A dependency is a row of docs/dependencies.md.
type dependency struct{ licence, where, why string }

// dependencies reads the rows of a page's tables that begin with a module in code, by their
// heading.
func dependencies(t *testing.T) map[string]map[string]dependency {
	text, err := os.ReadFile(filepath.Join(root, "docs/dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[string]dependency)
	heading := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
			all[heading] = make(map[string]dependency)
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) != 4 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name := strings.Trim(cells[0], "`")
		if _, twice := all[heading][name]; twice {
			t.Errorf("%s is there twice", name)
		}
		all[heading][name] = dependency{cells[1], cells[2], cells[3]}
	}
	return all
}

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// TestDependencies: every module that go.mod requires has its row, with the reason for
// it, its licence as its own text has it, and whether it is in the binary; and there
// are no others.
func TestDependencies(t *testing.T) {
	t.Parallel()
	var mod struct {
		Require []struct {
			Path, Version string
			Indirect      bool
		}
	}
	if err := json.Unmarshal([]byte(goTool(t, "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	linked := make(map[string]bool)
	for path := range strings.Lines(goTool(t, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/probed")) {
		linked[strings.TrimSpace(path)] = true
	}
	tables := dependencies(t)
	for _, m := range mod.Require {
		heading := "Ours to choose"
		if m.Indirect {
			heading = "What they bring"
		}
		row, ok := tables[heading][m.Path]
		if !ok {
			t.Errorf("docs/dependencies.md, %s: %s has no row; add one that says why it is needed", heading, m.Path)
			continue
		}
		delete(tables[heading], m.Path)
		if len(row.why) < 5 {
			t.Errorf("%s: why? %q", m.Path, row.why)
		}
		if where := map[bool]string{true: "binary", false: "tests"}[linked[m.Path]]; row.where != where {
			t.Errorf("%s is in: %s, not %s", m.Path, where, row.where)
		}
		var module struct{ Dir string }
		if err := json.Unmarshal([]byte(goTool(t, "mod", "download", "-json", m.Path)), &module); err != nil {
			t.Fatal(err)
		}
		if is, err := licence.Of(module.Dir); err != nil || is != row.licence {
			t.Errorf("%s: its licence is %s, not %s; %v", m.Path, is, row.licence, err)
		}
	}
	for _, table := range tables {
		for name := range table {
			t.Errorf("docs/dependencies.md: go.mod does not require %s", name)
		}
	}
}
