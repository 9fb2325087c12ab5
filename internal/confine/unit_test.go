package confine

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The unit's groups have neither seccomp(2) nor Landlock's calls: what this package
// confines by, it must name.
func TestUnitHasOurCalls(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/probed.service")
	if err != nil {
		t.Fatal(err)
	}
	var has []string
	for _, line := range regexp.MustCompile(`(?m)^SystemCallFilter=([^~].*)$`).FindAllStringSubmatch(string(unit), -1) {
		has = append(has, strings.Fields(line[1])...)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`unix\.SYS_((?:SECCOMP|LANDLOCK)\w*)`).FindAllStringSubmatch(string(text), -1) {
			found++
			if name := strings.ToLower(call[1]); !slices.Contains(has, name) {
				t.Errorf("%s makes %s, which the unit refuses: %q", file, name, has)
			}
		}
	}
	if found < 3 {
		t.Errorf("found %d such calls", found)
	}
}
