package docs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLinks follows every link that stays inside the repository, to the heading.
func TestLinks(t *testing.T) {
	t.Parallel()
	followed := 0
	for _, p := range every(t) {
		for _, target := range p.links() {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(target, "#")
			to := p
			if file != "" {
				file = path.Join(path.Dir(p.path), file)
				if _, err := os.Stat(filepath.Join(root, file)); err != nil {
					t.Errorf("%s: %s: %v", p.path, target, errors.Unwrap(err))
					continue
				}
				if anchor != "" {
					to = read(t, file)
				}
			}
			if anchor != "" && !slices.Contains(to.anchors(), anchor) {
				t.Errorf("%s: %s: there is no such heading", p.path, target)
			}
		}
	}
	if followed < 50 {
		t.Errorf("only %d links were followed", followed)
	}
}

// TestPagesAreListed has every page of docs/ in the README's list.
func TestPagesAreListed(t *testing.T) {
	t.Parallel()
	for _, readme := range []string{"README.md", "README.zh-CN.md"} {
		if _, err := os.Stat(filepath.Join(root, readme)); err != nil {
			t.Errorf("%s: %v", readme, err)
			continue
		}
		listed := read(t, readme).links()
		for _, p := range every(t) {
			if strings.HasPrefix(p.path, "docs/") && !slices.Contains(listed, p.path) {
				t.Errorf("%s has no link to %s", readme, p.path)
			}
		}
	}
}

// ours begins a path in the repository that a page names in its text.
var ours = regexp.MustCompile(`^(?:\./)?((?:cmd|config|deploy|docs|internal|metrics|probe|rawsock)/[\w./-]*)$`)

// TestPathsAreThere looks for the files and folders that pages name without a link.
func TestPathsAreThere(t *testing.T) {
	t.Parallel()
	named := 0
	for _, p := range every(t) {
		if p.path == "CHANGELOG.md" {
			continue // what it names may be gone since
		}
		for _, span := range p.spans {
			m := ours.FindStringSubmatch(span)
			if m == nil {
				continue
			}
			named++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s: %v", p.path, span, errors.Unwrap(err))
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d paths were found", named)
	}
}

// testName is the name of a test, or the beginning of some as -run takes it.
var testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)

// TestTestsAreThere looks for the tests that pages give as evidence.
func TestTestsAreThere(t *testing.T) {
	t.Parallel()
	var names []string
	inTests(t, regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`), func(_, name string) { names = append(names, name) })
	for _, p := range every(t) {
		if p.path == "CHANGELOG.md" {
			continue
		}
		for _, span := range p.spans {
			for _, name := range testName.FindAllString(span, -1) {
				if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, name) }) {
					t.Errorf("%s names %s: there is no such test", p.path, name)
				}
			}
		}
	}
}

// TestSeedsAreThere: docs/trust.md says that each target of fuzzing has seeds beside it.
func TestSeedsAreThere(t *testing.T) {
	t.Parallel()
	found := 0
	inTests(t, regexp.MustCompile(`(?m)^func (Fuzz[A-Z]\w*)\(`), func(path, name string) {
		found++
		if seeds, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "testdata", "fuzz", name)); len(seeds) == 0 {
			t.Errorf("%s: %s has no seed in testdata/fuzz", path, name)
		}
	})
	if found < 10 {
		t.Fatalf("%d targets", found)
	}
}

// inTests calls fn for each function of the tests' files whose name a pattern finds.
func inTests(t *testing.T, function *regexp.Regexp, fn func(path, name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			fn(path, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
