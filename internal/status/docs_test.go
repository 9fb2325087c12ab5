package status

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
)

// docs/api.md has a table of every object's fields, and no field that is not there.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := fieldTables(string(text))
	for heading, object := range map[string]any{
		"A list of targets":           targetsJSON{},
		"A target":                    targetJSON{},
		"Details of a target":         detailJSON{},
		"A flow of a target":          flowJSON{},
		"Totals":                      totalsJSON{},
		"Peer":                        peerJSON{},
		"A change of the fingerprint": peerChangeJSON{},
		"A list of samples":           samplesJSON{},
		"A sample":                    sampleJSON{},
		"A list of transcripts":       transcriptsJSON{},
		"A conversation":              show.ConversationJSON{},
		"A fingerprint":               show.FingerprintJSON{},
		"A step":                      show.StepJSON{},
		"A segment":                   show.SegmentJSON{},
		"An ICMP error":               show.ICMPJSON{},
		"An event":                    update{},
		"A summary":                   ping.SummaryJSON{},
		"A spread":                    ping.FigureJSON{},
		"A bin":                       ping.BinJSON{},
		"A flow":                      ping.FlowJSON{},
	} {
		if got, want := tables[heading], fieldsOf(reflect.TypeOf(object)); !slices.Equal(got, want) {
			t.Errorf("%s: docs/api.md has\n%q\nand the object\n%q", heading, got, want)
		}
		delete(tables, heading)
	}
	if got, want := tables["A row"], slices.Concat(fieldsOf(reflect.TypeOf(change{})), fieldsOf(reflect.TypeOf(cells{}))); !slices.Equal(got, want) {
		t.Errorf("a row: docs/api.md has\n%q\nand the object\n%q", got, want)
	}
	delete(tables, "A row")
	for heading := range tables {
		t.Errorf("docs/api.md has a table of fields under %q, and no object is that", heading)
	}
}

// Links within docs/api.md lead somewhere.
func TestDocsLinks(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		anchors[regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if !anchors[strings.ReplaceAll(m[1], "-", " ")] {
			t.Errorf("#%s leads nowhere", m[1])
		}
	}
}

// fieldTables returns the fields in the tables of fields, by the heading above.
func fieldTables(text string) map[string][]string {
	tables := make(map[string][]string)
	heading, within := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if h, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); is && strings.HasPrefix(line, "#") {
			heading = h
		}
		switch {
		case line == "| field | |":
			within = true
		case !strings.HasPrefix(line, "|"):
			within = false
		case within && strings.HasPrefix(line, "| `"):
			tables[heading] = append(tables[heading], strings.SplitN(line, "`", 3)[1])
		}
	}
	return tables
}

// fieldsOf are the names of an object's own fields in JSON.
func fieldsOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if f := t.Field(i); !f.Anonymous {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}
