package ondemand

import (
	"fmt"
	"net/netip"
	"sync"
)

// slots are for the probes under way. One client has half of them at most, so that its
// targets, which may be slow to answer, don't lock others out; this host itself may have
// them all.
type slots struct {
	mu    sync.Mutex
	taken int
	has   map[netip.Prefix]int // by client
}

// take takes one, which is to be given back, or says why there is none.
func (s *slots) take(client netip.Prefix, fromHere bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= most {
		return fmt.Errorf("%d probes are under way on request already: try again", most)
	}
	if !fromHere && s.has[client] >= each {
		return fmt.Errorf("%d probes are under way on your request already: try again", each)
	}
	s.taken++
	s.has[client]++
	return nil
}

func (s *slots) give(client netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.has[client]--; s.has[client] == 0 {
		delete(s.has, client)
	}
}

// clientOf is whom a slot is counted for: an IPv4 address, or the 64 bits of an IPv6
// address that a host gets as a rule. What has no address is one client.
func clientOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	p, _ := ip.Prefix(min(ip.BitLen(), 64)) // which both have
	return p
}
