package rawsock

import (
	"crypto/rand"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GuardPorts holds the ports first..last and keeps the kernel from answering
// anything that arrives there. Each has a listening socket, which the kernel
// finds first; its checks then drop every segment in silence, in this order
// (net/ipv4/tcp_ipv4.c tcp_v4_rcv, net/ipv6/tcp_ipv6.c tcp_v6_rcv):
//   - a TTL below 255 (IP_MINTTL, RFC 5082): all but on-link senders,
//   - no MD5 signature (TCP_MD5SIG_EXT, RFC 2385) by a random key that
//     concerns every peer,
//   - a filter that drops all, where the kernel lets us attach one: since
//     Linux 6.18 or so that takes CAP_NET_ADMIN on a TCP socket.
//
// The first two need no capability. Taps and raw sockets still see everything.
func GuardPorts(first, last uint16) (*Ports, error) {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails since Go 1.24
	return holdPorts(first, last, func(fd, family int) error { return guard(fd, family, key[:]) }, true)
}

// guard sets a socket's checks. It comes before bind and listen, so that no
// segment finds it without them.
func guard(fd, family int, key []byte) error {
	if err := requireTTL(fd, family); err != nil {
		return err
	}
	signed := requireMD5(fd, family, key)
	filtered := attachFilter(fd, dropAll())
	if signed != nil && filtered != nil {
		return fmt.Errorf("neither an MD5 key (CONFIG_TCP_MD5SIG) nor a filter (CAP_NET_ADMIN): %w",
			errors.Join(signed, filtered))
	}
	return nil
}

// requireTTL makes the socket require that segments have crossed no router.
func requireTTL(fd, family int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, 255); err != nil {
		return optionError("IP_MINTTL", err)
	}
	if family != unix.AF_INET6 {
		return nil
	}
	return optionError("IPV6_MINHOPCOUNT", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, 255))
}

// requireMD5 makes the socket require a signature by key from every peer. On
// a dual-stack socket IPv4 has its own entry, under the v4-mapped form of its
// address and IPv4's prefix length (tcp_v6_parse_md5_keys).
func requireMD5(fd, family int, key []byte) error {
	var any unix.RawSockaddrInet6 // ::
	if family == unix.AF_INET {
		// RawSockaddrInet4's 0.0.0.0 is as many zeros.
		return setMD5(fd, unix.AF_INET, any, key)
	}
	if err := setMD5(fd, unix.AF_INET6, any, key); err != nil {
		return err
	}
	any.Addr[10], any.Addr[11] = 0xff, 0xff // ::ffff:0.0.0.0
	return setMD5(fd, unix.AF_INET6, any, key)
}

func setMD5(fd int, family uint16, addr unix.RawSockaddrInet6, key []byte) error {
	sig := unix.TCPMD5Sig{Flags: unix.TCP_MD5SIG_FLAG_PREFIX, Prefixlen: 0}
	addr.Family = family
	*(*unix.RawSockaddrInet6)(unsafe.Pointer(&sig.Addr)) = addr
	sig.Keylen = uint16(copy(sig.Key[:], key))
	octets := unsafe.Slice((*byte)(unsafe.Pointer(&sig)), unsafe.Sizeof(sig))
	return optionError("TCP_MD5SIG_EXT", unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG_EXT, string(octets)))
}
