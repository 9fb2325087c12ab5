package trust

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// The interface goes down and comes back, loses its addresses and gets them again, is
// renamed, and is removed and made anew.
func TestFaultNetLink(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	eth, own4, own6 := r.here.Iface(), r.here.Addr4(), r.here.Addr6()
	r.here.Sysctl("net.ipv6.conf."+eth+".keep_addr_on_down", "1")
	named := fmt.Sprintf(`- {name: named, module: named, targets: ["%v:80", "[%v]:80"]}`, r.there.Addr4(), r.there.Addr6())
	// Peers behind the other host that answer so late that something is always under way.
	lab.ScriptedPeer(t, r.there, []string{"198.18.64.0/24"}, func(in wire.Packet) []lab.Reply {
		if in.Segment.Flags != probe.SYN {
			return nil
		}
		late := lab.SYNACK(in)
		late.Delay = 60 * time.Millisecond
		return []lab.Reply{late}
	})
	slow := "ip route replace 198.18.64.0/24 via " + r.there.Addr4().String()
	named += "\n- {name: slow, module: half, targets: ['198.18.64.1:80', '198.18.64.2:80', '198.18.64.3:80', '198.18.64.4:80']}"
	r.start(fmt.Sprintf("modules:\n  named: {probe: half_open, interval: 100ms, timeout: 400ms, interface: %s}\n", eth) + r.probing()[len("\nmodules:\n"):] + named + "\n")

	r.suffer(netFault{
		what: "interface down and up",
		make: func() { r.run(r.here, "ip link set "+eth+" down") },
		end: func() {
			r.run(r.here, "ip link set "+eth+" up")
			r.run(r.here, slow)
		},
	})
	r.suffer(netFault{
		what: "IPv4 address removed and added",
		make: func() { r.run(r.here, fmt.Sprintf("ip address del %v/24 dev %s", own4, eth)) },
		end: func() {
			r.run(r.here, fmt.Sprintf("ip address add %v/24 dev %s", own4, eth))
			r.run(r.here, slow)
		},
	})
	r.here.Sysctl("net.ipv6.conf."+eth+".accept_dad", "1")
	r.suffer(netFault{
		what: "IPv6 address removed and added, with duplicate address detection",
		make: func() { r.run(r.here, fmt.Sprintf("ip address del %v/64 dev %s", own6, eth)) },
		end:  func() { r.run(r.here, fmt.Sprintf("ip address add %v/64 dev %s", own6, eth)) },
	})
	r.suffer(netFault{
		rare: true,
		what: "interface down, renamed, named back, up",
		make: func() {
			r.run(r.here, "ip link set "+eth+" down")
			r.run(r.here, "ip link set "+eth+" name other")
			r.run(r.here, "ip link set other up")
		},
		end: func() {
			r.run(r.here, "ip link set other down")
			r.run(r.here, "ip link set other name "+eth)
			r.run(r.here, "ip link set "+eth+" up")
			r.run(r.here, slow)
		},
	})
	sleeper := r.there.Command(t.Context(), "sleep", "1000") // whose namespace ip(8) can name
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	other := r.there.Iface()
	r.suffer(netFault{
		what: "interface removed and made anew",
		make: func() { r.run(r.here, "ip link del "+eth) },
		end: func() {
			r.run(r.here, "ip link add "+eth+" type veth peer name "+other+" netns "+strconv.Itoa(sleeper.Process.Pid))
			r.run(r.there, "ip link set "+other+" up")
			r.run(r.there, fmt.Sprintf("ip address add %v/24 dev %s", r.there.Addr4(), other))
			r.run(r.there, fmt.Sprintf("ip address add %v/64 dev %s nodad", r.there.Addr6(), other))
			r.run(r.here, "ip link set "+eth+" up")
			r.run(r.here, fmt.Sprintf("ip address add %v/24 dev %s", own4, eth))
			r.run(r.here, fmt.Sprintf("ip address add %v/64 dev %s nodad", own6, eth))
			r.run(r.here, slow)
		},
	})
	r.end()
	if n := r.done[0].after.sum("probed_probes_discarded_total", "reason", "link_down"); n == 0 {
		t.Error("nothing was under way when the interface went down")
	}
}
