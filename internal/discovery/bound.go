package discovery

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/config"
)

// maxAnswer is how many octets an HTTP server may send in answer to one request,
// half a million targets, say. Prometheus's http_sd reads whatever comes.
const maxAnswer = 64 << 20

// clientOptions are for http_sd's client. It speaks HTTP/1.1, which answers a
// request before it takes the next, so that an answer's octets can be counted on
// the connection; and it asks for no compression, so that they are all there is.
func (d *dialer) clientOptions() []config.HTTPClientOption {
	return []config.HTTPClientOption{config.WithHTTP2Disabled(), config.WithDialContextFunc(d.dial)}
}

// A dialer opens the connections of one source, and closes them with it. The client
// itself would keep them for minutes in case it asks again.
type dialer struct {
	mu     sync.Mutex
	open   map[*boundedConn]struct{}
	closed bool
}

func newDialer() *dialer { return &dialer{open: make(map[*boundedConn]struct{})} }

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	c := &boundedConn{Conn: conn, dialer: d}
	d.open[c] = struct{}{}
	return c, nil
}

// close closes the connections that are open. There are no more then.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.open {
		_ = c.Conn.Close() // the server has said all that it was asked for
	}
	clear(d.open)
}

// A boundedConn reads at most maxAnswer octets after each time it has written.
type boundedConn struct {
	net.Conn
	dialer *dialer
	read   atomic.Int64
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	return c.Conn.Close()
}

// Read implements net.Conn.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.read.Load() > maxAnswer {
		return 0, fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *boundedConn) Write(b []byte) (int, error) {
	c.read.Store(0)
	return c.Conn.Write(b)
}
