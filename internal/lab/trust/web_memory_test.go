package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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

// TestWebUnread has connections of HTTP/2 whose client takes nothing of what it asks for,
// neither with a password nor without. It has the machine to itself too.
func TestWebUnread(t *testing.T) {
	w := newTLSWorld(t)
	prometheus := w.http2Client(t)
	for _, c := range []struct{ what, password string }{{"with a password", "right"}, {"without a password", ""}} {
		w.under("streams of HTTP/2 that nobody reads, "+c.what, "requests", func() (int, string) {
			var asked atomic.Int64
			n := times(4000, 1000)
			held := make([]net.Conn, n)
			all(n, 16, func(i int) {
				s, err := w.unread(stranger(i), "/static/list.js", c.password)
				held[i] = s
				if err == nil {
					asked.Add(unreadStreams)
				}
			})
			defer closeConns(held)
			for range 5 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+w.at+"/metrics", nil)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				resp, err := prometheus.Do(req)
				if err != nil {
					t.Errorf("a scrape by HTTP/2: %v", err)
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
					t.Errorf("a scrape by HTTP/2: %s %s %v after %v", resp.Proto, resp.Status, err, time.Since(began))
				}
				time.Sleep(time.Duration(times(2000, 200)) * time.Millisecond)
			}
			return int(asked.Load()), w.room()
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
// nothing of, by TLS and HTTP/2, with headers as long as any may be and longer, and come again
// as often as they are shown out. It has the machine to itself.
func TestWebWithinMemoryTLS(t *testing.T) {
	const limit, addresses = 128, 20
	room := contain(t, limit<<20)
	w := newWebWorldOf(t, 2000, manyYAML, room.inside, withArgs("--web.config.file="+withoutPasswords(t)))
	w.overTLS()
	w.ready()
	paths := []string{"/events", "/metrics", "/"}
	w.under("answers of 2,000 targets that 20 addresses ask for by TLS, in long headers, and don't read, in 128 MiB", "connections", func() (int, string) {
		var opened atomic.Int64
		until := time.Now().Add(time.Duration(times(25, 6)) * time.Second)
		all(510, 510, func(i int) {
			for time.Now().Before(until) {
				var c net.Conn
				var err error
				if i < 64 {
					c, err = w.unread(stranger(i%addresses), paths[i%3], "")
				} else {
					c, err = w.insist(stranger(i%addresses), paths[i%3], 7500<<(i%2*2))
				}
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

// http2Client is one from there that speaks HTTP/2 and knows the password.
func (w *webWorld) http2Client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return w.dial(0) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: withPassword{transport}, Timeout: patience}
}

// unreadStreams is how many there are on a connection.
const unreadStreams = 32

// unread asks for a path on every stream of a connection of HTTP/2 on which nothing may be
// sent in answer.
func (w *webWorld) unread(from, path, password string) (net.Conn, error) {
	plain, err := w.dialFrom(from, 0)
	if err != nil {
		return nil, err
	}
	c := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return c, err
	}
	var said bytes.Buffer
	said.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&said, nil)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		return c, err
	}
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "probed"}, {Name: ":path", Value: path}}
	if password != "" {
		fields = append(fields, hpack.HeaderField{Name: "authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte("prometheus:"+password))})
	}
	for i := range uint32(unreadStreams) {
		block.Reset()
		for _, f := range fields {
			if err := e.WriteField(f); err != nil {
				return c, err
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1 + 2*i, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			return c, err
		}
	}
	_, err = c.Write(said.Bytes())
	return c, err
}

// insist asks for a path by TLS, a hundred times, in headers of so many octets.
func (w *webWorld) insist(from, path string, octets int) (net.Conn, error) {
	plain, err := w.dialFrom(from, 2048)
	if err != nil {
		return nil, err
	}
	c := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		return plain, err
	}
	var fields strings.Builder
	for i := range 85 {
		fmt.Fprintf(&fields, "X-%d: %s\r\n", i, strings.Repeat("~", octets/85))
	}
	go func() {
		_, _ = io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: probed\r\nAccept-Encoding: gzip\r\n"+fields.String()+"\r\n", 100))
	}()
	return plain, nil
}

// linger waits, and reads nothing, for the other end to reset the connection.
func linger(c net.Conn, until time.Time) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
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
