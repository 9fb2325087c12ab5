package bench

import (
	"fmt"
	"strings"
)

// Page is a page with new text between the two comments that mark its place.
func Page(page, place, text string) (string, error) {
	begin, end := "<!-- "+place+" -->\n", "<!-- end of "+place+" -->\n"
	before, rest, ok := strings.Cut(page, begin)
	if !ok {
		return "", fmt.Errorf("no %q", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("no %q", strings.TrimSpace(end))
	}
	return before + begin + text + end + after, nil
}

// About says when, where and of what results are, as Markdown.
func About(r Results) string {
	return fmt.Sprintf("%s, %s, %s × %s, %s; windows of %s.\n\n",
		r.About["date"], r.About["probed"], r.About["cores"], r.About["cpu"], r.About["kernel"], r.About["window"])
}
