package docs

import (
	"slices"
	"strings"
	"testing"
)

// TestChineseReadme holds the Chinese README against the English one: whoever changes
// one has to look at the other. What programs print stays as it is.
func TestChineseReadme(t *testing.T) {
	t.Parallel()
	english, chinese := read(t, "README.md"), read(t, "README.zh-CN.md")
	if len(english.blocks) != len(chinese.blocks) {
		t.Errorf("%d code blocks, and %d in Chinese", len(english.blocks), len(chinese.blocks))
	} else {
		for i, b := range english.blocks {
			if c := chinese.blocks[i]; c != b {
				t.Errorf("code block %d is\n%sand in Chinese\n%s", i+1, b.text, c.text)
			}
		}
	}
	if e, c := levels(english), levels(chinese); !slices.Equal(e, c) {
		t.Errorf("headings of the levels %v, and in Chinese %v", e, c)
	}
	// Each links to the other, and else to the same pages in the same order.
	if e, c := english.links(), chinese.links(); len(e) == 0 || len(c) == 0 || e[0] != chinese.path || c[0] != english.path || !slices.Equal(e[1:], c[1:]) {
		t.Errorf("links to\n%q\nand in Chinese to\n%q", e, c)
	}
	// Names of metrics, flags, keys and paths are the same, though their order may not be.
	if e, c := spans(english), spans(chinese); !slices.Equal(e, c) {
		t.Errorf("inline code that is in one alone: %q", difference(e, c))
	}
	// A table's rows, and the points of a list.
	for _, mark := range []string{"|", "- "} {
		if e, c := lines(english, mark), lines(chinese, mark); e != c {
			t.Errorf("%d lines begin with %q, and %d in Chinese", e, mark, c)
		}
	}
}

func levels(p *page) (all []int) {
	for _, h := range p.headings {
		all = append(all, h.level)
	}
	return all
}

// spans are the page's inline code, each once, with its line breaks as spaces.
func spans(p *page) (all []string) {
	for _, s := range p.spans {
		all = append(all, strings.Join(strings.Fields(s), " "))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func difference(a, b []string) (alone []string) {
	for _, both := range [][2][]string{{a, b}, {b, a}} {
		for _, s := range both[0] {
			if !slices.Contains(both[1], s) {
				alone = append(alone, s)
			}
		}
	}
	return alone
}

func lines(p *page, mark string) (n int) {
	for line := range strings.Lines(p.prose) {
		if strings.HasPrefix(line, mark) {
			n++
		}
	}
	return n
}
