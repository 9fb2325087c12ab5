package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A GVisor is a peer behind a TUN whose TCP is gVisor's netstack: one that shares
// no code with Linux's.
type GVisor struct {
	tb    testing.TB
	addrs []netip.Addr
	link  *channel.Endpoint
	stack *stack.Stack
	going sync.WaitGroup
}

const (
	gvisorNIC = 1
	gvisorMTU = 1500
	// gvisorQueue is how many packets of the stack's may wait for the TUN.
	gvisorQueue = 4096
)

// GVisorPeer gives the host a neighbour at one IPv4 and one IPv6 address that
// speaks TCP as gVisor does.
func GVisorPeer(tb testing.TB, h *Host, addr4, addr6 string) *GVisor {
	tb.Helper()
	g := &GVisor{tb: tb, addrs: []netip.Addr{netip.MustParseAddr(addr4), netip.MustParseAddr(addr6)}}
	g.link = channel.New(gvisorQueue, gvisorMTU, "")
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	if err := g.stack.CreateNIC(gvisorNIC, g.link); err != nil {
		tb.Fatalf("lab: gVisor of host %s: %v", h.Name, err)
	}
	for _, a := range g.addrs {
		p := tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
		if err := g.stack.AddProtocolAddress(gvisorNIC, p, stack.AddressProperties{}); err != nil {
			tb.Fatalf("lab: gVisor of host %s: %s: %v", h.Name, a, err)
		}
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: gvisorNIC},
		{Destination: header.IPv6EmptySubnet, NIC: gvisorNIC},
	})
	g.attach(h)
	return g
}

// attach joins the stack to the host by a TUN.
func (g *GVisor) attach(h *Host) {
	g.tb.Helper()
	p := &Peer{tb: g.tb, end: h.newEnd(h.lab.nextJoint(), 1, "tun")}
	p.tun = openTUN(p.end)
	pump, err := newPump(p.tun)
	if err != nil {
		g.tb.Fatalf("lab: gVisor of host %s: %v", h.Name, err)
	}
	for _, a := range g.addrs {
		p.own(netip.PrefixFrom(a, a.BitLen()).String())
	}
	pump.handle = g.arrive
	go pump.run()
	ctx, stop := context.WithCancel(context.Background())
	g.going.Go(func() { g.depart(ctx, p.tun) })
	g.tb.Cleanup(func() {
		if err := pump.stop(); err != nil {
			g.tb.Errorf("lab: gVisor of host %s: %v", h.Name, err)
		}
		g.stack.Destroy()
		stop()
		g.going.Wait()
		_ = unix.Close(p.tun.fd)
	})
}

// arrive hands the stack a packet. It runs on the TUN's thread.
func (g *GVisor) arrive(_ Stamp, packet []byte) {
	protocol := header.IPv4ProtocolNumber
	if packet[0]>>4 == 6 {
		protocol = header.IPv6ProtocolNumber
	}
	b := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	g.link.InjectInbound(protocol, b)
	b.DecRef()
}

// depart sends what the stack sends, until ctx ends.
func (g *GVisor) depart(ctx context.Context, t *tun) {
	for {
		b := g.link.ReadContext(ctx)
		if b == nil {
			return
		}
		v := b.ToView()
		t.write(v.AsSlice())
		v.Release()
		b.DecRef()
	}
}

// Serve listens on a port of both addresses and calls handle with every
// connection, as Host.Serve does.
func (g *GVisor) Serve(port uint16, handle func(net.Conn)) {
	g.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.tb.Cleanup(cancel)
	for _, a := range g.addrs {
		addr := tcpip.FullAddress{NIC: gvisorNIC, Addr: tcpip.AddrFromSlice(a.AsSlice()), Port: port}
		ln, err := gonet.ListenTCP(g.stack, addr, protocolOf(a))
		if err != nil {
			g.tb.Fatalf("lab: gVisor: listen on %s port %d: %v", a, port, err)
		}
		g.going.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil { // closed
					return
				}
				g.going.Go(func() {
					stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
					handle(conn)
					stop()
					_ = conn.Close()
				})
			}
		})
		g.tb.Cleanup(func() {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				g.tb.Errorf("lab: gVisor: %v", err)
			}
		})
	}
}

// Sockets lists the stack's TCP endpoints, those that listen included.
func (g *GVisor) Sockets() []Socket {
	g.tb.Helper()
	var all []Socket
	for _, e := range g.stack.RegisteredEndpoints() {
		ep, ok := e.(tcpip.Endpoint)
		if !ok {
			g.tb.Fatalf("lab: gVisor: an endpoint of type %T", e)
		}
		info, ok := ep.Info().(*stack.TransportEndpointInfo)
		if !ok {
			g.tb.Fatalf("lab: gVisor: info of type %T", ep.Info())
		}
		all = append(all, Socket{
			State:  tcp.EndpointState(ep.State()).String(),
			Local:  endOf(info.ID.LocalAddress, info.ID.LocalPort),
			Remote: endOf(info.ID.RemoteAddress, info.ID.RemotePort),
		})
	}
	return all
}

func endOf(a tcpip.Address, port uint16) string {
	addr, ok := netip.AddrFromSlice(a.AsSlice())
	if !ok {
		return fmt.Sprintf("*:%d", port)
	}
	return netip.AddrPortFrom(addr, port).String()
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}
