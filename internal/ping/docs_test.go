package ping_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/probed/probed/internal/ping"
)

// TestDocs: docs/ping.md names every field of the summary, and the figures that it
// promises.
func TestDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/ping.md")
	if err != nil {
		t.Fatal(err)
	}
	_, schema, ok := strings.Cut(string(text), "\n## --json\n")
	if !ok {
		t.Fatal("docs/ping.md has no section --json")
	}
	for _, of := range []any{ping.SummaryJSON{}, ping.FigureJSON{}, ping.BinJSON{}, ping.FlowJSON{}} {
		typ := reflect.TypeOf(of)
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(schema, "`"+name+"`") {
				t.Errorf("%s.%s: docs/ping.md does not have `%s`", typ.Name(), typ.Field(i).Name, name)
			}
		}
	}
	if n := fmt.Sprintf("%d,%03d,%03d", ping.MaxExact/1_000_000, ping.MaxExact/1000%1000, ping.MaxExact%1000); !strings.Contains(string(text), n) {
		t.Errorf("docs/ping.md does not say that %s durations are exact", n)
	}
}
