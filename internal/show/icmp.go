package show

import (
	"strconv"

	"github.com/probed/probed/probe"
)

// appendICMP writes an ICMP error in tcpdump's words.
func (c *Conversation) appendICMP(b []byte, i int, o SegmentOptions) []byte {
	s := &c.Steps[i]
	b = appendProtocol(b, c.Tuple.Local.Addr())
	if s.ICMP.From.IsValid() {
		b = appendAddr(b, s.ICMP.From)
	} else {
		b = append(b, '?')
	}
	b = append(b, " > "...)
	b = appendAddr(b, c.Tuple.Local.Addr())
	b = append(b, ": "...)
	b = append(b, c.icmpText(&s.ICMP)...)
	seq := s.ICMP.Seq
	if !o.Absolute {
		seq -= c.basesAt(i).iss
	}
	return appendUint(append(b, ", quoting seq "...), seq)
}

// icmpText is an error in tcpdump's words (print-icmp.c, print-icmp6.c), less
// what is not kept of it: the next hop's MTU, the pointer, the length.
func (c *Conversation) icmpText(e *probe.ICMP) string {
	host := string(appendAddr(nil, c.Tuple.Remote.Addr()))
	port := host + " tcp port " + strconv.Itoa(int(c.Tuple.Remote.Port()))
	if e.V6 {
		return "ICMP6, " + icmp6Text(e, host, port)
	}
	return "ICMP " + icmp4Text(e, host, port)
}

func icmp4Text(e *probe.ICMP, host, port string) string {
	code := strconv.Itoa(int(e.Code))
	switch e.Type {
	case 3:
		switch e.Code {
		case 0:
			return "net " + host + " unreachable"
		case 1:
			return "host " + host + " unreachable"
		case 2:
			return host + " protocol 6 unreachable"
		case 3:
			return port + " unreachable"
		}
		why := [...]string{4: "need to frag", 5: "source route failed", 6: "unknown", 7: "unknown",
			8: "source host isolated", 9: "admin prohibited", 10: "admin prohibited", 11: "tos prohibited",
			12: "tos prohibited", 13: "admin prohibited filter", 14: "host precedence violation", 15: "precedence cutoff"}
		what := host
		switch e.Code {
		case 6, 9, 11:
			what = "net " + host
		case 7, 10, 12, 13, 14, 15:
			what = "host " + host
		}
		if int(e.Code) < len(why) {
			return what + " unreachable - " + why[e.Code]
		}
		return what + " unreachable - #" + code
	case 4:
		return "source quench"
	case 11:
		switch e.Code {
		case 0:
			return "time exceeded in-transit"
		case 1:
			return "ip reassembly time exceeded"
		}
		return "time exceeded-#" + code
	case 12:
		if e.Code != 0 {
			return "parameter problem - code " + code
		}
		return "parameter problem"
	}
	return "type-#" + strconv.Itoa(int(e.Type))
}

func icmp6Text(e *probe.ICMP, host, port string) string {
	code := strconv.Itoa(int(e.Code))
	switch e.Type {
	case 1:
		why := [...]string{
			"unreachable route " + host, "unreachable prohibited " + host, "beyond scope " + host, "unreachable address " + host,
			"unreachable port, " + port,
			// tcpdump has no words for these (RFC 4443 §3.1).
			"source address failed policy, " + host, "reject route to " + host,
		}
		if int(e.Code) < len(why) {
			return "destination unreachable, " + why[e.Code]
		}
		return "destination unreachable, unknown unreach code (" + code + ")"
	case 2:
		return "packet too big"
	case 3:
		switch e.Code {
		case 0:
			return "time exceeded in-transit for " + host
		case 1:
			return "time exceeded in-transit (reassembly)"
		}
		return "time exceeded in-transit, unknown code (" + code + ")"
	case 4:
		why := [...]string{"erroneous", "next header", "option", "incomplete header chain"}
		if int(e.Code) < len(why) {
			return "parameter problem, " + why[e.Code]
		}
		return "parameter problem, code-#" + code
	}
	return "type-#" + strconv.Itoa(int(e.Type))
}
