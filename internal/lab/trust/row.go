package trust

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Row is what came of one fault or attack.
type Row struct {
	Part  string `json:"part"`  // a heading of the table: "forged", "flood", "fault", "crash", "web", "rights"
	What  string `json:"what"`  // the fault or attack, in a few words
	Tried int    `json:"tried"` // how often: segments, requests, times that it was broken
	Of    string `json:"of"`    // what Tried counts: "segments", "requests", "times"

	Probes    int           `json:"probes"`             // verdicts made meanwhile
	False     int           `json:"false"`              // verdicts, or figures, that the wire doesn't bear out: must be 0
	Discarded int           `json:"discarded"`          // probes discarded or skipped as ours
	Recovery  time.Duration `json:"recovery,omitempty"` // from the fault's end to the first good probe of every target
	Left      int           `json:"left"`               // left behind at the end, here and at the peers: must be 0, or unlooked
	Note      string        `json:"note,omitempty"`     // what the metrics said, or the greatest of a figure
	Full      bool          `json:"full,omitempty"`     // at full length
	Date      string        `json:"date"`               // YYYY-MM-DD
	Version   string        `json:"version"`            // what the daemon calls itself
}

// unlooked is Row.Left where nothing could be left behind, and nobody has looked.
const unlooked = -1

// parts are the table's headings in their order.
var parts = []struct{ name, heading string }{
	{"forged", "Forged segments"},
	{"flood", "Floods"},
	{"fault", "Faults"},
	{"crash", "Crashes"},
	{"web", "Web clients"},
	{"rights", "Rights"},
}

// Read reads rows, one a line. Of several with the same Part and What the last counts.
func Read(r io.Reader) ([]Row, error) {
	var rows []Row
	at := make(map[[2]string]int)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var row Row
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		key := [2]string{row.Part, row.What}
		i, ok := at[key]
		if !ok {
			at[key] = len(rows)
			rows = append(rows, row)
			continue
		}
		rows[i] = row
	}
	return rows, lines.Err()
}

// Table is the rows as Markdown, part by part.
func Table(rows []Row) string {
	var b strings.Builder
	for _, p := range parts {
		first := true
		for _, r := range rows {
			if r.Part != p.name {
				continue
			}
			if first {
				fmt.Fprintf(&b, "### %s\n\n| what | tried | verdicts | false | discarded as ours | recovery | left behind | |\n|---|---|---|---|---|---|---|---|\n", p.heading)
				first = false
			}
			recovery := ""
			if r.Recovery > 0 {
				recovery = short(r.Recovery)
			}
			left := fmt.Sprint(r.Left)
			if r.Left == unlooked {
				left = ""
			}
			fmt.Fprintf(&b, "| %s | %s %s | %s | %d | %s | %s | %s | %s |\n", r.What, thousands(r.Tried), r.Of, thousands(r.Probes), r.False, thousands(r.Discarded), recovery, left, r.Note)
		}
		if !first {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// short is a duration in two or three digits.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
