package monitoring

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// The ports of the peer, each with what is wrong there.
const (
	healthy = 80 // a service that answers, and closes when we do
	resets  = 81 // closes by RST
	leaks   = 82 // never closes
	silent  = 83 // a firewall drops what comes
	hangsUp = 84 // answers and closes first
	idles   = 85 // never closes first
	paths   = 86 // one of several paths to it is broken
	loses   = 87 // a third of what goes there is lost
	unnamed = 88 // of a name that doesn't resolve
	dawdles = 89 // takes a while to close
)

// liar is the address of a peer that answers wrongly first.
const liar = "198.18.64.1"

// delay is one way of the link between probed and its peer.
const delay = 5 * time.Millisecond

// A world is a host for probed and Prometheus, and peers that misbehave.
type world struct {
	probe, peer, forgetful *lab.Host
}

func newWorld(t *testing.T) *world {
	l := lab.New(t)
	w := &world{probe: l.Host("probe"), peer: l.Host("peer"), forgetful: l.Host("forgetful")}
	way := lab.Impairment{Delay: delay}
	third, lost := lab.Impairment{Delay: delay, Loss: 0.33}, lab.Impairment{Loss: 1}
	l.Link(w.probe, w.peer, lab.Direction{Impairment: way, Seed: 1, PerFlow: func(f lab.Flow) *lab.Impairment {
		switch {
		case f.Dst.Port() == loses:
			return &third
		case f.Dst.Port() == paths && f.Src.Port()%8 == 0:
			return &lost
		}
		return nil
	}}, lab.Direction{Impairment: way, Seed: 2})
	l.Join(w.probe, w.forgetful)

	listen := func(port int) string { return fmt.Sprintf("[::]:%d", port) }
	for _, port := range []int{healthy, paths, loses} {
		w.peer.Serve("tcp", listen(port), lab.Discard)
	}
	w.peer.Serve("tcp", listen(resets), func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		lab.Discard(c)
	})
	w.peer.Serve("tcp", listen(dawdles), func(c net.Conn) {
		lab.Discard(c)
		time.Sleep(30 * time.Millisecond)
	})
	forever := func(c net.Conn) {
		lab.Discard(c)
		<-t.Context().Done()
	}
	w.peer.Serve("tcp", listen(leaks), forever)
	w.peer.Serve("tcp", listen(idles), forever)
	w.peer.Serve("tcp", listen(silent), lab.Discard)
	w.peer.Refuse(silent, lab.Drop)
	w.peer.Serve("tcp", listen(hangsUp), nil)

	// A peer without memory: its TIME-WAIT ends at once, so that its length is
	// known within seconds. It closes its half first and waits for ours, lest the
	// kernel drop it in FIN-WAIT-2, which it would hold in the same way.
	w.forgetful.Sysctl("net.ipv4.tcp_max_tw_buckets", "0")
	w.forgetful.Serve("tcp", listen(hangsUp), func(c net.Conn) {
		_ = c.(*net.TCPConn).CloseWrite()
		lab.Discard(c)
	})

	// And one that answers twice, the first time wrongly, and is not always the same.
	lab.ScriptedPeer(t, w.forgetful, []string{liar + "/32"}, func(in wire.Packet) []lab.Reply {
		if in.Segment.Flags != probe.SYN {
			return nil
		}
		wrong, right := lab.SYNACK(in), lab.SYNACK(in)
		wrong.Segment.Ack = wrong.Segment.Ack.Add(1)
		right.Segment.Options.MSS -= uint16(in.Segment.Seq) % 2
		return []lab.Reply{wrong, right}
	})
	return w
}

// at is a port of the peer.
func (w *world) at(port uint16) string { return netip.AddrPortFrom(w.peer.Addr4(), port).String() }

// found is what a source of targets has: one that can be probed, and one without a port.
func (w *world) found() string { return fmt.Sprintf("- targets: [%q, %q]\n", w.at(healthy), "no-port") }

// configuration is probed's: its intervals are those of a real one divided by
// faster, or less.
func (w *world) configuration() string {
	return fmt.Sprintf(`
global:
  interval: 50ms
  timeout: 200ms
  limits: {packets_per_second: 10000, packets_per_second_per_address: 5000}
modules:
  close: {probe: active_close, interval: 160ms, timeout: 1s}
  hang_up: {probe: passive_close, interval: 160ms, timeout: 1s}
  reuse: {probe: time_wait, measure: reuse, interval: 320ms, timeout: 1s, after: 0s}
  reuse_lower: {probe: time_wait, measure: reuse, interval: 320ms, timeout: 1s, after: 0s, sequence: lower}
  refused: {probe: time_wait, measure: reuse, interval: 320ms, timeout: 1s, after: 0s, sequence: lower}
  tw_length: {probe: time_wait, measure: duration, interval: 20s, timeout: 2s, limit: 10s}
  flows: {probe: half_open, flows: 8}
  classic: {probe: half_open, buckets: []}
jobs:
  - {name: edge, targets: [%[1]q, %[2]q, %[3]q], labels: {team: core}}
  - {name: native, module: classic, targets: [%[1]q]}
  - {name: paths, module: flows, targets: [%[4]q]}
  - {name: names, interval: 500ms, targets: ["no-such-host.invalid:%[5]d"]}
  - {name: nowhere, targets: ["198.19.0.1:80", "%[11]s:80"]}
  - {name: web, module: close, targets: [%[1]q, %[6]q, %[7]q, %[12]q]}
  - {name: hang, module: hang_up, targets: [%[8]q, %[9]q]}
  - {name: again, module: reuse, targets: [%[8]q]}
  - {name: lower, module: reuse_lower, targets: [%[8]q]}
  - {name: refused, module: refused, targets: [%[8]q]}
  - {name: found, file_sd_configs: [{files: [found.yml]}]}
  - {name: lost, http_sd_configs: [{url: "http://127.0.0.1:1/", refresh_interval: 500ms}]}
  - {name: length, module: tw_length, targets: ["%[10]s"]}
`, w.at(healthy), w.at(silent), w.at(loses), w.at(paths), unnamed, w.at(resets), w.at(leaks), w.at(hangsUp), w.at(idles),
		netip.AddrPortFrom(w.forgetful.Addr4(), hangsUp), liar, w.at(dawdles))
}
