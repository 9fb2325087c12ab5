package trust

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
)

// The interface's MTU is lowered below what probes send and their peers answer. There is no
// router on the way: the peers still know the path, and nobody cuts what they send.
func TestFaultNetMTU(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	eth, own6 := r.here.Iface(), r.here.Addr6()
	// It answers 3,000 octets by as many, and closes. It writes them in segments: what the sending device is to
	// cut veth takes whatever its size.
	const octets = 3000
	for _, h := range []interface {
		Serve(network, addr string, handle func(net.Conn)) net.Listener
	}{r.there, r.aside} {
		h.Serve("tcp", "[::]:83", func(c net.Conn) {
			if _, err := io.ReadFull(c, make([]byte, octets)); err == nil {
				for range 3 {
					_, _ = c.Write(bytes.Repeat([]byte("x"), octets/3))
				}
			}
		})
	}
	talk := fmt.Sprintf("  talk: {probe: passive_close, interval: 250ms, timeout: 2s, send: %q}\n", bytes.Repeat([]byte("x"), octets))
	talk += fmt.Sprintf("  talk_packet: {probe: passive_close, interval: 250ms, timeout: 2s, transmit: packet, send: %q}\n", bytes.Repeat([]byte("x"), octets))
	config := "\nmodules:\n" + talk + r.probing()[len("\nmodules:\n"):]
	for _, module := range []string{"talk", "talk_packet"} {
		config += fmt.Sprintf("- {name: %[1]s, module: %[1]s, targets: ['%[2]v:83', '[%[3]v]:83', '%[4]v:83']}\n", module, r.there.Addr4(), r.there.Addr6(), r.aside.Addr4())
	}
	r.start(config)
	for _, mtu := range []int{1280, 576, 68} {
		r.suffer(netFault{
			rare: mtu != 576,
			what: "MTU of the interface lowered to " + strconv.Itoa(mtu),
			make: func() { r.run(r.here, fmt.Sprintf("ip link set %s mtu %d", eth, mtu)) },
			end: func() {
				r.run(r.here, "ip link set "+eth+" mtu 1500")
				r.run(r.here, fmt.Sprintf("ip address replace %v/64 dev %s nodad", own6, eth))
			},
		})
	}
	r.end()
}
