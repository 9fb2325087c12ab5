package recorder

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// FuzzHistory keeps any samples, in octets, and holds what is read to a plain list.
func FuzzHistory(f *testing.F) {
	sample := func(what byte, port uint16, step, rtt int64) []byte {
		b := binary.BigEndian.AppendUint16([]byte{what}, port)
		b = binary.BigEndian.AppendUint64(b, uint64(step))
		return binary.BigEndian.AppendUint64(b, uint64(rtt))
	}
	var even, usual, odd []byte
	for i := range 300 {
		even = append(even, sample(0, uint16(61000+i), 1e9+int64(i%7)*1000, 1e6+int64(i))...)
		usual = append(usual, sample(0, uint16(61000+i/2), 1<<(i%60), 1<<(i%35)-int64(i%3))...) // of all sizes
		odd = append(odd, sample(byte(i), uint16(i*7919), math.MaxInt64>>(i%64)*int64(1-2*(i&1)), math.MinInt64>>(i%60))...)
	}
	f.Add(even)
	f.Add(usual)
	f.Add(odd)
	f.Fuzz(func(t *testing.T, b []byte) {
		var h history
		var want []Sample
		var at int64
		for ; len(b) >= 19 && len(want) < 4*MaxSamples; b = b[19:] {
			s := Sample{Port: binary.BigEndian.Uint16(b[1:])}
			at += int64(binary.BigEndian.Uint64(b[3:]))
			rtt := time.Duration(binary.BigEndian.Uint64(b[11:]))
			s.At, s.RTT = at/1000*1000, seconds(rtt)
			if what := int(b[0]) % (probe.NumReasons + probe.NumDiscardReasons - 1); what < probe.NumReasons {
				s.Reason = probe.Reason(what)
			} else {
				s.Discard = probe.DiscardReason(what - probe.NumReasons + 1)
			}
			if len(want) >= MaxSamples {
				old, was := h.drop(), want[len(want)-h.n-1]
				if was.RTT = 0; old != was { // it is the caller who adds it
					t.Fatalf("dropped %+v, want %+v", old, was)
				}
			}
			h.push(s.At, rtt, s.Port, s.Reason, s.Discard)
			want = append(want, s)
			if h.used > len(h.ring) || len(h.ring) > 8192 {
				t.Fatalf("%d octets of a ring of %d", h.used, len(h.ring))
			}
		}
		got := h.appendTo(nil)
		last := want[max(0, len(want)-MaxSamples):]
		if len(got) != len(last) {
			t.Fatalf("%d samples, want %d", len(got), len(last))
		}
		for i := range got {
			if got[i] != last[i] {
				t.Fatalf("sample %d: %+v, want %+v", i, got[i], last[i])
			}
		}
	})
}
