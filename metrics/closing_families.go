package metrics

import "github.com/probed/probed/probe"

// teardownFamilies is the contract's "teardown".
func teardownFamilies() []family {
	return []family{
		{
			name: "probed_teardowns_total", kind: counter,
			help: "Number of connections that both sides closed, by form: four_way, three_way if the second FIN was in the segment that acknowledged the first, simultaneous if the FINs crossed.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				for f := probe.FourWay; int(f) < len(n.forms); f++ {
					// FINs cross only where we don't wait for the peer's.
					if n.forms[f] > 0 || f != probe.Simultaneous || n.kind == probe.ActiveClose {
						x.value(t, float64(n.forms[f]), label{"form", f.String()})
					}
				}
			},
		},
		intervalFamily("probed_fin_ack_rtt_seconds", finACKRTT,
			"Time from our FIN's transmit stamp to its acknowledgement's receive stamp, where it was sent once, in seconds."),
		intervalFamily("probed_close_wait_seconds", closeWait,
			"Time from the acknowledgement of our FIN to the peer's FIN, both as received, in seconds: how long its application took to close."),
		intervalFamily("probed_peer_close_seconds", peerClose,
			"Time from the transmit stamp of the handshake's ACK, or of our last byte, to the peer's FIN's receive stamp, in seconds."),
		intervalFamily("probed_last_ack_rtt_seconds", lastACKRTT,
			"Time from the transmit stamp of our FIN, which followed the peer's, to its acknowledgement's receive stamp, where it was sent once, in seconds."),
		intervalFamily("probed_teardown_seconds", teardown,
			"Time from the first FIN's stamp to the last ACK's, in seconds."),
		{
			name: "probed_half_close_bytes_total", kind: counter,
			help: "Number of bytes received after our FIN.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				if n.kind == probe.ActiveClose {
					x.value(t, float64(n.octets))
				}
			},
		}, {
			name: "probed_fin_retransmits_total", kind: counter,
			help: "Number of FINs that were sent again, by side: local if ours, peer if the peer's.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				for s := probe.Local; int(s) < len(n.fins); s++ {
					x.value(t, float64(n.fins[s]), label{"side", s.String()})
				}
			},
		},
	}
}

// timeWaitFamilies is the contract's "TIME-WAIT".
func timeWaitFamilies() []family {
	return []family{
		{
			name: "probed_time_wait_reuse_total", kind: counter,
			help: "Number of SYNs sent on a four-tuple that the peer held in TIME-WAIT, by its answer.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				if n.measure != probe.MeasureReuse {
					return
				}
				for a := probe.AnswerAccepted; int(a) < len(n.answers); a++ {
					x.value(t, float64(n.answers[a]), label{"answer", a.String()})
				}
			},
		},
		intervalFamily("probed_time_wait_reuse_rtt_seconds", reuseRTT,
			"Time from the transmit stamp of a SYN on a four-tuple in TIME-WAIT to the SYN-ACK's receive stamp, in seconds."),
		{
			name: "probed_time_wait_min_seconds", kind: gauge,
			help: "Least that the peer's TIME-WAIT lasted when it was measured last, in seconds: until it was last seen alive.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				if n.lasted {
					x.value(t, n.least.Seconds())
				}
			},
		}, {
			name: "probed_time_wait_max_seconds", kind: gauge,
			help: "Most that the peer's TIME-WAIT lasted when it was measured last, in seconds: until it was first seen gone.",
			closing: func(x *exposition, t *Target, n *closeCounts) {
				if n.lasted {
					x.value(t, n.most.Seconds())
				}
			},
		},
	}
}

// intervalFamily is the histogram of one interval, for targets that have it.
func intervalFamily(name string, i interval, help string) family {
	return family{name: name, kind: histogramKind, help: help, closing: func(x *exposition, t *Target, _ *closeCounts) {
		if t.copyInterval(i, &x.scratch) {
			x.histogram(&t.labels)
		}
	}}
}
