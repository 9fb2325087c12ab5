package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A crowd is the connections that are open at once, so many at most. It is never closed to
// whoever comes: when it is full, the client with the most places gives one up, the one
// that it has had longest of those that have done nothing for a while, or else of all.
// So whoever takes all the places takes them from himself, and Prometheus, which has one
// or two, gets in and stays.
type crowd struct {
	most  int
	clock func() time.Time

	mu     sync.Mutex
	guests map[*guest]struct{}
	places map[netip.Prefix]int // by client
	came   uint64
}

// A guest has a place.
type guest struct {
	crowd  *crowd
	client netip.Prefix
	came   uint64 // its number

	busy  bool      // guarded by the crowd's mu, as is
	since time.Time // when that was said

	mu   sync.Mutex
	gone bool
	out  func() // has it go; not called once it has gone
}

// quiet is how long a guest that does nothing has for its first or next request before
// those that do something are preferred: else newcomers would take their places from
// each other before they can speak.
const quiet = time.Second

func newCrowd(most int, clock func() time.Time) *crowd {
	return &crowd{most: most, clock: clock, guests: make(map[*guest]struct{}), places: make(map[netip.Prefix]int)}
}

// crowd is that of all connections: a smaller one within a small budget, so that what their
// buffers, headers, TLS and requests take is a part of it.
func (d *daemon) crowd() *crowd { return newCrowd(d.budget.Part(mostConnections), time.Now) }

// enter gives a client a place, and the client calls leave. out is called if another
// gets it.
func (c *crowd) enter(client netip.Prefix, out func()) *guest {
	now := c.clock()
	c.mu.Lock()
	c.came++
	g := &guest{crowd: c, client: client, came: c.came, since: now, out: out}
	c.guests[g] = struct{}{}
	c.places[client]++
	var loser *guest
	if len(c.guests) > c.most {
		loser = c.loser(g, now)
		c.remove(loser)
	}
	c.mu.Unlock()
	if loser != nil {
		loser.mu.Lock()
		defer loser.mu.Unlock()
		if !loser.gone {
			loser.out()
		}
	}
	return g
}

// loser is who gives its place to a newcomer.
func (c *crowd) loser(newcomer *guest, now time.Time) *guest {
	var worst *guest
	for g := range c.guests {
		if g != newcomer && (worst == nil || c.before(g, worst, now)) {
			worst = g
		}
	}
	return worst
}

// before reports whether a gives up its place rather than b.
func (c *crowd) before(a, b *guest, now time.Time) bool {
	if d := cmp.Compare(c.places[a.client], c.places[b.client]); d != 0 {
		return d > 0
	}
	if idle := a.idle(now); idle != b.idle(now) {
		return idle
	}
	// Who has many addresses takes one place for each: none of them that says nothing ends what is
	// being served to another.
	if c.places[a.client] == 1 && a.busy != b.busy {
		return b.busy
	}
	return a.came < b.came
}

// idle reports whether a guest has done nothing for a while.
func (g *guest) idle(now time.Time) bool { return !g.busy && now.Sub(g.since) >= quiet }

// remove takes a guest's place. mu is held.
func (c *crowd) remove(g *guest) {
	if _, here := c.guests[g]; !here {
		return
	}
	delete(c.guests, g)
	if c.places[g.client]--; c.places[g.client] == 0 {
		delete(c.places, g.client)
	}
}

// leave gives the place back. It may be called again.
func (g *guest) leave() {
	g.mu.Lock()
	g.gone = true
	g.mu.Unlock()
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.crowd.remove(g)
}

// works says whether the guest does something.
func (g *guest) works(busy bool) {
	now := g.crowd.clock()
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.busy, g.since = busy, now
}

// clientOf is whom places are counted for: an IPv4 address, or the 64 bits of an IPv6
// address that a host gets as a rule, to choose the rest at will. What has no address
// is one client.
func clientOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits) // which both have
	return p
}

// doors is a listener whose connections are a crowd's: of all the doors together.
type doors struct {
	net.Listener
	crowd *crowd
}

// Accept implements net.Listener.
func (d *doors) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	in := &caller{Conn: c}
	in.here, in.ends = context.WithCancel(context.Background())
	in.guest = d.crowd.enter(clientOf(c.RemoteAddr().String()), in.reset)
	return in, nil
}

// A caller is a connection that has come in by a door.
type caller struct {
	net.Conn
	guest   *guest
	closing sync.Once

	here context.Context // until it has been ended
	ends context.CancelFunc
}

// lastWords is how long a client may take for what it has been sent last.
const lastWords = 5 * time.Second

// mostLastWords is how many octets it may say meanwhile, which nobody reads.
const mostLastWords = 64 << 10

// reset ends the connection with a RST, so that nothing is left of it here: neither of its
// requests, which would wait on for whoever is no longer counted.
func (c *caller) reset() {
	c.ends()
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Conn.Close()
}

// Close implements net.Conn. What its client has not taken the kernel would keep for minutes
// yet, as our memory, of a connection that is no longer counted: so it keeps its place
// until the client has everything, or has had its time and is reset.
func (c *caller) Close() (err error) {
	c.closing.Do(func() {
		c.ends()
		if !c.owes() {
			c.guest.leave()
			err = c.Conn.Close()
			return
		}
		err = c.CloseWrite()
		go func() {
			defer c.guest.leave()
			_ = c.SetReadDeadline(time.Now().Add(lastWords))
			_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, mostLastWords)) // until the client closes it too
			if c.owes() {
				c.reset()
				return
			}
			_ = c.Conn.Close()
		}()
	})
	return err
}

// owes reports whether something is on its way that the client has not confirmed.
func (c *caller) owes() (some bool) {
	socket, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // fails only of a socket that is closed
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		some = err == nil && info.Unacked+info.Notsent_bytes > 0
	})
	return some
}

// CloseWrite is net.TCPConn's, which http.Server asks for.
func (c *caller) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connState is http.Server's hook: a connection is at work from the end of a request's
// header to the end of the answer.
func connState(c net.Conn, state http.ConnState) {
	if caller := callerOf(c); caller != nil {
		caller.guest.works(state == http.StateActive)
	}
}

// connContext is http.Server's other hook: a connection's requests end with it. The server
// itself doesn't see its end while there is something to read, such as a next request.
func connContext(ctx context.Context, c net.Conn) context.Context {
	caller := callerOf(c)
	if caller == nil {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(caller.here, cancel)
	return ctx
}

// callerOf returns who has come in, below TLS too, or nil.
func callerOf(c net.Conn) *caller {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	in, _ := c.(*caller)
	return in
}
