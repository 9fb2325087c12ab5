package lab

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
)

// An NSD is Debian's authoritative name server on port 53 of every address of a host,
// with one zone.
type NSD struct {
	tb   testing.TB
	host *Host
	name string // of the zone
	dir  string
	cmd  *Cmd
}

// NSD returns a name server for a zone, such as sd.test, that has not been started.
func (h *Host) NSD(tb testing.TB, zone string) *NSD {
	tb.Helper()
	s := &NSD{tb: tb, host: h, name: zone, dir: tb.TempDir()}
	s.write("nsd.conf", fmt.Sprintf(`
server:
  ip-address: 0.0.0.0
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
zone:
  name: %[2]s
  zonefile: zone
`, s.dir, zone))
	tb.Cleanup(s.Stop)
	return s
}

func (s *NSD) file(name string) string { return filepath.Join(s.dir, name) }

// write has a file in place at once, or the one before.
func (s *NSD) write(name, text string) {
	s.tb.Helper()
	if err := os.WriteFile(s.file(name+".new"), []byte(text), 0o644); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.Rename(s.file(name+".new"), s.file(name)); err != nil {
		s.tb.Fatal(err)
	}
}

// Zone writes the zone with some records, names relative to it; none at all is a zone
// without them. A server that runs has to Reload.
func (s *NSD) Zone(records string) {
	s.tb.Helper()
	s.write("zone", "$ORIGIN "+s.name+".\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n"+records)
}

// NoZone takes the zone's file away: a server that is started then answers SERVFAIL.
func (s *NSD) NoZone() {
	s.tb.Helper()
	if err := os.Remove(s.file("zone")); err != nil {
		s.tb.Fatal(err)
	}
}

// Start starts the server, and waits until it answers with want.
func (s *NSD) Start(want dnsmessage.RCode) {
	s.tb.Helper()
	program, err := exec.LookPath("nsd")
	if err != nil {
		program = "/usr/sbin/nsd" // where Debian has it
	}
	s.cmd = s.host.Command(context.WithoutCancel(s.tb.Context()), program, "-d", "-c", s.file("nsd.conf"))
	log, err := os.Create(s.file("log"))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatalf("nsd (apt-get install nsd): %v", err)
	}
	Eventually(s.tb, 10*time.Second, func() error {
		got, err := s.ask()
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

// ask asks for the zone's SOA record.
func (s *NSD) ask() (dnsmessage.RCode, error) {
	c, err := s.host.Dial("udp", "127.0.0.1:53", time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(s.name + "."), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET,
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

// Reload has it read the zone again.
func (s *NSD) Reload() {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.tb.Fatal(err)
	}
}

// Stop ends the server, if it runs.
func (s *NSD) Stop() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}
