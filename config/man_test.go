package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The lines of probed.yml(5) that the keys are between.
const (
	manBegin = `.\" keys: written by go test ./config -run TestManPage -update` + "\n"
	manEnd   = `.\" keys: end` + "\n"
)

// TestManPage holds probed.yml(5) against the tables.
func TestManPage(t *testing.T) {
	const page = "../deploy/package/probed.yml.5"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), manBegin)
	_, tail, ok2 := strings.Cut(rest, manEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", page, manBegin, manEnd)
	}
	var b strings.Builder
	section := ""
	for _, k := range reference() {
		dot := strings.LastIndexByte(k.Path, '.')
		if k.Path[:dot] != section {
			section = k.Path[:dot]
			fmt.Fprintf(&b, ".SH \"%s\"\n", roff(strings.ToUpper(section)))
		}
		fmt.Fprintf(&b, ".TP\n.B %s\n", roff(k.Path[dot+1:]))
		if k.Kinds != nil {
			fmt.Fprintf(&b, "%s.\n", roff(kindNames(k.Kinds)))
		}
		fmt.Fprintf(&b, "%s\n", roff(k.Doc))
		fmt.Fprintf(&b, ".br\nAllowed: %s.", roff(k.allowed()))
		if by := k.byDefault(); k.Required {
			b.WriteString(" Required.")
		} else if by != "" {
			fmt.Fprintf(&b, " Default: %s.", roff(by))
		}
		b.WriteString("\n")
	}
	golden(t, page, head+manBegin+b.String()+manEnd+tail)
}

// roff writes text for a manual page, without Markdown's marks for code.
func roff(text string) string {
	text = strings.NewReplacer("`", "", `\`, `\e`, "-", `\-`, `"`, `\(dq`, "\n", " ", "…", "...", "≥", ">=").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
