package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Blocks are blocks of IP addresses, in the order of the file.
type Blocks struct {
	list    []netip.Prefix
	has     map[netip.Prefix]bool
	lengths [2][]int // of the IPv4 and of the IPv6 prefixes, each once, ascending
}

// newBlocks returns the blocks of some prefixes, which have no bits beyond their
// length.
func newBlocks(list []netip.Prefix) Blocks {
	if len(list) == 0 {
		return Blocks{}
	}
	b := Blocks{list: list, has: make(map[netip.Prefix]bool, len(list))}
	for _, p := range list {
		b.has[p] = true
		of := &b.lengths[family(p.Addr())]
		*of = append(*of, p.Bits())
	}
	for i, of := range b.lengths {
		slices.Sort(of)
		b.lengths[i] = slices.Compact(of)
	}
	return b
}

// family is the index of an address's family in Blocks.lengths.
func family(ip netip.Addr) int {
	if ip.Is4() {
		return 0
	}
	return 1
}

// List returns them as in the file.
func (b *Blocks) List() []netip.Prefix { return slices.Clone(b.list) }

// Equal reports whether two lists are the same.
func (b *Blocks) Equal(other *Blocks) bool { return slices.Equal(b.list, other.list) }

// find returns the widest of the blocks that has an address.
func (b *Blocks) find(ip netip.Addr) (p netip.Prefix, ok bool) {
	for _, n := range b.lengths[family(ip)] {
		if p, err := ip.Prefix(n); err == nil && b.has[p] {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// bare is an address as it is on the wire: an IPv4 one that is written as IPv6 is an
// IPv4 one, and a zone says how to get there, not who is there.
func bare(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// Prefixes of IPv6 addresses that have an IPv4 address in them, to which translators
// and relays on the way pass what is sent there.
var (
	nat64 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x00, 0x64, 0xff, 0x9b}), 96) // RFC 6052 §2.1
	sixTo = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16)             // RFC 3056 §2
)

// within returns the IPv4 address that an IPv6 one has in it, if that can be told.
func within(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixTo.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// denying returns the block of deny that an address is in.
func (l *Limits) denying(ip netip.Addr) (netip.Prefix, bool) {
	ip = bare(ip)
	if p, in := l.Deny.find(ip); in {
		return p, true
	}
	if ip4, has := within(ip); has {
		return l.Deny.find(ip4)
	}
	return netip.Prefix{}, false
}

// Allowed reports whether an address is in allow; of an IPv6 address that has an IPv4
// one in it, the IPv6 one must be. Without the list none is.
func (l *Limits) Allowed(ip netip.Addr) bool {
	_, in := l.Allow.find(bare(ip))
	return in
}

// Only reports whether allow is set: nothing else may then be probed.
func (l *Limits) Only() bool { return len(l.Allow.list) > 0 }

// Refusal says why nothing may be sent to an address, or nothing. What deny has is
// refused, whatever allow says.
func (l *Limits) Refusal(ip netip.Addr) string {
	if p, in := l.denying(ip); in {
		return fmt.Sprintf("%s may not be probed: global.limits.deny has %s", ip, blockText(p))
	}
	if l.Only() && !l.Allowed(ip) {
		return fmt.Sprintf("%s may not be probed: global.limits.allow does not have it", ip)
	}
	return ""
}

// Forbids reports whether nothing may be sent to an address.
func (l *Limits) Forbids(ip netip.Addr) bool {
	if l.Free() {
		return false
	}
	_, in := l.denying(ip)
	return in || l.Only() && !l.Allowed(ip)
}

// Free reports whether there is no address that Forbids forbids.
func (l *Limits) Free() bool { return len(l.Deny.list) == 0 && !l.Only() }

// blocks is a list of IP addresses and blocks of them.
var blocks = codec[Blocks]{
	allowed: allowedBlocks,
	read: func(d *decoder, n *node) (Blocks, bool) {
		items, ok := d.list(n, allowedBlocks)
		list := make([]netip.Prefix, 0, len(items))
		for _, item := range items {
			s, is := d.text(item, "an IP address, or a block such as 198.18.0.0/24")
			if !is {
				ok = false
				continue
			}
			p, wrong := parseBlock(s)
			if wrong != "" {
				d.fail(item, "%s", wrong)
				ok = false
				continue
			}
			list = append(list, p)
			if d.rules == nil {
				d.rules = make(map[string]int)
			}
			rule := n.key + " " + blockText(p)
			d.rules[rule] = cmp.Or(d.rules[rule], item.Line)
		}
		return newBlocks(list), ok
	},
	write: func(b Blocks) *yaml.Node {
		if len(b.list) == 0 {
			return nil
		}
		y := &yaml.Node{Kind: yaml.SequenceNode}
		for _, p := range b.list {
			y.Content = append(y.Content, word(blockText(p)))
		}
		return y
	},
}

const allowedBlocks = "a list of IP addresses and blocks such as 198.18.0.0/24"

// someBlocks is blocks, of which there must be one: a list that nothing is on would
// have nothing probed.
var someBlocks = codec[Blocks]{
	allowed: allowedBlocks,
	read: func(d *decoder, n *node) (Blocks, bool) {
		b, ok := blocks.read(d, n)
		if ok && len(b.list) == 0 {
			d.fail(n, "an empty list would let nothing be probed; leave the key out to let everything be, or list what may be")
			return b, false
		}
		return b, ok
	},
	write: blocks.write,
}

// parseBlock reads an address or a prefix, or says what is wrong.
func parseBlock(s string) (p netip.Prefix, wrong string) {
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return p, quote(s) + " is not a block of IP addresses; write one such as 198.18.0.0/24 or 2001:db8::/32"
		}
	} else {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return p, quote(s) + " is neither an IP address nor a block of them; write 198.18.0.1 or 198.18.0.0/24, say"
		}
		if ip.Zone() != "" {
			return p, s + ": an address is meant whatever its zone; write " + ip.WithZone("").String()
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	if ip := p.Addr(); ip.Is4In6() {
		meant := netip.PrefixFrom(ip.Unmap(), max(p.Bits()-96, 0)).Masked()
		return p, s + " is IPv4 written as IPv6; write " + blockText(meant)
	}
	if m := p.Masked(); m != p {
		return p, fmt.Sprintf("%s has bits beyond its length; write %s, or %s for the one address", s, m, p.Addr())
	}
	return p, ""
}

// blockText writes a block as people do: one address without its length.
func blockText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// rule says where the rule stands by which an address is refused.
func (d *decoder) rule(ip netip.Addr) string {
	l := &d.config.Global.Limits
	if p, in := l.denying(ip); in {
		if line := d.rules["deny "+blockText(p)]; line > 0 {
			return fmt.Sprintf(" (line %d)", line)
		}
	} else if d.limits != nil {
		return fmt.Sprintf(" (line %d)", d.limits.value("allow").Line)
	}
	return ""
}
