package bench

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Line is one run of one tool, as a line of Go's benchmark format
// (golang.org/design/14313-benchmark-format): "BenchmarkName 1 0.5 unit 7 unit".
type Line struct {
	Name    string // Row/condition/tool, without "Benchmark"
	Figures []Figure
}

// A Figure is a value with its unit.
type Figure struct {
	Value float64
	Unit  string
}

// String is the line without its end.
func (l Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Benchmark%s 1", l.Name)
	for _, f := range l.Figures {
		fmt.Fprintf(&b, " %s %s", strconv.FormatFloat(f.Value, 'g', 6, 64), f.Unit)
	}
	return b.String()
}

// Get returns the value of a unit.
func (l Line) Get(unit string) (value float64, ok bool) {
	for _, f := range l.Figures {
		if f.Unit == unit {
			return f.Value, true
		}
	}
	return 0, false
}

// Results are the lines of a file in their order, and what its "key: value" lines
// say: the last of each key.
type Results struct {
	About map[string]string
	Lines []Line
}

// Read reads a file of benchmark lines. What is neither a benchmark nor a key is
// passed over, as benchstat does.
func Read(r io.Reader) (Results, error) {
	results := Results{About: make(map[string]string)}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text := lines.Text()
		if rest, ok := strings.CutPrefix(text, "Benchmark"); ok {
			l, err := parseLine(rest)
			if err != nil {
				return Results{}, fmt.Errorf("%q: %w", text, err)
			}
			results.Lines = append(results.Lines, l)
			continue
		}
		key, value, ok := strings.Cut(text, ": ")
		if ok && key != "" && key == strings.ToLower(key) && !strings.ContainsAny(key, " \t") {
			results.About[key] = strings.TrimSpace(value)
		}
	}
	return results, lines.Err()
}

// parseLine reads what follows "Benchmark".
func parseLine(text string) (Line, error) {
	f := strings.Fields(text)
	if len(f) < 4 || len(f)%2 != 0 {
		return Line{}, fmt.Errorf("%d fields", len(f))
	}
	l := Line{Name: f[0]}
	for i := 2; i < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return Line{}, err
		}
		l.Figures = append(l.Figures, Figure{v, f[i+1]})
	}
	return l, nil
}
