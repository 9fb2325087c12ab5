package trust

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// mostMemory is what web clients may have probed grow to, in MiB: a container of 128, as
// those in deploy/kubernetes have, has room for it.
const mostMemory = 112

// room fails the test where probed has been larger, and says how large it was.
func (w *webWorld) room() string {
	w.t.Helper()
	most := lab.MostResident(w.t, w.d.cmd.Process.Pid)
	if most > mostMemory {
		w.t.Errorf("probed took %.0f MiB", most)
	}
	return fmt.Sprintf("at most %.0f MiB", most)
}

// stranger is one of many addresses there.
func stranger(i int) string { return fmt.Sprintf("198.19.0.%d", 1+i%250) }

// TestWebCompressed has clients of many addresses ask for what is compressed, again and
// again, and read nothing. It has the machine to itself, as others' bounds in time need.
func TestWebCompressed(t *testing.T) {
	w := newWebWorld(t)
	w.ready()
	for _, path := range []string{"/static/list.js", "/static/nowhere", "/"} {
		w.under("compressed answers that 250 addresses don't read: "+path, "connections", func() (int, string) {
			n := times(2000, 500)
			held := make([]net.Conn, n)
			all(n, 16, func(i int) {
				c, err := w.dialFrom(stranger(i), 4096)
				if err != nil {
					t.Errorf("a connection: %v", err)
					return
				}
				held[i] = c
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: probed\r\nAccept-Encoding: gzip\r\n\r\n", 200)) // as far as it takes them
			})
			defer closeConns(held)
			time.Sleep(time.Duration(times(10, 2)) * time.Second)
			return n, w.room()
		})
	}
}

// TestWebUnread has connections by TLS whose client takes nothing of what it asks for, neither
// with a password nor without. It has the machine to itself too.
func TestWebUnread(t *testing.T) {
	w := newTLSWorld(t)
	for _, c := range []struct{ what, fields string }{
		{"with a password", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("prometheus:right")) + "\r\n"},
		{"without a password", ""},
	} {
		w.under("answers by TLS that 250 addresses don't read, "+c.what, "connections", func() (int, string) {
			n := times(4000, 1000)
			held := make([]net.Conn, n)
			all(n, 16, func(i int) { held[i], _ = w.insist(stranger(i), "/static/list.js", c.fields) })
			defer closeConns(held)
			time.Sleep(time.Duration(times(10, 1)) * time.Second)
			return n, w.room()
		})
	}
}

// manyYAML probes two thousand targets, which the limits by default would not have.
const manyYAML = "global: {limits: {packets_per_second: 100000, packets_per_second_per_address: 5000}}\njobs:\n- {name: many, interval: 1s, timeout: 900ms, targets: [%s]}\n"

// TestWebWithinMemory has clients of many addresses ask a probed with 2,000 targets, in as
// much memory as deploy/kubernetes gives it, for what is the larger the more targets there
// are, and read nothing, or no more than has the kernel send much ahead, or leave unread
// what is left when the connection is closed. It lives, and is scraped meanwhile. It has
// the machine to itself.
func TestWebWithinMemory(t *testing.T) {
	const limit = 128
	room := contain(t, limit<<20)
	w := newWebWorldOf(t, 2000, manyYAML, room.inside)
	w.ready()
	for _, c := range []struct {
		what  string
		paths []string
		again string // asks for it again
		first int64  // octets that are read
		at, n int    // connections, at once and in all
	}{
		{"that 250 addresses don't read", []string{"/metrics", "/", "/events"}, keepAlive, 0, 400, times(4000, 400)},
		{"that 250 addresses read the beginning of", []string{"/metrics", "/static/list.js", "/api/v1/targets?limit=1000"}, keepAlive, 1 << 20, 400, times(4000, 400)},
		{"that nobody reads before the connection's end", []string{"/static/target.css"}, "Connection: close\r\n", 0, 8000, times(8000, 1500)},
	} {
		w.under("answers of 2,000 targets "+c.what+", in 128 MiB", "connections", func() (int, string) {
			var mu sync.Mutex
			var held []net.Conn
			defer func() { closeConns(held) }()
			all(c.n, 8, func(i int) {
				select {
				case <-w.d.ended:
					return
				default:
				}
				conn := w.ignore(stranger(i), c.paths[i%len(c.paths)], c.again, c.first)
				mu.Lock()
				if held = append(held, conn); len(held) > c.at {
					closeConns(held[:1])
					held = held[1:]
				}
				mu.Unlock()
				if c.again == keepAlive {
					time.Sleep(100 * time.Millisecond)
				}
			})
			all, sockets := room.most()
			if all > limit || sockets > limit/8 {
				t.Errorf("probed took %.0f MiB, %.0f of it for sockets", all, sockets)
			}
			return c.n, fmt.Sprintf("at most %.0f MiB, with %.0f for sockets", all, sockets)
		})
	}
}

// TestWebWithinMemoryTLS has clients of twenty addresses ask the same for what they read
// nothing of, by TLS, with headers as long as any may be and longer, and come again as often as
// they are shown out. It has the machine to itself.
func TestWebWithinMemoryTLS(t *testing.T) {
	const limit, addresses = 128, 20
	room := contain(t, limit<<20)
	w := newWebWorldOf(t, 2000, manyYAML, room.inside, withArgs("--web.config.file="+withoutPasswords(t)))
	w.overTLS()
	w.ready()
	paths := []string{"/events", "/metrics", "/"}
	long := [2]string{longHeader(7500), longHeader(30000)}
	w.under("answers of 2,000 targets that 20 addresses ask for by TLS, in long headers, and don't read, in 128 MiB", "connections", func() (int, string) {
		var opened atomic.Int64
		until := time.Now().Add(time.Duration(times(25, 6)) * time.Second)
		all(510, 510, func(i int) {
			for time.Now().Before(until) {
				c, err := w.insist(stranger(i%addresses), paths[i%3], long[i%2])
				if err == nil {
					opened.Add(1)
					linger(c, until)
				}
				closeConns([]net.Conn{c})
				time.Sleep(20 * time.Millisecond)
			}
		})
		all, sockets := room.most()
		if all > limit-8 { // a group never has more than its limit: whoever is at it waits, or is killed
			t.Errorf("probed took %.0f MiB", all)
		}
		return int(opened.Load()), fmt.Sprintf("at most %.0f MiB, with %.0f for sockets", all, sockets)
	})
}

// keepAlive is a field of a request that is one of many.
const keepAlive = "Connection: keep-alive\r\n"

// ignore asks for a path, again and again unless the connection ends then, and reads so many octets of the answers at most.
func (w *webWorld) ignore(from, path, again string, first int64) net.Conn {
	buffer := 2048
	if first > 0 {
		buffer = 0
	}
	c, err := w.dialFrom(from, buffer)
	if err != nil {
		w.t.Errorf("a connection: %v", err)
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	many := 500
	if again != keepAlive {
		many = 1
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: probed\r\n"+again+"\r\n", many)) // as far as it takes them
	}()
	_, _ = io.CopyN(io.Discard, c, first)
	<-asked
	return c
}

// longHeader is fields of a header, of so many octets together.
func longHeader(octets int) string {
	var fields strings.Builder
	for i := range 85 {
		fmt.Fprintf(&fields, "X-%d: %s\r\n", i, strings.Repeat("~", octets/85))
	}
	return fields.String()
}

// insist asks for a path by TLS, a hundred times, with such fields in the header.
func (w *webWorld) insist(from, path, fields string) (net.Conn, error) {
	plain, err := w.dialFrom(from, 2048)
	if err != nil {
		return nil, err
	}
	c := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		return plain, err
	}
	go func() {
		_, _ = io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: probed\r\nAccept-Encoding: gzip\r\n"+fields+"\r\n", 100))
	}()
	return plain, nil
}

// linger waits, and reads nothing, for the other end to reset the connection.
func linger(c net.Conn, until time.Time) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	for err == nil && time.Now().Before(until) {
		open := false
		_ = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			open = err == nil && info.State == 1 // ESTABLISHED
		})
		if !open {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
