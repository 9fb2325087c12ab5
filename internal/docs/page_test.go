package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the folder of the repository, from here.
const root = "../.."

// A page is a Markdown file.
type page struct {
	path     string // from the root
	prose    string // without its code
	blocks   []block
	headings []heading
	spans    []string // inline code
}

// A block is fenced code.
type block struct{ info, text string }

type heading struct {
	level int
	text  string
}

// codeSpan is inline code, which may go over the end of a line.
var codeSpan = regexp.MustCompile("(?s)``+ ?(.+?) ?``+|`([^`]+)`")

// read takes a page apart.
func read(t *testing.T, path string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{path: path}
	var prose, code strings.Builder
	fence, info := "", ""
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimSpace(line)
		mark := trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "`"))]
		switch {
		case fence == "" && len(mark) >= 3:
			fence, info = mark, trimmed[len(mark):]
			code.Reset()
		case fence != "" && trimmed == fence:
			p.blocks = append(p.blocks, block{info, code.String()})
			fence = ""
		case fence != "":
			code.WriteString(line)
		default:
			prose.WriteString(line)
			if level := len(line) - len(strings.TrimLeft(line, "#")); level > 0 && level < len(line) && line[level] == ' ' {
				p.headings = append(p.headings, heading{level, strings.TrimSpace(line[level:])})
			}
		}
	}
	if fence != "" {
		t.Errorf("%s: a code block does not end", path)
	}
	for _, m := range codeSpan.FindAllStringSubmatch(prose.String(), -1) {
		p.spans = append(p.spans, m[1]+m[2])
	}
	p.prose = codeSpan.ReplaceAllString(prose.String(), "code")
	return p
}

// link is one of [text](target), of a picture too.
var link = regexp.MustCompile(`\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)`)

// links returns where a page points to, in order.
func (p *page) links() (targets []string) {
	for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// anchors are the fragments by which GitHub finds a page's headings: in lower case,
// without punctuation, a hyphen for each space, and a number behind the second that
// would be the same.
func (p *page) anchors() (all []string) {
	seen := make(map[string]int)
	for _, h := range p.headings {
		text := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(h.text, "$1")
		var b strings.Builder
		for _, r := range strings.ToLower(text) {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				b.WriteRune(r)
			case r == ' ':
				b.WriteByte('-')
			}
		}
		anchor := b.String()
		n := seen[anchor]
		seen[anchor]++
		if n > 0 {
			anchor += "-" + string(rune('0'+n))
		}
		all = append(all, anchor)
	}
	return all
}

// every reads all pages: those at the root and those in docs/.
func every(t *testing.T) (pages []*page) {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(path), root+"/"))
		}
	}
	if !slices.Contains(paths, "README.md") || len(paths) < 10 {
		t.Fatalf("found the pages %v", paths)
	}
	for _, path := range paths {
		pages = append(pages, read(t, path))
	}
	return pages
}
