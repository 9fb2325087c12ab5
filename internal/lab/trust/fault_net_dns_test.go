package trust

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// withNameServer has the daemon ask a name server, by an /etc/resolv.conf that it alone
// sees.
func withNameServer(t *testing.T, addr netip.Addr) option {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(fmt.Sprintf("nameserver %v\noptions timeout:1 attempts:1\n", addr)), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = `mount --bind "$0" /etc/resolv.conf && exec setpriv --reuid 65534 --regid 65534 --clear-groups ` +
		`--inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw --bounding-set=-all,+net_raw --pdeathsig KILL -- "$@"`
	return func(c *lab.Cmd) {
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatalf("unshare is not installed: apt-get install util-linux (%v)", err)
		}
		c.Path, c.Args = path, append([]string{path, "-m", "sh", "-c", script, file}, c.Args...)
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
}

// A liar is a name server that answers as it is told.
type liar struct {
	answer atomic.Pointer[func(q *dnsmessage.Message) []byte]
	honest []byte // address
}

// serveDNS starts a liar, honest so far, on a host's port 53.
func serveDNS(t *testing.T, h *lab.Host) *liar {
	t.Helper()
	l := &liar{honest: h.Addr4().AsSlice()}
	l.tell(l.honest)
	var conn net.PacketConn
	var err error
	h.Do(func() { conn, err = net.ListenPacket("udp", "0.0.0.0:53") })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			if b := (*l.answer.Load())(&q); b != nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return l
}

func (l *liar) says(f func(q *dnsmessage.Message) []byte) { l.answer.Store(&f) }

// tell has it answer with an address.
func (l *liar) tell(addr []byte) {
	l.says(func(q *dnsmessage.Message) []byte { return answerTo(q, addr, nil) })
}

// answerTo answers a question about IPv4 by an address, others by none.
func answerTo(q *dnsmessage.Message, addr []byte, change func(m *dnsmessage.Message)) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
	if len(q.Questions) == 1 && q.Questions[0].Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte(addr)},
		}}
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// The name server is dead, slow and wrong, and lies.
func TestFaultNetDNS(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	r.names = true
	dns := serveDNS(t, r.there)
	r.options = []option{withNameServer(t, r.there.Addr4())}
	config := "global: {resolve_interval: 1s}\n" + netProbing
	for module, port := range netPorts {
		config += fmt.Sprintf("- {name: %[1]s, module: %[1]s, targets: ['peer.test:%[2]d']}\n", module, port)
	}
	r.start(config)
	change := func(f func(m *dnsmessage.Message)) func(q *dnsmessage.Message) []byte {
		return func(q *dnsmessage.Message) []byte { return answerTo(q, dns.honest, f) }
	}
	flips := 0
	for _, f := range []struct {
		what string
		says func(q *dnsmessage.Message) []byte
		lost []string
		rare bool
	}{
		{"dead", func(*dnsmessage.Message) []byte { return nil }, nil, false},
		{"slow: 3 s", func(q *dnsmessage.Message) []byte {
			time.Sleep(3 * time.Second)
			return answerTo(q, dns.honest, nil)
		}, nil, true},
		{"broken: SERVFAIL", change(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), nil, true},
		{"another question's answer: wrong ID", change(func(m *dnsmessage.Message) { m.ID++ }), nil, true},
		{"truncated, and no TCP", change(func(m *dnsmessage.Message) { m.Truncated, m.Answers = true, nil }), nil, true},
		{"noise", func(*dnsmessage.Message) []byte { return []byte(strings.Repeat("noise", 20)) }, nil, true},
		{"denies the name: NXDOMAIN", change(func(m *dnsmessage.Message) { m.RCode, m.Answers = dnsmessage.RCodeNameError, nil }), []string{"not_resolved"}, false},
		{"lies: a multicast address", func(q *dnsmessage.Message) []byte { return answerTo(q, []byte{224, 0, 0, 1}, nil) }, []string{"not_resolved"}, false},
		{"lies: a broadcast address of ours", func(q *dnsmessage.Message) []byte { return answerTo(q, []byte{198, 18, 0, 255}, nil) }, nil, true},
		{"lies: this host itself", func(q *dnsmessage.Message) []byte { return answerTo(q, []byte{127, 0, 0, 1}, nil) }, []string{"refused"}, true},
		{"lies: another host", func(q *dnsmessage.Message) []byte { return answerTo(q, r.aside.Addr4().AsSlice(), nil) }, nil, true},
		{"cannot decide", func(q *dnsmessage.Message) []byte {
			if flips++; flips%2 == 0 {
				return answerTo(q, dns.honest, nil)
			}
			return answerTo(q, r.aside.Addr4().AsSlice(), nil)
		}, nil, true},
	} {
		lasts := 1200 * time.Millisecond // longer than from one look-up to the next
		if full() {
			lasts = 8 * time.Second
		}
		var before scrape
		r.suffer(netFault{
			what:  "name server " + f.what,
			make:  func() { before = r.d.scrape(); dns.says(f.says) },
			end:   func() { dns.tell(dns.honest) },
			lasts: lasts,
			tried: times(3, 1),
			lost:  f.lost,
			rare:  f.rare,
		})
		if f.rare && !full() {
			continue
		}
		last := r.done[len(r.done)-1]
		last.note = fmt.Sprintf("resolve failures %.0f", last.after.sum("probed_resolve_failures_total")-before.sum("probed_resolve_failures_total"))
	}
	r.end()
}
