package trust

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe/wire"
)

// What leaves queues in this host, is dropped there, or fills the sockets' buffers.
func TestFaultNetQueue(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	r.there.AnyIP("198.18.80.0/21")
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("'198.18.%d.%d:80'", 80+i/250, 1+i%250))
	}
	r.alsoAside = true // the sockets are one for all
	r.start(r.probing() + fmt.Sprintf("- {name: many, interval: 1s, timeout: 900ms, targets: [%s]}\n", listed(many)))
	eth := r.here.Iface()
	unqueue := func() { r.run(r.here, "tc qdisc del dev "+eth+" root") }
	r.suffer(netFault{
		rare: true,
		what: "queue that drops: 64 kbit/s, 3 kB long",
		make: func() { r.run(r.here, "tc qdisc add dev "+eth+" root tbf rate 64kbit burst 1600 limit 3000") },
		end:  unqueue,
	})
	r.suffer(netFault{
		what:  "queue that stands still, and fills the send buffers (ENOBUFS)",
		make:  func() { r.run(r.here, "tc qdisc add dev "+eth+" root tbf rate 1kbit burst 1600 limit 10000000") },
		end:   unqueue,
		lasts: 4 * time.Second,
	})
	r.end()
}

// A TUN whose other end does not read: what crossed the tap is lost or late behind it.
func TestFaultNetTUN(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	var stall sync.Mutex
	lab.ScriptedPeer(t, r.here, []string{"198.18.64.0/24", "2001:db8:64::/64"}, func(in wire.Packet) []lab.Reply {
		stall.Lock()
		defer stall.Unlock()
		return lab.Listen(in)
	})
	r.start(r.probing() + "- {name: tun, module: half, targets: ['198.18.64.1:80', '[2001:db8:64::1]:80']}\n" +
		"- {name: tun_packet, module: half_packet, targets: ['198.18.64.1:80', '[2001:db8:64::1]:80']}\n")
	r.suffer(netFault{
		what: "TUN that nobody reads",
		make: stall.Lock,
		end:  stall.Unlock,
		lost: []string{"timeout"},
	})
	r.end()
}
