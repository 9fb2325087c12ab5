package config

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Endpoint is the address of a target.
type Endpoint struct {
	Address string     // host:port as written
	Host    string     // lower case; an IP address in its canonical form, without brackets
	IP      netip.Addr // the zero Addr for a host name; has a zone only if link-local
	Port    uint16
}

// bareHost returns the host without the dot that may end a name: with or without
// it, it is the same one.
func (e *Endpoint) bareHost() string { return strings.TrimSuffix(e.Host, ".") }

// ParseEndpoint reads host:port. The error says what is wrong with it.
func ParseEndpoint(s string) (Endpoint, error) {
	e, wrong := parseEndpoint(s)
	if wrong != "" {
		return Endpoint{}, errors.New(wrong)
	}
	return e, nil
}

// parseEndpoint reads host:port, or says what is wrong, in words that can be shown
// whatever stands there.
func parseEndpoint(s string) (e Endpoint, wrong string) {
	e, wrong = readEndpoint(s)
	return e, printable(wrong)
}

func readEndpoint(s string) (e Endpoint, wrong string) {
	host, port, wrong := splitHostPort(s)
	if wrong != "" {
		return e, wrong
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return e, quote(port) + " is not a port; allowed: 1 to 65535"
	}
	e = Endpoint{Address: s, Port: uint16(n), Host: strings.ToLower(host)}
	if !looksLikeIP(host) {
		if s[0] == '[' {
			return e, "only an IPv6 address goes in brackets; write " + clip(host) + ":" + port
		}
		return e, checkHostName(host)
	}
	if e.IP, wrong = parseUnicast(host); wrong != "" {
		return e, wrong
	}
	if canonical := e.IP.String(); canonical != e.Host { // else it is a part of s
		e.Host = canonical
	}
	if bracketed := s[0] == '['; bracketed != e.IP.Is6() {
		return e, "only an IPv6 address goes in brackets; write " + netip.AddrPortFrom(e.IP, e.Port).String()
	}
	if e.IP.Zone() != "" && !e.IP.IsLinkLocalUnicast() {
		return e, "only a link-local address (fe80::/10) has a zone; write " +
			netip.AddrPortFrom(e.IP.WithZone(""), e.Port).String()
	}
	return e, ""
}

// splitHostPort cuts host:port and explains each way of getting it wrong.
func splitHostPort(s string) (host, port, wrong string) {
	s = withoutUserinfo(s) // whose @ makes it wrong
	switch {
	case s == "":
		return "", "", "empty; write host:port"
	case strings.Contains(s, "://"):
		return "", "", quote(s) + " is a URL; write host:port"
	case s[0] == '[':
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", quote(s) + " has no closing bracket; write [address]:port"
		}
		host, port = s[1:end], s[end+1:]
		if port == "" || port == ":" {
			return "", "", quote(s) + " has no port; write " + clip(s[:end+1]) + ":443, say"
		}
		if port[0] != ':' {
			return "", "", quote(s) + ": a :port must follow the bracket"
		}
		return host, port[1:], ""
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() {
		return "", "", bareIPv6(s)
	}
	switch strings.Count(s, ":") {
	case 0:
		return "", "", quote(s) + " has no port; write " + clip(s) + ":443, say"
	case 1:
		host, port, _ = strings.Cut(s, ":")
	default:
		return "", "", quote(s) + " has too many colons; write host:port, and an IPv6 address in brackets: [2001:db8::1]:443"
	}
	switch {
	case host == "":
		return "", "", quote(s) + " has no host; write host:port"
	case port == "":
		return "", "", quote(s) + " has no port; write " + clip(s) + "443, say"
	}
	return host, port, ""
}

// bareIPv6 explains that an IPv6 address needs brackets, and guesses which of
// its colons was meant to be the port's.
func bareIPv6(s string) string {
	end := strings.LastIndexByte(s, ':')
	if ip, err := netip.ParseAddr(s[:end]); err == nil && isNumber(s[end+1:]) {
		return quote(s) + " needs brackets around the address; write [" + ip.String() + "]:" + s[end+1:]
	}
	return quote(s) + " has no port; write [" + s + "]:443, say"
}

// looksLikeIP reports whether s can only be meant as an IP address: it has a
// colon, or its last label is a number, which no top-level domain is (RFC 3696
// §2).
func looksLikeIP(s string) bool {
	if strings.Contains(s, ":") {
		return true
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	_, err := strconv.ParseUint(last, 10, 64)
	return err == nil
}

// parseUnicast reads an IP address that a TCP connection can have at an end.
func parseUnicast(s string) (netip.Addr, string) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, quote(s) + " is not an IP address"
	case ip.Is4In6():
		return netip.Addr{}, s + " is an IPv4 address written as IPv6; write " + ip.Unmap().String()
	}
	if what := NotUnicast(ip); what != "" {
		return netip.Addr{}, s + " is " + what + "; only unicast addresses can be probed"
	}
	return ip, ""
}

// Blocks of IPv4 that no host has an address of.
var (
	thisNetwork = netip.PrefixFrom(netip.AddrFrom4([4]byte{0}), 8)   // RFC 1122 §3.2.1.3
	reserved    = netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4) // RFC 1112 §4
)

// NotUnicast says what an address is that no single host can have: "a multicast
// address". It says nothing of one that a host can have.
func NotUnicast(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified():
		return "the unspecified address"
	case ip.IsMulticast():
		return "a multicast address"
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	case thisNetwork.Contains(ip):
		return "an address of 0.0.0.0/8, which no host can have"
	case reserved.Contains(ip):
		return "a reserved address (240.0.0.0/4)"
	}
	return ""
}

// checkHostName says what is wrong with a DNS name (RFC 1123 §2.1, and the
// underscore that service names use), or nothing.
func checkHostName(s string) string {
	name := strings.TrimSuffix(s, ".")
	if len(name) > 253 {
		return "a host name has at most 253 characters, this one has " + strconv.Itoa(len(name))
	}
	for _, label := range strings.Split(name, ".") {
		switch {
		case label == "":
			return quote(s) + " is not a host name: two dots in a row, or one at the start"
		case len(label) > 63:
			return quote(s) + " is not a host name: a part between dots has at most 63 characters"
		case label[0] == '-' || label[len(label)-1] == '-':
			return quote(s) + " is not a host name: a part between dots may not start or end with -"
		}
		for _, r := range label {
			if !isHostRune(r) {
				return quote(s) + " is not a host name: " + strconv.QuoteRune(r) + " is not allowed; allowed: letters, digits, - and _"
			}
		}
	}
	return ""
}

func isHostRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_'
}
