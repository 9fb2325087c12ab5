package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func TestArchitecture(t *testing.T) {
	// The files are read here and not through `go list`, so that go's test cache
	// sees them and runs this again when one of them changes.
	root := os.DirFS("../..")
	broken, seen, err := check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
	if seen == 0 {
		t.Error("no Go file was looked at")
	}
}

// TestRules breaks each rule on purpose.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             string // "" where nothing is wrong
	}{
		{"down the table", "probe/engine/a.go", `import "github.com/probed/probed/probe/wire"`, ""},
		{"inside a room", "internal/lab/peer/a.go", `import "github.com/probed/probed/internal/lab"`, ""},
		{"a clock in the daemon", "cmd/probed/a.go", "import \"time\"\nvar t = time.Now()", ""},
		{"a duration in the conversation", "probe/a.go", "import \"time\"\nconst second = time.Second", ""},
		{"a test may use the laboratory", "rawsock/a_test.go", `import "github.com/probed/probed/internal/lab"`, ""},
		{"not ours", "metrics/a.go", `import "github.com/prometheus/client_golang/prometheus"`, ""},
		{"testdata is not code", "probe/testdata/a.go", `import "net"`, ""},

		{"up the table", "probe/wire/a.go", `import "github.com/probed/probed/probe/engine"`,
			"probe/wire/a.go:2: probe/wire imports probe/engine of ours; it may import only: probe"},
		{"the leaf imports", "rawsock/a.go", `import "github.com/probed/probed/probe"`,
			"rawsock/a.go:2: rawsock imports probe of ours; it may import nothing of ours"},
		{"below a room is that room", "probe/script/a.go", `import "github.com/probed/probed/probe/wire"`,
			"probe/script/a.go:2: probe imports probe/wire of ours; it may import nothing of ours"},
		{"a socket in the conversation", "probe/a.go", `import "net"`,
			`probe/a.go:2: probe imports "net", which is not among the packages it may import`},
		{"a module in the engine", "probe/engine/a.go", `import "golang.org/x/sys/unix"`,
			`probe/engine/a.go:2: probe/engine imports "golang.org/x/sys/unix", which is not among the packages it may import`},
		{"a clock in the conversation", "probe/a.go", "import \"time\"\nvar t = time.Now()",
			"probe/a.go:3: probe uses time.Now: time is an argument here"},
		{"a clock by another name", "probe/engine/a.go", "import clock \"time\"\nvar since = clock.Since",
			"probe/engine/a.go:3: probe/engine uses time.Since: time is an argument here"},
		{"a clock by no name", "probe/wire/a.go", "import . \"time\"\nvar t = Now()",
			`probe/wire/a.go:2: probe/wire imports "time" without its name`},
		{"the laboratory in the daemon", "cmd/probed/a.go", `import "github.com/probed/probed/internal/lab/peer"`,
			"cmd/probed/a.go:2: internal/lab is for tests only"},
		{"a folder nobody decided on", "util/a.go", "",
			"util/a.go: the folder is in no room: give it one in internal/arch/rules_test.go"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{c.file: {Data: []byte("package p\n" + c.text + "\n")}}
			broken, _, err := check(tree)
			if err != nil {
				t.Fatal(err)
			}
			switch got := strings.Join(broken, "\n"); {
			case c.want == "" && got != "":
				t.Errorf("rightly built, and yet: %s", got)
			case !strings.HasPrefix(got, c.want):
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// check reads every Go file of the tree, whatever its build tags, and returns
// what breaks a rule and how many files it read.
func check(tree fs.FS) (broken []string, seen int, err error) {
	err = fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && notOurCode(tree, name):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		seen++
		broken = append(broken, checkFile(files, name, file)...)
		return nil
	})
	return broken, seen, err
}

// notOurCode is as the go command sees it: hidden folders, test data and other
// modules are not part of this one.
func notOurCode(tree fs.FS, folder string) bool {
	base := path.Base(folder)
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(tree, path.Join(folder, "go.mod"))
	return err == nil
}

func checkFile(files *token.FileSet, name string, file *ast.File) (broken []string) {
	here := roomOf(path.Dir(name))
	if here == "" {
		return []string{name + ": the folder is in no room: give it one in internal/arch/rules_test.go"}
	}
	if strings.HasSuffix(name, "_test.go") {
		return nil
	}
	rules := rooms[here]
	report := func(pos token.Pos, format string, args ...any) {
		at := files.Position(pos)
		broken = append(broken, fmt.Sprintf("%s:%d: ", name, at.Line)+fmt.Sprintf(format, args...))
	}

	timeName := ""
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			report(spec.Pos(), "import path %s: %v", spec.Path.Value, err)
			continue
		}
		ours, isOurs := strings.CutPrefix(imported, module+"/")
		switch there := roomOf(ours); {
		case isOurs && there == here:
		case isOurs && slices.Contains(testOnly, there):
			report(spec.Pos(), "%s is for tests only", there)
		case isOurs && !slices.Contains(rules.mayImport, there):
			report(spec.Pos(), "%s imports %s of ours; it may import %s", here, ours, oneOf(rules.mayImport))
		case !isOurs && rules.others != nil && !slices.Contains(rules.others, imported):
			report(spec.Pos(), "%s imports %q, which is not among the packages it may import: see internal/arch/rules_test.go", here, imported)
		}
		if imported != "time" {
			continue
		}
		timeName = "time"
		if spec.Name != nil {
			timeName = spec.Name.Name
		}
		if rules.timeless && timeName == "." {
			report(spec.Pos(), "%s imports %q without its name", here, imported)
		}
	}

	if !rules.timeless || timeName == "" {
		return broken
	}
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == timeName && slices.Contains(clocks, selector.Sel.Name) {
			report(selector.Pos(), "%s uses time.%s: time is an argument here", here, selector.Sel.Name)
		}
		return true
	})
	return broken
}

// roomOf returns the innermost room that holds the folder, or "".
func roomOf(folder string) string {
	for ; folder != "." && folder != "" && folder != "/"; folder = path.Dir(folder) {
		if _, ok := rooms[folder]; ok {
			return folder
		}
	}
	return ""
}

func oneOf(list []string) string {
	if len(list) == 0 {
		return "nothing of ours"
	}
	return "only: " + strings.Join(list, ", ")
}
