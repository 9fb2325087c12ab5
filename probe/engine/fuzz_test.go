package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A script of what a hostile network answers: for every packet that leaves the host,
// kernel's RSTs included, the next of these, as long as there are any.
//
//	0     what comes back (hostileAnswers); how often is in its upper bits
//	1     when; a change of the host's (hostileHost) is in its upper bits
//	2     flags
//	3:5   SEG.SEQ less what is expected
//	5:7   SEG.ACK less what is expected
//	7     how many octets follow
//	8:    that are laid over the packet (from the octet that the first names), or are it
const answerOctets = 8

// mostHostile bounds the frames of a run.
const mostHostile = 3000

type hostile struct {
	w      *world
	script []byte
	frames int
}

// answer is what the network makes of a packet that has left.
func (h *hostile) answer(s *sim, p *wire.Packet) {
	if len(h.script) < answerOctets {
		return
	}
	r := h.script[:answerOctets]
	n := min(int(r[7]), len(h.script)-answerOctets)
	rest := h.script[answerOctets:][:n]
	h.script = h.script[answerOctets+n:]
	h.host(r[1] >> 4)

	us, them := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
	back := probe.FourTuple{Local: them, Remote: us}
	offset := func(at int) uint32 { return uint32(int32(int16(binary.BigEndian.Uint16(r[at:])))) }
	seg := probe.Segment{
		Flags: probe.Flags(r[2]), Seq: p.Segment.Ack.Add(offset(3)), Ack: p.Segment.End().Add(offset(5)), Window: 65535, TTL: 60,
	}
	if p.Segment.Flags == probe.SYN {
		seg.Seq = isn(p).Add(offset(3))
	}
	var b []byte
	outgoing := false
	switch r[0] & 7 {
	case 0: // an answer
		b = overlaid(wire.AppendPacket(nil, &back, &seg, nil), rest, false)
	case 1: // one whose checksum is wrong
		b = overlaid(wire.AppendPacket(nil, &back, &seg, nil), rest, true)
	case 2: // with data, or with options
		seg.Len = uint32(len(rest))
		b = wire.AppendPacket(nil, &back, &seg, rest)
	case 3:
		wire.ParseOptions(rest[:min(len(rest), probe.MaxOptions)], &seg.Options)
		b = wire.AppendPacket(nil, &back, &seg, nil)
	case 4: // an ICMP error
		ours := probe.FourTuple{Local: us, Remote: them}
		quoted := p.Segment
		quoted.Seq = quoted.Seq.Add(offset(3))
		b = overlaid(icmpError(us.Addr(), wire.AppendPacket(nil, &ours, &quoted, nil)), rest, true)
	case 5: // anything
		b = append(b, rest...)
	case 6: // anything leaves the host: another program has our tuple
		b, outgoing = append(b, rest...), true
	case 7: // a segment from elsewhere in its peer's name
		back.Local = netip.AddrPortFrom(them.Addr(), uint16(offset(5)))
		back.Remote = netip.AddrPortFrom(us.Addr(), us.Port()+uint16(offset(3)))
		b = wire.AppendPacket(nil, &back, &seg, nil)
	}
	after := [...]time.Duration{0, 50 * time.Microsecond, 3 * time.Millisecond, 90 * time.Millisecond, 400 * time.Millisecond,
		880 * time.Millisecond, time.Second, 2500 * time.Millisecond}[r[1]&7]
	for i := range 1 << (r[0] >> 4) >> 4 << 2 { // 0, 4 … 8192
		if h.frames >= mostHostile {
			return
		}
		h.deliver(s, after+time.Duration(i)*time.Microsecond, b, outgoing)
	}
	h.deliver(s, after, b, outgoing)
}

// overlaid changes a packet. Its checksum is as it was, or made anew.
func overlaid(b, by []byte, damage bool) []byte {
	if len(by) < 2 {
		return b
	}
	at := int(by[0]) % len(b)
	for i, c := range by[1:] {
		if at+i < len(b) {
			b[at+i] ^= c
		}
	}
	var p wire.Packet
	if damage || wire.Parse(b, &p) != nil || p.Kind != wire.KindTCP || len(p.Payload) != int(p.Segment.Len) {
		return b
	}
	tuple := probe.FourTuple{Local: netip.AddrPortFrom(p.Src, p.SrcPort), Remote: netip.AddrPortFrom(p.Dst, p.DstPort)}
	return wire.AppendPacket(nil, &tuple, &p.Segment, p.Payload)
}

func (h *hostile) deliver(s *sim, after time.Duration, b []byte, outgoing bool) {
	h.frames++
	b = append([]byte(nil), b...)
	s.after(after, func() {
		var p wire.Packet
		if err := wire.Parse(b, &p); err != nil || outgoing || p.Dst != local4 && p.Dst != local6 {
			s.ring = append(s.ring, inRing{append(s.buffer(), b...), int64(s.now) + s.offset, outgoing, 1})
			return
		}
		s.arrives(append(s.buffer(), b...)) // and our kernel answers
	})
}

// host changes something about the host.
func (h *hostile) host(what byte) {
	s := h.w.sim
	switch what {
	case 11:
		s.gen++
	case 12:
		s.dropped++
	case 13:
		s.offset += int64(time.Hour)
	case 14:
		s.offset -= int64(40 * time.Millisecond)
	case 15:
		s.stallFor(1300 * time.Millisecond)
	}
}

// hostileLimits leave room for what the targets ask for, and little more.
var hostileLimits = Limits{Global: 100, PerAddress: 40}

// mostAnswers is what one conversation sends in a second at most, whatever comes: an
// ACK every 10 ms to what is new, some at once, and few to what is not.
const mostAnswers = 150

// FuzzNetwork has a network answer anything at all. Whatever it is: the loop goes on,
// every probe has one verdict or one discard, every conversation ends, nothing is left,
// what is handed over is whole, and nothing has us send more than a connection needs.
func FuzzNetwork(f *testing.F) {
	const ack, syn, fin, rst, psh = byte(probe.ACK), byte(probe.SYN), byte(probe.FIN), byte(probe.RST), byte(probe.PSH)
	answer := func(how, when, flags byte, seq, ack int16, rest ...byte) []byte {
		b := []byte{how, when, flags}
		b = binary.BigEndian.AppendUint16(b, uint16(seq))
		b = binary.BigEndian.AppendUint16(b, uint16(ack))
		return append(append(b, byte(len(rest))), rest...)
	}
	script := func(answers ...[]byte) (all []byte) {
		for range 8 {
			for _, a := range answers {
				all = append(all, a...)
			}
		}
		return all
	}
	f.Add(script(answer(0, 1, syn|ack, 0, 0)))
	f.Add(script(answer(0, 1, syn|ack, 0, 0), answer(0, 1, fin|ack, 0, 0)))
	f.Add(script(answer(0x40, 2, syn|ack, 0, 0), answer(0x60, 2, syn|ack, -1, 0)))
	f.Add(script(answer(0, 2, syn|ack, 0, 0), answer(0x92, 2, ack|psh, 0, 0, 'x'), answer(0x92, 2, ack|psh, -1, 0, 'x'), answer(0, 2, fin|ack, 0, 0)))
	f.Add(script(answer(0, 2, syn|ack, 0, 0), answer(0x90, 2, ack, -3, 0), answer(0x90, 3, ack, 20000, 77), answer(0x90, 3, rst, 5, 0), answer(0xa0, 3, syn, 5, 0)))
	f.Add(script(answer(3, 1, syn|ack, 0, 0, 2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0), answer(3, 1, ack, 0, 0, 5, 10, 0, 0, 0, 0, 0, 0, 0, 1)))
	f.Add(script(answer(4, 1, 0, 0, 0), answer(4, 1, 0, 1, 0), answer(4, 1, 0, 0, 0, 20, 3)))
	f.Add(script(answer(5, 1, 0, 0, 0, 0x45, 0, 0, 20), answer(6, 1, 0, 0, 0, 0x60), answer(7, 1, syn|ack, 3, 443)))
	f.Add(script(answer(1, 1, syn|ack, 0, 0, 30, 1), answer(0, 0xc1, syn|ack, 0, 0), answer(0, 0xd2, rst|ack, 0, 0), answer(0, 0xf3, syn|ack, 0, 0), answer(0, 0xe1, ack, 0, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t, func(c *Config) { c.Limits = hostileLimits })
		h := &hostile{w: w, script: b}
		w.peer = h.answer
		kinds := []func(*Target){
			nil,
			func(x *Target) { x.Params.DetectCookies = true },
			activeClose, passiveClose,
			func(x *Target) {
				passiveClose(x)
				x.Params.Kind, x.Params.Measure, x.Params.After = probe.TimeWaitProbe, probe.MeasureReuse, 100*time.Millisecond
			},
		}
		for i, kind := range kinds {
			for _, remote := range []string{"198.19.0.1:443", "[2001:db8:1::1]:443"} {
				x, l := w.target(uint64(i)*7919+uint64(len(remote)), remote, kind)
				x.Recorder = l
				x.Remote = netip.AddrPortFrom(x.Remote.Addr(), uint16(440+i))
				l.onRecord = func(tr *probe.Transcript) { keepable(t, tr) }
				l.onSettled = l.onRecord
				w.add(x)
			}
		}
		logs := make(map[probe.FourTuple]*wireLog)
		all := new(wireLog)
		w.refuse = func(p *Packet) bool { // sees what we send, and not what our kernel does
			to := probe.FourTuple{
				Local:  netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(p.Segment)),
				Remote: netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(p.Segment[2:])),
			}
			if logs[to] == nil {
				logs[to] = new(wireLog)
			}
			for _, l := range []*wireLog{all, logs[to]} {
				l.all = append(l.all, sent{at: w.now, to: p.Dst})
			}
			return false
		}
		w.goOn(4 * time.Second)
		w.queued = len(w.delays) // less the second SYNs of time_wait
		w.audit()
		for to, l := range logs {
			if n := l.most(time.Second, packets); n > mostAnswers {
				t.Errorf("%v: %d packets in a second", to, n)
			}
		}
		if n, most := all.most(time.Second, packets), hostileLimits.Global+len(logs)*mostAnswers/4; n > most {
			t.Errorf("%d packets in a second, %d from %d conversations are enough", n, most, len(logs))
		}
		if n := w.shard.table.len(); n > 1024 {
			t.Errorf("%d slots for ten targets", n)
		}
	})
}

// keepable holds a transcript to what it must be, whoever wrote in it.
func keepable(t *testing.T, tr *probe.Transcript) {
	if len(tr.Records()) > probe.MaxRecords || len(tr.Figures()) > 255 {
		t.Errorf("%d records, %d figures", len(tr.Records()), len(tr.Figures()))
	}
	var again probe.Transcript
	b := tr.AppendOctets(nil)
	if err := again.ReadOctets(b); err != nil || len(b) > 1<<15 || string(again.AppendOctets(nil)) != string(b) {
		t.Errorf("%d octets: %v", len(b), err)
	}
}
