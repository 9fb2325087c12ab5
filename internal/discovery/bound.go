package discovery

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/prometheus/common/config"
)

// maxAnswer is how many octets an HTTP server may send in answer to one request,
// half a million targets, say. Prometheus's http_sd reads whatever comes.
const maxAnswer = 64 << 20

// clientOptions are for http_sd's client. It speaks HTTP/1.1, which answers a
// request before it takes the next, so that an answer's octets can be counted on
// the connection; and it asks for no compression, so that they are all there is.
func clientOptions() []config.HTTPClientOption {
	return []config.HTTPClientOption{config.WithHTTP2Disabled(), config.WithDialContextFunc(dial)}
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &boundedConn{Conn: c}, nil
}

// A boundedConn reads at most maxAnswer octets after each time it has written.
type boundedConn struct {
	net.Conn
	read atomic.Int64
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
