package rawsock

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// IP protocol numbers and offsets that the filter names.
const (
	ipv6HeaderLen = 40
	icmpHeaderLen = 8 // ICMP and ICMPv6: type, code, checksum, four more

	fragmentOffset   = 0x1fff // IPv4, of the halfword at 6
	fragmentOffsetV6 = 0xfff8 // IPv6 fragment header, of the halfword at 2
)

// Labels of the filter's branches.
const (
	next  = "" // the following instruction
	drop  = "drop"
	pass  = "pass"
	ports = "ports"
)

// portFilter is the tap's program over a packet that begins at its IP header,
// as a SOCK_DGRAM packet socket shows it in both directions. It passes the
// first snaplen octets of
//   - TCP over IPv4 or IPv6 with the source or the destination port in
//     first..last, first fragments included,
//   - the ICMP errors 3, 4, 11, 12 and the ICMPv6 errors 1–4 that quote such a
//     segment: of ours, or of a peer's that this host rejects,
//   - what it would take a loop to look into: authentication headers, IPv6
//     extension headers behind the first, quotes with options or extension
//     headers.
//
// Anything else, later fragments and short packets included, is dropped: a
// load beyond the end drops in cBPF.
func portFilter(first, last uint16, snaplen uint32) ([]bpf.Instruction, error) {
	if first == 0 || first > last {
		return nil, fmt.Errorf("port range %d-%d is empty or begins at 0", first, last)
	}
	p := program{labels: make(map[string]int)}
	lo, hi := uint32(first), uint32(last)

	p.load8(0)
	p.and(0xf0)
	p.jump(bpf.JumpEqual, 0x40, "ipv4", next)
	p.jump(bpf.JumpEqual, 0x60, "ipv6", drop)

	p.label("ipv4")
	p.load16(6)
	p.jump(bpf.JumpBitsSet, fragmentOffset, drop, next)
	p.add(bpf.LoadMemShift{Off: 0}) // X: the header's length
	p.load8(9)
	p.jump(bpf.JumpEqual, unix.IPPROTO_TCP, ports, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_ICMP, next, drop)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1})
	p.jump(bpf.JumpEqual, 3, "quote4", next)
	p.jump(bpf.JumpEqual, 11, "quote4", next)
	p.jump(bpf.JumpEqual, 4, "quote4", next)
	p.jump(bpf.JumpEqual, 12, "quote4", drop)

	p.label("quote4") // X: the outer header's length
	p.add(bpf.LoadIndirect{Off: icmpHeaderLen + 9, Size: 1})
	p.jump(bpf.JumpEqual, unix.IPPROTO_TCP, next, drop)
	p.add(bpf.LoadIndirect{Off: icmpHeaderLen, Size: 1})
	p.jump(bpf.JumpEqual, 0x45, next, pass)
	p.further(icmpHeaderLen + 20)
	p.jump(bpf.JumpGreaterOrEqual, 0, ports, ports)

	p.label("ipv6")
	p.load8(6)
	p.jump(bpf.JumpEqual, unix.IPPROTO_HOPOPTS, "extension", next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_ROUTING, "extension", next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_DSTOPTS, "extension", next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_FRAGMENT, "fragment", next)
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6HeaderLen})
	p.jump(bpf.JumpEqual, unix.IPPROTO_AH, pass, "upper6")

	p.label("extension") // one of them is looked through: MLD has one, on every host
	p.load8(ipv6HeaderLen + 1)
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: ipv6HeaderLen + 8})
	p.add(bpf.TAX{})
	p.load8(ipv6HeaderLen)
	p.jump(bpf.JumpEqual, unix.IPPROTO_FRAGMENT, pass, "further")

	p.label("fragment")
	p.load16(ipv6HeaderLen + 2)
	p.jump(bpf.JumpBitsSet, fragmentOffsetV6, drop, next)
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6HeaderLen + 8})
	p.load8(ipv6HeaderLen)

	p.label("further") // A: what follows an extension header, at X
	p.jump(bpf.JumpEqual, unix.IPPROTO_HOPOPTS, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_ROUTING, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_DSTOPTS, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_AH, pass, next)

	p.label("upper6") // A: the upper layer's protocol, at X
	p.jump(bpf.JumpEqual, unix.IPPROTO_TCP, ports, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_ICMPV6, next, drop)
	p.add(bpf.LoadIndirect{Off: 0, Size: 1})
	p.jump(bpf.JumpGreaterOrEqual, 1, next, drop)
	p.jump(bpf.JumpGreaterThan, 4, drop, next)
	p.add(bpf.LoadIndirect{Off: icmpHeaderLen + 6, Size: 1})
	p.jump(bpf.JumpEqual, unix.IPPROTO_TCP, "quote6", next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_HOPOPTS, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_ROUTING, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_DSTOPTS, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_FRAGMENT, pass, next)
	p.jump(bpf.JumpEqual, unix.IPPROTO_AH, pass, drop)

	p.label("quote6")
	p.further(icmpHeaderLen + ipv6HeaderLen)

	p.label(ports) // X: where the TCP header begins
	p.add(bpf.LoadIndirect{Off: 0, Size: 2})
	p.jump(bpf.JumpGreaterOrEqual, lo, next, "destination")
	p.jump(bpf.JumpGreaterThan, hi, next, pass)
	p.label("destination")
	p.add(bpf.LoadIndirect{Off: 2, Size: 2})
	p.jump(bpf.JumpGreaterOrEqual, lo, next, drop)
	p.jump(bpf.JumpGreaterThan, hi, drop, pass)

	p.label(pass)
	p.add(bpf.RetConstant{Val: snaplen})
	p.label(drop)
	p.add(bpf.RetConstant{Val: 0})
	return p.assemble()
}

// dropAll returns the program that passes nothing.
func dropAll() []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
}

// A program is cBPF whose jumps name labels: cBPF itself counts instructions,
// forward only and at most 255 of them.
type program struct {
	code   []bpf.Instruction
	jumps  []labelled
	labels map[string]int // label → the instruction that follows it
}

// A labelled jump lies at code[at].
type labelled struct {
	at              int
	ifTrue, ifFalse string
}

func (p *program) add(i bpf.Instruction) { p.code = append(p.code, i) }
func (p *program) load8(off uint32)      { p.add(bpf.LoadAbsolute{Off: off, Size: 1}) }
func (p *program) load16(off uint32)     { p.add(bpf.LoadAbsolute{Off: off, Size: 2}) }
func (p *program) and(mask uint32)       { p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask}) }

// further moves X on.
func (p *program) further(by uint32) {
	p.add(bpf.TXA{})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: by})
	p.add(bpf.TAX{})
}

func (p *program) label(name string) { p.labels[name] = len(p.code) }

func (p *program) jump(cond bpf.JumpTest, value uint32, ifTrue, ifFalse string) {
	p.jumps = append(p.jumps, labelled{len(p.code), ifTrue, ifFalse})
	p.add(bpf.JumpIf{Cond: cond, Val: value})
}

// assemble fills in the jumps' distances.
func (p *program) assemble() ([]bpf.Instruction, error) {
	for _, j := range p.jumps {
		jump := p.code[j.at].(bpf.JumpIf)
		for _, side := range []struct {
			label string
			skip  *uint8
		}{{j.ifTrue, &jump.SkipTrue}, {j.ifFalse, &jump.SkipFalse}} {
			if side.label == next {
				continue
			}
			target, ok := p.labels[side.label]
			distance := target - j.at - 1
			if !ok || distance < 0 || distance > 255 {
				return nil, fmt.Errorf("filter: no jump from instruction %d to %q", j.at, side.label)
			}
			*side.skip = uint8(distance)
		}
		p.code[j.at] = jump
	}
	return p.code, nil
}

// attachFilter gives the socket a program that nobody can take off or replace, this
// process included (SO_ATTACH_FILTER, SO_LOCK_FILTER).
func attachFilter(fd int, code []unix.SockFilter) error {
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
		return optionError("SO_ATTACH_FILTER", err)
	}
	return optionError("SO_LOCK_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
}

// kernelFilter encodes a program for the kernel.
func kernelFilter(code []bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}
