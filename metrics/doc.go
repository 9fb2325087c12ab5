// Package metrics keeps what was observed of every target and exports it to
// Prometheus: per-target counters, histograms in native and classic buckets of
// the handshake, the teardown and TIME-WAIT, and the figures of probed itself.
//
// # Where the writers and the scrapes meet
//
// An engine loop calls [Target.Observe]; scrapes run beside it. Each target has
// a mutex that is held for a few nanoseconds by the one and for the copy of a
// few hundred octets by the other. Text or protobuf is written from the copy.
//
// # Why not a prometheus.Collector
//
// A registry wants the same label names in every series of a described family,
// while targets bring their own labels; an undescribed ("unchecked") collector
// may differ, as both expositions allow. But a registry also allocates and
// sorts a tree of messages at each scrape, and promhttp's text encoder takes
// the labels apart again for every bucket. So [Metrics] is a
// [prometheus.Gatherer], to be merged with others, and [Metrics.Handler]
// streams both formats from per-target label text that is made once. The
// package's tests put the result through a registry with its checks,
// Prometheus's parsers' library and promtool.
//
// # Which series exist from the start
//
// Prometheus's rate() and increase() need a series before its first rise, and
// each series costs memory in Prometheus. The decisions:
//
//   - Counters without a label of their own: from the start.
//   - probed_probe_failures_total: every reason for which the target's kind of
//     probe can fail. Each would else hide its first failure from rate(), and an
//     alert on one that is rare would never fire. That is six series more for
//     each target of half_open, a sixth of what it has, ten for the others;
//     docs/metrics.md has what they cost.
//   - Those of the teardown and of TIME-WAIT: all that the kind of probe can
//     observe, and none that it can't. TIME-WAIT's gauges once it was measured.
//   - probed_peer_changes_total: all from the first SYN-ACK, because a change is
//     a single event and would always be the one that is missed.
//   - probed_probes_discarded_total and probed_replies_rejected_total: from the
//     first occurrence.
//   - probed_probe_success and the peer's gauges: absent until first known.
//   - probed_flows and probed_flows_failing: only where there are flows, above 1.
//   - probed_probes_skipped_total: what Options.SkipReasons names, from the start.
//
// # One target, one set of labels
//
// Two targets with the same labels would be the same series, which fails a
// scrape: [Metrics.AddTarget] refuses the second. A target's own label whose
// name is taken is exported as exported_<name>.
package metrics
