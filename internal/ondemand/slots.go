package ondemand

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// slots are for the probes under way. One client has half of them at most, and gives its
// last one up where all are taken for another that has at least two fewer: so that targets
// which are slow to answer don't lock others out, whoever asks for them. This host itself may
// have them all, and keeps what it has.
type slots struct {
	mu    sync.Mutex
	taken int
	has   map[netip.Prefix][]*slot // by client, in the order in which they were taken
}

// A slot is a probe's.
type slot struct {
	client   netip.Prefix
	fromHere bool
	out      context.CancelCauseFunc // has the probe end
}

// errGivenUp is why a probe has ended.
var errGivenUp = errors.New("too many probes are under way on request, and others have fewer of them: try again")

// take takes one, which is to be given back, or says why there is none. out is called if it
// is given up for another client's; it must not wait.
func (s *slots) take(client netip.Prefix, fromHere bool, out context.CancelCauseFunc) (*slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !fromHere && len(s.has[client]) >= each {
		return nil, fmt.Errorf("%d probes are under way on your request already: try again", each)
	}
	if s.taken >= most {
		loser := s.loser(client)
		if loser == nil {
			return nil, fmt.Errorf("%d probes are under way on request already: try again", most)
		}
		s.remove(loser)
		loser.out(errGivenUp)
	}
	x := &slot{client, fromHere, out}
	s.taken++
	s.has[client] = append(s.has[client], x)
	return x, nil
}

// loser is the last slot of the client elsewhere that has the most, if those are at least two
// more than a newcomer has.
func (s *slots) loser(newcomer netip.Prefix) (x *slot) {
	most := len(s.has[newcomer]) + 1
	for _, all := range s.has {
		if last := all[len(all)-1]; len(all) > most && !last.fromHere {
			x, most = last, len(all)
		}
	}
	return x
}

func (s *slots) give(x *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(x)
}

// remove takes a slot away, if it has not been given up. mu is held.
func (s *slots) remove(x *slot) {
	all := s.has[x.client]
	i := slices.Index(all, x)
	if i < 0 {
		return
	}
	s.taken--
	if s.has[x.client] = slices.Delete(all, i, i+1); len(all) == 1 {
		delete(s.has, x.client)
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
