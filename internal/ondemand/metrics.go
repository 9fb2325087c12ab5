package ondemand

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
)

// gather makes the gauges of one probe. Those of the peer have the names that they
// have on /metrics; durations, which are histograms there, are probed_probe_….
func (a *answer) gather() prometheus.Gatherer {
	g := gauges{prometheus.NewRegistry()}
	g.set("probe_success", "1 if the probe succeeded, else 0.", number(a.conv.OK()))
	g.set("probe_duration_seconds", "Time that the probe took, the look-up of the name included, in seconds.", a.took.Seconds())
	if remote := a.conv.Tuple.Remote.Addr(); remote.IsValid() {
		version := 6.0
		if remote.Is4() {
			version = 4
		}
		g.set("probe_ip_protocol", "Version of the IP protocol that the target was probed over.", version)
	}
	if a.conv.Discarded == probe.NotDiscarded {
		for r := probe.OK + 1; int(r) < probe.NumReasons; r++ {
			if metrics.CanFail(a.conv.Kind, r) {
				g.label("probed_probe_failure", "1 for the reason for which the probe failed, 0 for the others.", "reason", r.String(), number(a.conv.Reason == r))
			}
		}
	}
	for i := range a.conv.Figures {
		g.figure(&a.conv.Figures[i])
	}
	return g.Registry
}

type gauges struct{ *prometheus.Registry }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (g gauges) set(name, help string, v float64) { g.with(name, help, nil, v) }

func (g gauges) label(name, help, label, value string, v float64) {
	g.with(name, help, prometheus.Labels{label: value}, v)
}

func (g gauges) with(name, help string, labels prometheus.Labels, v float64) {
	x := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	x.Set(v)
	g.MustRegister(x) // every name and label here is ours
}

// figure sets what one observation says.
func (g gauges) figure(o *probe.Observation) {
	if name, help := show.Interval(o.Kind); name != "" && o.Duration >= 0 {
		g.set("probed_probe_"+name+"_seconds", help+", in seconds.", o.Duration.Seconds())
	}
	switch o.Kind {
	case probe.PeerSeen:
		p := &o.Peer
		g.set("probed_peer_hops", "Number of routers that the SYN-ACK crossed, estimated from its TTL.", float64(probe.Hops(p.TTL)))
		g.set("probed_peer_mss_bytes", "Maximum segment size in the SYN-ACK, in bytes; 0 if it named none.", float64(p.MSS))
		g.with("probed_peer_info", "Always 1; the labels are the options of the SYN-ACK.", metrics.PeerLabels(p), 1)
	case probe.Teardown:
		g.label("probed_probe_teardown", "Always 1; the label is the form of the teardown.", "form", o.Form.String(), 1)
	case probe.TimeWaitReuse:
		g.label("probed_probe_time_wait_reuse", "Always 1; the label is what the peer answered to a SYN in TIME-WAIT.", "answer", o.Answer.String(), 1)
	case probe.HalfCloseOctets:
		g.set("probed_probe_half_close_bytes", "Number of bytes received after our FIN.", float64(o.Octets))
	}
}

// writeText writes the metrics in the text format.
func writeText(w io.Writer, g prometheus.Gatherer) error {
	families, err := g.Gather()
	if err != nil {
		return fmt.Errorf("gathering metrics: %w", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return fmt.Errorf("writing metrics: %w", err)
		}
	}
	return nil
}
