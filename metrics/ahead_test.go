package metrics

import (
	"testing"
	"time"
	"unsafe"

	"github.com/probed/probed/probe"
)

// What Ahead names is where the next round trip is booked.
func TestAhead(t *testing.T) {
	m := New(Options{})
	x, err := m.AddTarget(Labels{Target: "a:1"}, TargetOptions{Buckets: []float64{.001, .002, .004}})
	if err != nil {
		t.Fatal(err)
	}
	if to := x.Ahead(1, nil); len(to) != 0 {
		t.Errorf("%d addresses before the first probe", len(to))
	}
	for _, d := range []time.Duration{time.Millisecond, 3 * time.Millisecond, 9 * time.Millisecond, 1500 * time.Microsecond} {
		x.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: d})
	}
	begin := uintptr(unsafe.Pointer(x))
	for _, at := range x.Ahead(0, nil) {
		if at < begin || at >= begin+unsafe.Sizeof(*x) {
			t.Errorf("%#x is not in the target at %#x", at, begin)
		}
	}
	before := make(map[uintptr]cell)
	for i := range x.rtt.cells {
		before[uintptr(unsafe.Pointer(&x.rtt.cells[i]))] = x.rtt.cells[i]
	}
	to := x.Ahead(1, nil)
	x.Observe(&probe.Observation{Kind: probe.HandshakeRTT, Duration: 1500 * time.Microsecond})
	changed := 0
	for i := range x.rtt.cells {
		at := uintptr(unsafe.Pointer(&x.rtt.cells[i]))
		if x.rtt.cells[i] == before[at] {
			continue
		}
		changed++
		if at != to[0] && at != to[1] {
			t.Errorf("cell %d was not named", i)
		}
	}
	if changed != 2 || len(x.Ahead(2, nil)) != 0 {
		t.Errorf("%d cells have changed", changed)
	}
}
