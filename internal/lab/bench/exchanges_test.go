package bench

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// An exchange is a SYN and its SYN-ACK, or an echo request and its reply, as a
// capture stamped them.
type exchange struct {
	sent, answered int64 // ns since the epoch
	port           uint16
}

func (e exchange) rtt() time.Duration { return time.Duration(e.answered - e.sent) }

// exchanges finds them in a capture: those that were answered, by the target's
// address, in the order in which they began. A SYN that is sent again counts from
// the last time.
func exchanges(packets []lab.CapturedPacket) (map[netip.Addr][]exchange, error) {
	type key struct {
		to   netip.Addr
		port uint16
		seq  uint32
	}
	open := make(map[key]int64)
	all := make(map[netip.Addr][]exchange)
	for _, c := range packets {
		if to, id, reply, ok := echo(c.Data); ok {
			k := key{to: to, seq: id}
			if !reply {
				open[k] = c.Wall
			} else if sent, ok := open[k]; ok {
				delete(open, k)
				all[to] = append(all[to], exchange{sent: sent, answered: c.Wall})
			}
			continue
		}
		var p wire.Packet
		if err := wire.Parse(c.Data, &p); err != nil {
			return nil, fmt.Errorf("captured packet: %w", err)
		}
		switch p.Segment.Flags & (probe.SYN | probe.ACK) {
		case probe.SYN:
			open[key{p.Dst, p.SrcPort, uint32(p.Segment.Seq)}] = c.Wall
		case probe.SYN | probe.ACK:
			k := key{p.Src, p.DstPort, uint32(p.Segment.Ack - 1)}
			if sent, ok := open[k]; ok {
				delete(open, k)
				all[p.Src] = append(all[p.Src], exchange{sent, c.Wall, p.DstPort})
			}
		}
	}
	for _, of := range all {
		slices.SortStableFunc(of, func(x, y exchange) int { return cmp.Compare(x.sent, y.sent) })
	}
	return all, nil
}

// echo takes an IPv4 echo request or reply apart: whom it is for or from, and
// identifier and sequence number as one.
func echo(ip []byte) (target netip.Addr, id uint32, reply, ok bool) {
	const icmp, echoReply, echoRequest = 1, 0, 8
	if len(ip) < 20 || ip[0]>>4 != 4 || ip[9] != icmp {
		return netip.Addr{}, 0, false, false
	}
	body := ip[int(ip[0]&15)*4:]
	if len(body) < 8 || body[0] != echoReply && body[0] != echoRequest {
		return netip.Addr{}, 0, false, false
	}
	reply = body[0] == echoReply
	from := netip.AddrFrom4([4]byte(ip[16:20]))
	if reply {
		from = netip.AddrFrom4([4]byte(ip[12:16]))
	}
	return from, binary.BigEndian.Uint32(body[4:]), reply, true
}

// deviations are how far readings lie from the captured exchanges. A reading with a
// port is matched by that and by when it began, which is not when it was sent if the
// machine is busy; the others by their order, and then there must be as many of either.
func deviations(readings []reading, captured []exchange) ([]time.Duration, error) {
	var all []time.Duration
	for i, r := range readings {
		if r.port == 0 {
			if len(readings) != len(captured) {
				return nil, fmt.Errorf("%d readings, %d exchanges in the capture", len(readings), len(captured))
			}
			all = append(all, r.rtt-captured[i].rtt())
			continue
		}
		nearest := -1
		for j, e := range captured {
			if e.port == r.port && (nearest < 0 || away(e, r) < away(captured[nearest], r)) {
				nearest = j
			}
		}
		if nearest < 0 || away(captured[nearest], r) > 2*time.Second {
			return nil, fmt.Errorf("the reading from port %d at %v is not in the capture", r.port, r.at)
		}
		all = append(all, r.rtt-captured[nearest].rtt())
	}
	return all, nil
}

func away(e exchange, r reading) time.Duration {
	return time.Duration(e.sent - r.at.UnixNano()).Abs()
}
