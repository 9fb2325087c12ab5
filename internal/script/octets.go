package script

import (
	"encoding/binary"
	"time"

	"github.com/probed/probed/probe"
)

// eventOctets is how many octets the head of an event has; its segment's options follow.
//
//	0     what happens: the low five bits; above them how much time passes first
//	1     flags
//	2:4   SEG.SEQ less what is expected
//	4:6   SEG.ACK less what is expected
//	6:8   octets of payload
//	8:10  SEG.WND
//	10    TTL
//	11    TOS
//	12    how old the stamp is
//	13    octets of options
const eventOctets = 14

// mostEvents bounds one conversation.
const mostEvents = 300

// octetParams are the ways of holding a conversation that the first octet chooses from.
var octetParams = [...]probe.Params{
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 2 * time.Second, ResetGrace: 50 * time.Millisecond},
	{Kind: probe.HalfOpen, Timeout: 900 * time.Millisecond, Linger: 2 * time.Second, DetectCookies: true},
	{Kind: probe.ActiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second, Send: 100, Hold: 50 * time.Millisecond},
	{Kind: probe.PassiveClose, Timeout: 5 * time.Second, Linger: 4 * time.Second, Send: 100, Combined: true},
	{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Linger: 4 * time.Second, Measure: probe.MeasureReuse, After: time.Second},
	{Kind: probe.TimeWaitProbe, Timeout: 5 * time.Second, Linger: 4 * time.Second, Measure: probe.MeasureDuration, Limit: 10 * time.Second},
}

// FromOctets plays a conversation that octets make up: any peer, any network and any
// host, at any pace. Fuzz targets of what keeps, draws and writes conversations make
// them by it. options reads a segment's options.
func FromOctets(tuple probe.FourTuple, b []byte, options func([]byte, *probe.Options)) probe.Transcript {
	var first byte
	if len(b) > 0 {
		first, b = b[0], b[1:]
	}
	params := octetParams[int(first)%len(octetParams)]
	params.IPv6 = tuple.Local.Addr().Is6()
	p := octetPlayer{conv: probe.New(params), now: startMonotonic, options: options}
	p.transcript.Reset(tuple, params.Kind)
	p.transcript.Offset = startWall - int64(startMonotonic)
	p.transcript.Number = 1
	p.step(probe.Event{Kind: probe.Open, Segment: probe.Segment{
		Flags: probe.SYN, Seq: 1<<32 - 3, Window: 64240, TTL: 64, Options: probe.Options{Set: probe.OptMSS, MSS: 1460},
	}})
	for n := 0; len(b) > 0 && n < mostEvents && !p.conv.Done(); n++ {
		b = p.event(b)
	}
	for n := 0; n < mostEvents && !p.conv.Done(); n++ {
		kind, due := p.conv.Timer()
		p.now = max(p.now, due)
		p.step(probe.Event{Kind: kind, Segment: probe.Segment{Flags: probe.SYN, Seq: p.sndNxt.Add(1 << 20)}})
	}
	return p.transcript
}

// An octetPlayer is a conversation that is being played.
type octetPlayer struct {
	conv           probe.Conversation
	transcript     probe.Transcript
	now            probe.Instant
	sndNxt, rcvNxt probe.Seq
	sent           probe.Segment // the last that was to leave
	options        func([]byte, *probe.Options)
}

// event plays the first of the octets and returns the rest.
func (p *octetPlayer) event(b []byte) []byte {
	var r [eventOctets]byte
	b = b[copy(r[:], b):]
	p.now = p.now.Add([...]time.Duration{0, time.Microsecond, time.Millisecond, 30 * time.Millisecond,
		200 * time.Millisecond, time.Second, 3 * time.Second, time.Minute}[r[0]>>5])
	stamp := probe.Stamp{Wall: startWall + int64(p.now-startMonotonic) - int64(r[12])*int64(r[12])*1000, Clock: 1 + uint32(r[12]&1), Kernel: r[12]&2 != 0}
	short := func(at int) uint16 { return binary.BigEndian.Uint16(r[at:]) }
	switch what := r[0] & 31; {
	case what < 20:
		s := probe.Segment{
			Flags: probe.Flags(r[1]), Seq: p.rcvNxt.Add(uint32(int16(short(2)))), Ack: p.sndNxt.Add(uint32(int16(short(4)))),
			Len: uint32(short(6)), Window: short(8), TTL: r[10], TOS: r[11],
		}
		n := min(int(r[13])%(probe.MaxOptions+1), len(b)) &^ 3 // a header is whole words
		p.options(b[:n], &s.Options)
		b = b[n:]
		p.step(probe.Event{Kind: probe.SegmentArrives, Segment: s, Stamp: stamp})
		if s.Flags.Has(probe.SYN) {
			p.rcvNxt = s.Seq.Add(1)
		}
	case what < 24:
		p.step(probe.Event{Kind: probe.SegmentSent, Segment: p.sent, Stamp: stamp})
	case what < 26:
		p.step(probe.Event{Kind: probe.ICMPArrives, Stamp: stamp, ICMP: probe.ICMP{
			V6: p.transcript.Tuple.Local.Addr().Is6(), Type: r[1], Code: r[10], Seq: p.sent.Seq.Add(uint32(int16(short(2)))), From: p.transcript.Tuple.Remote.Addr(),
		}})
	case what < 27:
		p.step(probe.Event{Kind: probe.Spoiled, Discard: probe.DiscardReason(1 + int(r[1])%(probe.NumDiscardReasons-1))})
	case what < 28:
		p.step(probe.Event{Kind: probe.SendFailed})
	case what < 29:
		ev := probe.Event{Kind: probe.NoRoom}
		if r[1]&1 != 0 {
			ev.Segment = p.sent
		}
		p.step(ev)
	default:
		kind, due := p.conv.Timer()
		p.now = max(p.now, due)
		p.step(probe.Event{Kind: kind, Segment: probe.Segment{Flags: probe.SYN, Seq: p.sndNxt.Add(1 << 20)}})
	}
	return b
}

func (p *octetPlayer) step(ev probe.Event) {
	var out probe.Output
	p.conv, out = probe.Step(p.conv, p.now, ev)
	p.transcript.Add(p.now, &ev, &p.conv, &out)
	for _, s := range out.Segments() {
		p.sent, p.sndNxt = s, s.End()
	}
}
