package trust

import (
	"fmt"
	"testing"
	"time"
)

// hurried has a host believe in its neighbours for a second instead of half a minute.
func hurried(r *netRig) {
	r.t.Helper()
	for _, of := range []string{"ipv4", "ipv6"} {
		prefix := "net." + of + ".neigh." + r.here.Iface() + "."
		r.here.Sysctl(prefix+"base_reachable_time_ms", "1000")
		r.here.Sysctl(prefix+"delay_first_probe_time", "1")
		r.here.Sysctl(prefix+"retrans_time_ms", "200")
	}
}

// The peer is not to be found on the link, and its link address changes. A last ACK that is
// lost there leaves it in LAST-ACK, and the next SYN on the four-tuple has a challenge ACK.
func TestFaultNetNeighbour(t *testing.T) {
	t.Parallel()
	r := newNetRig(t)
	hurried(r)
	r.start(r.probing())
	eth, theirs := r.here.Iface(), r.there.Iface()
	r.suffer(netFault{
		what: "neighbour silent, forgotten", // what was sent there lies here until the kernel gives it up
		make: func() {
			r.there.NFT("table netdev fault {\nchain c { type filter hook ingress device " + theirs + " priority 0; drop; }\n}\n")
			r.run(r.here, "ip neigh flush dev "+eth)
		},
		end:   func() { r.run(r.there, "nft delete table netdev fault") },
		lasts: 2 * time.Second,
		lost:  []string{"timeout", "unreachable", "challenge_ack"}, // our kernel's own ICMP error
	})
	r.suffer(netFault{
		rare: true,
		what: "no carrier: the other end of the cable is down", // the kernel says so a second later
		make: func() { r.run(r.there, "ip link set "+theirs+" down") },
		end: func() {
			r.run(r.there, "ip link set "+theirs+" up")
			r.run(r.there, fmt.Sprintf("ip address replace %v/64 dev %s nodad", r.there.Addr6(), theirs))
		},
		lasts: 2 * time.Second,
		lost:  []string{"timeout", "unreachable", "fin_unacked", "fin_missing", "peer_never_closed", "challenge_ack"},
	})
	n := 0
	r.suffer(netFault{
		rare: true,
		what: "neighbour with another link address",
		make: func() {
			n++
			r.run(r.there, fmt.Sprintf("ip link set %s address 02:00:00:00:01:%02x", theirs, n))
		},
		end:  func() {},
		lost: []string{"timeout", "unreachable", "fin_unacked", "fin_missing", "peer_never_closed", "challenge_ack"},
	})
	var began scrape
	failed := 0.0
	r.suffer(netFault{
		what: "neighbour with another link address, and raw sockets refused by the firewall",
		make: func() {
			r.here.NFT("table inet fault {\nchain c { type filter hook output priority 0; oif " + eth + " tcp sport 61000-61255 drop; }\n}\n")
			n++
			r.run(r.there, fmt.Sprintf("ip link set %s address 02:00:00:00:01:%02x", theirs, n))
			// The kernel believes in it for a second before it doubts it, for another until it
			// asks, and for 0.6 s until it has asked three times, or for one and a half if
			// nothing was sent; what was lost by that runs out of time two seconds later.
			time.Sleep(5 * time.Second)
			began = r.d.scrape()
		},
		end: func() {
			now, was := netFailures(r.d.scrape()), netFailures(began)
			for of := range now {
				if n := now[of] - was[of]; n > 0 {
					t.Logf("%v failed %v times while the firewall let none out", of, n)
				}
			}
			failed += r.d.scrape().sum("probed_probe_failures_total") - began.sum("probed_probe_failures_total")
			r.run(r.here, "nft delete table inet fault")
		},
		lasts: 2500 * time.Millisecond,                                                                                // connections run out of time
		lost:  []string{"timeout", "unreachable", "fin_unacked", "fin_missing", "peer_never_closed", "challenge_ack"}, // once it sends again, to the old address
	})
	if failed > 0 {
		t.Errorf("%.0f probes failed while the firewall let none out", failed)
	}
	r.end()
}
