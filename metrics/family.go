package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/probed/probed/probe"
)

// A family is one metric of the contract. One of target, closing and self
// writes its series: target and closing those of one target, the latter of one
// whose kind closes connections, self those of probed itself.
type family struct {
	name, help string
	kind       kind
	target     func(*exposition, *Target, *counts)
	closing    func(*exposition, *Target, *closeCounts)
	self       func(*exposition, *Metrics)
}

// allFamilies returns every family in the order of the exposition, by name.
// Round trips come before probes there; see copyRTT.
func allFamilies() []family {
	all := slices.Concat(probeFamilies(), handshakeFamilies(), teardownFamilies(), timeWaitFamilies(),
		flowFamilies(), selfFamilies())
	slices.SortFunc(all, func(a, b family) int { return cmp.Compare(a.name, b.name) })
	return all
}

// probeFamilies is the contract's "every probe".
func probeFamilies() []family {
	return []family{
		{
			name: "probed_probes_total", kind: counter,
			help:   "Number of probes with a verdict.",
			target: func(x *exposition, t *Target, n *counts) { x.value(t, float64(n.probes)) },
		}, {
			name: "probed_probe_failures_total", kind: counter,
			help: "Number of probes that failed, by reason. They are among those of probed_probes_total.",
			target: func(x *exposition, t *Target, n *counts) {
				for r := probe.OK + 1; int(r) < len(n.failures); r++ {
					if n.failures[r] > 0 || CanFail(n.kind, r) {
						x.value(t, float64(n.failures[r]), label{"reason", r.String()})
					}
				}
			},
		}, {
			name: "probed_probe_success", kind: gauge,
			help: "The last verdict: 1 if the probe succeeded, 0 if it failed.",
			target: func(x *exposition, t *Target, n *counts) {
				if n.judged {
					x.value(t, number(n.success))
				}
			},
		}, {
			name: "probed_probes_discarded_total", kind: counter,
			help: "Number of probes without a verdict for a reason of our own, by reason. They are not among those of probed_probes_total.",
			target: func(x *exposition, t *Target, n *counts) {
				for r := probe.NotDiscarded + 1; int(r) < len(n.discarded); r++ {
					if n.discarded[r] > 0 {
						x.value(t, float64(n.discarded[r]), label{"reason", r.String()})
					}
				}
			},
		}, {
			name: "probed_replies_rejected_total", kind: counter,
			help: "Number of segments and ICMP errors that were not believed, by reason.",
			target: func(x *exposition, t *Target, n *counts) {
				for r := probe.NotRejected + 1; int(r) < len(n.rejected); r++ {
					if n.rejected[r] > 0 {
						x.value(t, float64(n.rejected[r]), label{"reason", r.String()})
					}
				}
			},
		},
	}
}

// handshakeFamilies is the contract's "handshake".
func handshakeFamilies() []family {
	return []family{
		{
			name: "probed_handshake_rtt_seconds", kind: histogramKind,
			help: "Time from our SYN's transmit stamp to the SYN-ACK's receive stamp, in seconds.",
			target: func(x *exposition, t *Target, _ *counts) {
				x.copyRTT(t)
				x.histogram(&t.labels)
			},
		}, {
			name: "probed_synack_duplicates_total", kind: counter,
			help:   "Number of further SYN-ACKs to a SYN that had been answered.",
			target: func(x *exposition, t *Target, n *counts) { x.value(t, float64(n.duplicates)) },
		}, {
			name: "probed_synack_late_total", kind: counter,
			help:   "Number of SYN-ACKs that came after the timeout. Their probes have failed.",
			target: func(x *exposition, t *Target, n *counts) { x.value(t, float64(n.late)) },
		}, {
			name: "probed_peer_hops", kind: gauge,
			help: "Number of routers that the last SYN-ACK crossed, estimated from its TTL.",
			target: func(x *exposition, t *Target, n *counts) {
				if n.peerSeen {
					x.value(t, float64(probe.Hops(n.peer.TTL)))
				}
			},
		}, {
			name: "probed_peer_mss_bytes", kind: gauge,
			help: "Maximum segment size in the last SYN-ACK, in bytes; 0 if it named none.",
			target: func(x *exposition, t *Target, n *counts) {
				if n.peerSeen {
					x.value(t, float64(n.peer.MSS))
				}
			},
		}, {
			name: "probed_peer_info", kind: gauge,
			help: "Always 1; the labels are the options of the last SYN-ACK: the window scale's shift count or none, and yes or no for the others; syn_cookies may be unknown.",
			target: func(x *exposition, t *Target, n *counts) {
				if n.peerSeen {
					labels := peerLabels(&n.peer)
					x.value(t, 1, labels[:]...)
				}
			},
		}, {
			name: "probed_peer_changes_total", kind: counter,
			help: "Number of times that a property of the peer's SYN-ACK differed from the one before, by property.",
			target: func(x *exposition, t *Target, n *counts) {
				if n.peerSeen {
					for i, changes := range n.changes {
						x.value(t, float64(changes), label{"what", probe.Trait(i).String()})
					}
				}
			},
		},
	}
}

// flowFamilies is the contract's "flows".
func flowFamilies() []family {
	return []family{{
		name: "probed_flows", kind: gauge,
		help: "Number of flows, each with its own source port, among which the target's probes take turns.",
		target: func(x *exposition, t *Target, n *counts) {
			if n.flows > 1 {
				x.value(t, float64(n.flows))
			}
		},
	}, {
		name: "probed_flows_failing", kind: gauge,
		help: "Number of flows whose loss, over the last 64 verdicts of each, stands out from their siblings'.",
		target: func(x *exposition, t *Target, n *counts) {
			if n.flows > 1 {
				x.value(t, float64(t.flowsFailing()))
			}
		},
	}}
}

// selfFamilies is the contract's "probed itself".
func selfFamilies() []family {
	return []family{
		{
			name: "probed_build_info", kind: gauge,
			help: "Always 1; the labels are probed's version and revision and the Go version that it was built with.",
			self: func(x *exposition, m *Metrics) { x.own(1, m.self.build...) },
		}, {
			name: "probed_config_last_reload_successful", kind: gauge,
			help: "The last attempt to load the configuration: 1 if it succeeded, 0 if it failed.",
			self: func(x *exposition, m *Metrics) {
				ok, _ := m.self.reload()
				x.own(number(ok))
			},
		}, {
			name: "probed_config_last_reload_success_timestamp_seconds", kind: gauge,
			help: "When the configuration was last loaded with success, in seconds since the Unix epoch.",
			self: func(x *exposition, m *Metrics) {
				_, at := m.self.reload()
				x.own(at)
			},
		}, {
			name: "probed_schedule_delay_seconds", kind: histogramKind,
			help: "Time from when a probe was due to when it was sent, in seconds.",
			self: func(x *exposition, m *Metrics) {
				m.self.schedule.copyTo(&x.scratch)
				x.histogram(&x.none)
			},
		}, {
			name: "probed_reaction_seconds", kind: histogramKind,
			help: "Time from the stamp of a peer's segment to the stamp of our answer, in seconds.",
			self: func(x *exposition, m *Metrics) {
				m.self.reaction.copyTo(&x.scratch)
				x.histogram(&x.none)
			},
		}, {
			name: "probed_probes_skipped_total", kind: counter,
			help: "Number of probes that were due and not sent, by reason.",
			self: func(x *exposition, m *Metrics) {
				for _, s := range m.self.skips() {
					x.own(float64(s.n), label{"reason", s.reason})
				}
			},
		},
		discoveryFamily("probed_discovered_targets",
			"Number of targets that the job's discovery has found, before relabelling.",
			func(d *Discovered) int { return d.Targets }),
		discoveryFamily("probed_discovered_targets_invalid",
			"Number of discovered targets that cannot be probed. They are among those of probed_discovered_targets.",
			func(d *Discovered) int { return d.Invalid }),
		statsFamily("probed_targets", gauge,
			"Number of targets in the schedule, static and discovered.",
			func(s *Stats) float64 { return float64(s.Targets) }),
		statsFamily("probed_conversations", gauge,
			"Number of conversations that are open.",
			func(s *Stats) float64 { return float64(s.Conversations) }),
		statsFamily("probed_segments_sent_total", counter,
			"Number of segments sent.",
			func(s *Stats) float64 { return float64(s.SegmentsSent) }),
		statsFamily("probed_segments_received_total", counter,
			"Number of segments received.",
			func(s *Stats) float64 { return float64(s.SegmentsReceived) }),
		statsFamily("probed_stamp_fallbacks_total", counter,
			"Number of segments whose stamp was taken as they were queued for reading, because the kernel had not stamped them as they arrived or left.",
			func(s *Stats) float64 { return float64(s.StampFallbacks) }),
		statsFamily("probed_tap_drops_total", counter,
			"Number of frames that the kernel dropped before they were read.",
			func(s *Stats) float64 { return float64(s.TapDrops) }),
		statsFamily("probed_resolve_failures_total", counter,
			"Number of look-ups of a target's name that failed.",
			func(s *Stats) float64 { return float64(s.ResolveFailures) }),
		statsFamily("probed_forbidden_addresses", gauge,
			"Number of addresses that targets' host names resolve to and that are not probed because of the lists deny and allow.",
			func(s *Stats) float64 { return float64(s.Forbidden) }),
	}
}

// statsFamily is a family with one series that Options.Stats feeds.
func statsFamily(name string, k kind, help string, field func(*Stats) float64) family {
	return family{name: name, kind: k, help: help, self: func(x *exposition, m *Metrics) {
		if m.stats != nil {
			x.own(field(&x.stats))
		}
	}}
}

// discoveryFamily is a gauge of each job with discovery.
func discoveryFamily(name, help string, field func(*Discovered) int) family {
	return family{name: name, kind: gauge, help: help, self: func(x *exposition, m *Metrics) {
		for _, d := range m.self.discoveries() {
			x.own(float64(field(&d)), label{"job_name", d.Job})
		}
	}}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// windowScale is the label value for a shift count, "none" without the option.
func windowScale(shift int8) string {
	if shift < 0 {
		return "none"
	}
	return strconv.Itoa(int(shift)) // below 100: no allocation
}
