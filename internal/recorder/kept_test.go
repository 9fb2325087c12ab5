package recorder_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/probe"
)

// A plain recorder keeps everything as it comes: what Recorder is to show is what it
// does.
type plain struct {
	samples      []recorder.Sample
	last, failed []probe.Transcript
}

func keep[T any](to []T, most int, v T) []T {
	return append(to[max(0, len(to)-most+1):], v)
}

func (p *plain) settled(t *probe.Transcript) {
	s := recorder.Sample{At: (t.Offset + int64(t.Records()[0].At)) / 1000 * 1000, Port: t.Tuple.Local.Port()}
	s.Reason, s.Discard, _ = t.Settled()
	if o, ok := t.Figure(probe.HandshakeRTT); ok {
		s.RTT = float32(o.Duration.Seconds())
	}
	p.samples = keep(p.samples, recorder.MaxSamples, s)
	p.last = keep(p.last, recorder.MaxTranscripts, t.Clone())
	if s.Failed() {
		p.failed = keep(p.failed, recorder.MaxTranscripts, t.Clone())
	}
}

func (p *plain) record(since *probe.Transcript) {
	for _, kept := range [][]probe.Transcript{p.last, p.failed} {
		for i := range kept {
			if kept[i].Number == since.Number {
				kept[i].Extend(since)
			}
		}
	}
}

func (p *plain) totals() (t recorder.Totals) {
	for i := range p.samples {
		switch t.Last = p.samples[i]; {
		case t.Last.Discard != 0:
			t.Discarded++
		case t.Last.Failed():
			t.Failed++
			t.Verdicts++
		default:
			t.Verdicts++
		}
	}
	return t
}

func sameTranscripts(got, want []probe.Transcript) bool {
	want = slices.Clone(want)
	slices.Reverse(want)
	return slices.EqualFunc(got, want, func(a, b probe.Transcript) bool {
		return a.Tuple == b.Tuple && a.Kind == b.Kind && a.Number == b.Number && a.Offset == b.Offset && a.Lost == b.Lost &&
			slices.Equal(a.Records(), b.Records()) && slices.Equal(a.Figures(), b.Figures())
	})
}

// Whatever comes, evenly or not, a Recorder shows exactly what a plain one does.
func TestShowsWhatWasSettled(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		var r recorder.Recorder
		var p plain
		even := round%2 == 0
		at := rng.Int64N(2e18)
		port := uint16(61000)
		var unfinished []*held
		for n := range uint64(rng.IntN(3 * recorder.MaxSamples)) {
			h := &held{conv: probe.New(probe.Params{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 4 * time.Second}), now: probe.Instant(n)}
			if port++; !even && rng.IntN(3) == 0 {
				port = uint16(rng.Uint32())
			}
			local := tuple.Local.Addr()
			if rng.IntN(10) == 0 {
				local = netip.MustParseAddr("2001:db8::1")
			}
			h.tr.Reset(probe.FourTuple{Local: netip.AddrPortFrom(local, port), Remote: tuple.Remote}, probe.HalfOpen)
			if at += 1e9 + rng.Int64N(1_000_000); !even {
				at += rng.Int64N(1<<(1+rng.IntN(50))) - 1<<rng.IntN(30)
			}
			h.tr.Number, h.tr.Offset = n, at
			syn := probe.Segment{Flags: probe.SYN, Seq: probe.Seq(rng.Uint32())}
			h.step(probe.Event{Kind: probe.Open, Segment: syn})
			h.step(probe.Event{Kind: probe.SegmentSent, Segment: syn, Stamp: h.stamp()})
			answer := probe.Segment{Flags: probe.SYN | probe.ACK, Seq: probe.Seq(rng.Uint32()), Ack: syn.Seq + 1, TTL: 64}
			switch outcome := rng.IntN(20); {
			case outcome < 14 || even && outcome < 18:
				h.after(time.Duration(rng.Int64N(1 << (1 + rng.IntN(29)))))
				h.step(probe.Event{Kind: probe.SegmentArrives, Stamp: h.stamp(), Segment: answer})
			case outcome < 17:
				h.step(probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardReason(1 + rng.IntN(probe.NumDiscardReasons-1))})
			default:
				h.after(900 * time.Millisecond).timeout()
			}
			for range rng.IntN(3) * rng.IntN(40) { // of a flood, a lot
				h.step(probe.Event{Kind: probe.SegmentArrives, Stamp: h.stamp(), Segment: probe.Segment{Flags: probe.ACK, Seq: probe.Seq(rng.Uint32())}})
			}
			r.Settled(&h.tr)
			p.settled(&h.tr)
			h.settled()
			if unfinished = append(unfinished, h); rng.IntN(2) == 0 {
				i := rng.IntN(len(unfinished))
				late := unfinished[i]
				unfinished = slices.Delete(unfinished, i, i+1)
				if rng.IntN(2) == 0 {
					late.after(time.Second)
					late.step(probe.Event{Kind: probe.SegmentArrives, Stamp: late.stamp(), Segment: answer})
				}
				r.Record(&late.tr)
				p.record(&late.tr)
			}
		}
		if got := r.AppendSamples(nil); !slices.Equal(got, p.samples) {
			t.Fatalf("round %d: samples\n%+v\nnot\n%+v", round, got, p.samples)
		}
		if got := r.Totals(); got != p.totals() {
			t.Fatalf("round %d: totals %+v, not %+v", round, got, p.totals())
		}
		if !sameTranscripts(r.Last(), p.last) || !sameTranscripts(r.Failed(), p.failed) {
			t.Fatalf("round %d: other transcripts", round)
		}
	}
}
