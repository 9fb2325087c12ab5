package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/probed/probed/internal/confine"
)

// What can't be mended is no warning, what can be is one line.
func TestRightsSaid(t *testing.T) {
	t.Parallel()
	unlisted := fmt.Errorf("%w for riscv64", confine.ErrNoList)
	cgo := errors.New("built with cgo")
	const info, warn = `level=INFO msg="system calls are not filtered" why="no list of system calls for riscv64"`,
		`level=WARN msg="going on with more rights than probing needs" err="built with cgo"`
	for _, c := range []struct {
		err  error
		want []string
	}{
		{nil, nil},
		{errors.Join(nil, errors.Join(nil, nil, unlisted)), []string{info}},
		{errors.Join(cgo, errors.Join(cgo, unlisted)), []string{warn, info}},
		{cgo, []string{warn}},
	} {
		var b bytes.Buffer
		d := daemon{unconfined: c.err, log: slog.New(slog.NewTextHandler(&b, nil))}
		d.sayUnconfined()
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(c.want) == 0 {
			lines = nil
			if b.Len() > 0 {
				t.Errorf("%v: %s", c.err, &b)
			}
		}
		if len(lines) != len(c.want) {
			t.Errorf("%v: %s", c.err, &b)
			continue
		}
		for i, want := range c.want {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("%v: %s, want %s", c.err, lines[i], want)
			}
		}
	}
}
