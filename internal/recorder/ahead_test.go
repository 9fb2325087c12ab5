package recorder

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/probed/probed/probe"
)

// What Ahead names is where the next probe is recorded.
func TestAhead(t *testing.T) {
	var r Recorder
	if to := r.Ahead(0, nil); len(to) != 1 || to[0] != uintptr(unsafe.Pointer(&r)) {
		t.Errorf("%#x before the first probe", to)
	}
	if to := r.Ahead(2, r.Ahead(1, nil)); len(to) != 0 {
		t.Errorf("%#x of nothing", to)
	}
	record := func(n uint64) {
		var tr probe.Transcript
		tr.Reset(probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.19.0.2:443")}, probe.HalfOpen)
		tr.Number, tr.Offset = n, int64(n)*1e9
		tr.NotOpened(0, &probe.Observation{Kind: probe.Verdict})
		r.Settled(&tr)
	}
	for n := range uint64(MaxSamples + 100) {
		record(n)
	}
	in := func(to []uintptr, p unsafe.Pointer) bool {
		for _, at := range to {
			if at&^63 == uintptr(p)&^63 {
				return true
			}
		}
		return false
	}
	if to := r.Ahead(1, nil); !in(to, unsafe.Pointer(r.kept)) || !in(to, unsafe.Pointer(&r.kept.changes)) {
		t.Errorf("%#x of the memory at %p", to, r.kept)
	}
	to := r.Ahead(2, nil)
	h := &r.kept.samples
	end, first := (h.first+h.used)%len(h.ring), h.first
	record(1 << 20)
	newest := r.kept.transcripts.pieces[r.kept.transcripts.n-1]
	for what, p := range map[string]unsafe.Pointer{
		"the sample": unsafe.Pointer(&h.ring[end]), "the oldest sample": unsafe.Pointer(&h.ring[first]),
		"the transcript": unsafe.Pointer(&r.kept.transcripts.octets[int(newest.at)*unit]),
	} {
		if !in(to, p) {
			t.Errorf("%s: %p is not in %#x", what, p, to)
		}
	}
}
