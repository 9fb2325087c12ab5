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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

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
