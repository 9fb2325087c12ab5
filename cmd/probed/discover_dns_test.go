package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/probed/probed/internal/lab"
)

// An nsd is Debian's authoritative name server on 127.0.0.1:53 of a host, with the
// zone sd.test.
type nsd struct {
	t    *testing.T
	host *lab.Host
	dir  string
	cmd  *lab.Cmd
}

func newNSD(t *testing.T, h *lab.Host) *nsd {
	t.Helper()
	s := &nsd{t: t, host: h, dir: t.TempDir()}
	write(t, s.file("nsd.conf"), fmt.Sprintf(`
server:
  ip-address: 127.0.0.1
  username: ""
  chroot: ""
  zonesdir: %[1]q
  zonelistfile: "%[1]s/zone.list"
  database: ""
  xfrdfile: "%[1]s/xfrd.state"
  xfrdir: %[1]q
  pidfile: ""
  rrl-ratelimit: 0
remote-control:
  control-enable: no
`, s.dir)+"zone:\n  name: sd.test\n  zonefile: sd.test\n")
	t.Cleanup(s.stop)
	return s
}

func (s *nsd) file(name string) string { return filepath.Join(s.dir, name) }

// zone writes the zone with some records; none at all is a zone without them.
func (s *nsd) zone(records string) {
	s.t.Helper()
	place(s.t, s.file("sd.test"), "$ORIGIN sd.test.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n"+records)
}

// start starts the server, and waits until it answers with rcode.
func (s *nsd) start(want dnsmessage.RCode) {
	s.t.Helper()
	program, err := exec.LookPath("nsd")
	if err != nil {
		program = "/usr/sbin/nsd" // where Debian has it
	}
	s.cmd = s.host.Command(context.WithoutCancel(s.t.Context()), program, "-d", "-c", s.file("nsd.conf"))
	log, err := os.Create(s.file("log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("nsd (apt-get install nsd): %v", err)
	}
	eventually(s.t, 10*time.Second, func() error {
		got, err := s.ask("sd.test.")
		if err == nil && got != want {
			err = fmt.Errorf("nsd answers %v", got)
		}
		if err != nil {
			said, _ := os.ReadFile(s.file("log"))
			return fmt.Errorf("%w\n%s", err, said)
		}
		return nil
	})
}

// ask asks for the name's SOA record.
func (s *nsd) ask(name string) (dnsmessage.RCode, error) {
	c, err := s.host.Dial("udp", "127.0.0.1:53", time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	if err != nil {
		return 0, err
	}
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	b = make([]byte, 1500)
	if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := c.Read(b)
	if err != nil {
		return 0, err
	}
	err = m.Unpack(b[:n])
	return m.RCode, err
}

// reload has it read the zone again.
func (s *nsd) reload() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

func (s *nsd) stop() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// TestDNSDiscovery probes what a name server says, by SRV and by A records, through
// NXDOMAIN, SERVFAIL and silence.
func TestDNSDiscovery(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	h.Listen("tcp", "[::]:81")
	server := newNSD(t, h)
	const (
		srv   = "_web._tcp SRV 0 0 80 one\n_web._tcp SRV 0 0 81 two\none A 127.0.0.1\ntwo A 127.0.0.2\n"
		nodes = "nodes A 127.0.1.1\nnodes A 127.0.1.2\n"
	)
	server.zone(srv + nodes)
	server.start(dnsmessage.RCodeSuccess)
	p := start(t, h, `
global: {interval: 20ms, timeout: 10ms, resolve_interval: 1s}
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
	server.zone(srv + "nodes A 127.0.1.1\nnodes A 127.0.1.3\n")
	server.reload()
	p.awaitTargets(one, two, first, third)
	p.awaitProbes(third, 5)
	p.keeps(before, first)
	p.keeps(before, one)

	// SERVFAIL: the server does not have its zone.
	failures := p.scrape().sum("prometheus_sd_dns_lookup_failures_total", nil)
	server.stop()
	if err := os.Remove(server.file("sd.test")); err != nil {
		t.Fatal(err)
	}
	server.start(dnsmessage.RCodeServerFailure)
	p.awaitRise("prometheus_sd_dns_lookup_failures_total", failures+4)
	p.awaitTargets(one, two, first, third)
	p.keeps(before, first)
	p.keeps(before, one)

	// Silence: nobody is there.
	server.stop()
	failures = p.scrape().sum("prometheus_sd_dns_lookup_failures_total", nil)
	p.awaitRise("prometheus_sd_dns_lookup_failures_total", failures+2)
	p.keeps(before, first)

	// NXDOMAIN is an answer: there are none. And back.
	server.zone(srv)
	server.start(dnsmessage.RCodeSuccess)
	p.awaitTargets(one, two)
	p.keeps(before, one)
	server.zone(srv + nodes)
	server.reload()
	p.awaitTargets(one, two, first, second)
	p.awaitProbes(second, 5)
	if s := p.scrape(); s.sum("probed_probe_failures_total", nil) > 0 {
		t.Errorf("failures: %v", s.reasons("probed_probe_failures_total", nil))
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
