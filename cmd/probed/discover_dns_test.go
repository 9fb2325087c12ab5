package main

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// TestDNSDiscovery probes what a name server says, by SRV and by A records, through
// NXDOMAIN, SERVFAIL and silence.
func TestDNSDiscovery(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	h.Listen("tcp", "[::]:81")
	server := h.NSD(t, "sd.test")
	const (
		srv   = "_web._tcp SRV 0 0 80 one\n_web._tcp SRV 0 0 81 two\none A 127.0.0.1\ntwo A 127.0.0.2\n"
		nodes = "nodes A 127.0.1.1\nnodes A 127.0.1.2\n"
	)
	server.Zone(srv + nodes)
	server.Start(dnsmessage.RCodeSuccess)
	p := start(t, h, `
global: {interval: 100ms, timeout: 90ms, resolve_interval: 1s}
jobs:
- name: srv
  dns_sd_configs: [{names: [_web._tcp.sd.test], refresh_interval: 500ms}]
  relabel_configs: [{source_labels: [__meta_dns_srv_record_target], target_label: host}]
- name: nodes
  dns_sd_configs: [{names: [nodes.sd.test], type: A, port: 80, refresh_interval: 500ms}]
`, withDNS(t, "127.0.0.1"))
	const one, two, first, second, third = "one.sd.test:80", "two.sd.test:81", "127.0.1.1:80", "127.0.1.2:80", "127.0.1.3:80"
	p.awaitTargets(one, two, first, second)
	for _, target := range []string{one, two, first, second} {
		p.awaitProbes(target, 5)
	}
	if n := len(p.scrape().find("probed_probes_total", labels{"target": two, "host": "two.sd.test."})); n != 1 {
		t.Errorf("%d series have the host", n)
	}

	// Records come and go.
	before := p.scrape()
	server.Zone(srv + "nodes A 127.0.1.1\nnodes A 127.0.1.3\n")
	server.Reload()
	p.awaitTargets(one, two, first, third)
	p.awaitProbes(third, 5)
	p.keeps(before, first)
	p.keeps(before, one)

	// SERVFAIL: the server does not have its zone.
	failures := p.scrape().sum("prometheus_sd_dns_lookup_failures_total", nil)
	server.Stop()
	server.NoZone()
	server.Start(dnsmessage.RCodeServerFailure)
	p.awaitRise("prometheus_sd_dns_lookup_failures_total", failures+4)
	p.awaitTargets(one, two, first, third)
	p.keeps(before, first)
	p.keeps(before, one)

	// Silence: nobody is there.
	server.Stop()
	failures = p.scrape().sum("prometheus_sd_dns_lookup_failures_total", nil)
	p.awaitRise("prometheus_sd_dns_lookup_failures_total", failures+2)
	p.keeps(before, first)

	// NXDOMAIN is an answer: there are none. And back.
	server.Zone(srv)
	server.Start(dnsmessage.RCodeSuccess)
	p.awaitTargets(one, two)
	p.keeps(before, one)
	server.Zone(srv + nodes)
	server.Reload()
	p.awaitTargets(one, two, first, second)
	p.awaitProbes(second, 5)
	if s := p.scrape(); s.sum("probed_probe_failures_total", nil) > 0 {
		t.Errorf("failures: %v", s.reasons("probed_probe_failures_total", nil))
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
