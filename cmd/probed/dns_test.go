package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// A nameServer answers A and AAAA questions over UDP; a name that it does not
// have does not exist.
type nameServer struct {
	mu     sync.Mutex
	names  map[string][]netip.Addr
	broken []dnsmessage.Type // the answers to these are SERVFAIL
}

// serveDNS starts a name server on 127.0.0.1:53 of a host.
func serveDNS(t *testing.T, h *lab.Host, names map[string][]netip.Addr) *nameServer {
	t.Helper()
	s := &nameServer{names: names}
	var conn net.PacketConn
	var err error
	h.Do(func() { conn, err = net.ListenPacket("udp", "127.0.0.1:53") })
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { s.serve(t, conn) })
	t.Cleanup(func() {
		_ = conn.Close()
		done.Wait()
	})
	return s
}

// set changes what a name resolves to; no address at all removes it.
func (s *nameServer) set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
	if len(addrs) > 0 {
		s.names[name] = parseAddrs(addrs...)
	}
}

// fail answers questions of these types with SERVFAIL, and all others as usual.
func (s *nameServer) fail(types ...dnsmessage.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = types
}

func parseAddrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range texts {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func (s *nameServer) serve(t *testing.T, conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.Errorf("name server: %v", err)
			return
		}
		answer, err := s.answer(buf[:n])
		if err != nil {
			t.Errorf("name server: %v", err)
			continue
		}
		_, _ = conn.WriteTo(answer, from)
	}
}

func (s *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	q := m.Questions[0]
	addrs, known := s.names[strings.TrimSuffix(q.Name.String(), ".")]
	broken := slices.Contains(s.broken, q.Type)
	switch {
	case broken:
		m.RCode = dnsmessage.RCodeServerFailure
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		switch {
		case broken:
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}
