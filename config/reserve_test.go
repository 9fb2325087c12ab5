package config

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// A file that there is no memory for is refused before it is read, and one of ten thousand
// targets has room in what a small container has.
func TestReserve(t *testing.T) {
	list := func(n int, format string) []byte {
		var b strings.Builder
		b.WriteString("jobs:\n- name: a\n  interval: 100s\n  targets:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - "+format+"\n", i>>16, i>>8&255, i&255)
		}
		return []byte(b.String())
	}
	left, reserved := int64(60<<20), 0
	o := Options{Reserve: func(octets int64) (func(), error) {
		if octets > left {
			return nil, errors.New("no room")
		}
		reserved++
		return func() { reserved-- }, nil
	}}
	var before, after runtime.MemStats
	broken := list(300_000, `"no target %d %d %d"`)
	runtime.ReadMemStats(&before)
	_, err := o.Parse("big.yml", broken)
	runtime.ReadMemStats(&after)
	if err == nil || err.Error() != "big.yml:1:1: the file is too large: no room" {
		t.Errorf("%.200v", err)
	}
	if took := (after.TotalAlloc - before.TotalAlloc) >> 10; took > 100 {
		t.Errorf("%d KiB to refuse it", took)
	}
	if c, err := o.Parse("good.yml", list(10_000, "10.%d.%d.%d:80")); err != nil || len(c.Targets()) != 10_000 {
		t.Errorf("%.200v", err)
	}
	if _, err := o.Parse("bad.yml", list(10_000, `"no target %d %d %d"`)); err == nil || !strings.Contains(err.Error(), "and 9000 more errors") {
		t.Errorf("%.200v", err)
	}
	if reserved != 0 {
		t.Errorf("%d times not released", reserved)
	}
}
