package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/engine"
)

// nginxConf serves one page in a process that stays in the foreground, as
// whoever runs it, and closes idle connections after a second.
const nginxConf = `daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 256; }
http {
	access_log off; keepalive_timeout 1s; lingering_close off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen 0.0.0.0:80; listen [::]:80; location / { return 200 "well\n"; } }
}
`

// haproxyConf answers by itself, and closes idle connections after a second.
const haproxyConf = `global
	stats socket %[1]s/sock
defaults
	mode http
	timeout client 5s
	timeout connect 1s
	timeout server 5s
	timeout http-request 1s
	timeout http-keep-alive 1s
frontend web
	bind 0.0.0.0:80
	bind [::]:80 v6only
	http-request return status 200 content-type text/plain string "well"
`

// startServer runs a web server of Debian's in the host until the test ends.
func startServer(t *testing.T, b *lab.Host, debian, conf string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(debian)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install %[1]s (%v)", debian, err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(conf, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	said := &strings.Builder{}
	cmd := b.Command(ctx, program, append(args, file)...)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said: %s", debian, said)
		}
	})
	await(t, 10*time.Second, debian+" listens", func() bool { return len(lab.SS(b, "LISTEN")) == 2 })
}

// TestWebServers probes nginx and HAProxy, which close as HTTP says.
func TestWebServers(t *testing.T) {
	const (
		old     = "GET / HTTP/1.0\r\n\r\n"
		asked   = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
		kept    = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
		timeout = 2500 * time.Millisecond
	)
	passive := probe.Params{Kind: probe.PassiveClose, Timeout: timeout}
	combined := passive
	combined.Combined = true
	impatient := passive
	impatient.Timeout = 400 * time.Millisecond
	active := probe.Params{Kind: probe.ActiveClose, Timeout: timeout}
	held := active
	held.Hold = 200 * time.Millisecond
	waits := probe.Params{Kind: probe.TimeWaitProbe, Measure: probe.MeasureReuse, Timeout: timeout}
	for _, server := range []struct {
		debian, conf string
		args         []string
		idle         probe.Reason // what comes of a connection on which nothing is asked
	}{
		{"nginx", nginxConf, []string{"-c"}, probe.PeerNeverClosed}, // client_header_timeout is a minute
		{"haproxy", haproxyConf, []string{"-db", "-f"}, probe.OK},
	} {
		t.Run(server.debian, func(t *testing.T) {
			t.Parallel()
			a, b := lab.Pair(t)
			startServer(t, b, server.debian, server.conf, server.args...)
			type figures struct{ least, most time.Duration }
			cases := []struct {
				what      string
				params    probe.Params
				send      string
				want      probe.Reason
				forms     []probe.Form
				peerClose figures
			}{
				{"HTTP/1.0", passive, old, probe.OK, []probe.Form{probe.FourWay}, figures{0, 100 * time.Millisecond}},
				{"HTTP/1.0, combined", combined, old, probe.OK, []probe.Form{probe.ThreeWay}, figures{0, 100 * time.Millisecond}},
				{"Connection: close", passive, asked, probe.OK, []probe.Form{probe.FourWay}, figures{0, 100 * time.Millisecond}},
				{"keep-alive timeout", passive, kept, probe.OK, []probe.Form{probe.FourWay}, figures{900 * time.Millisecond, 2100 * time.Millisecond}},
				{"kept alive for longer", impatient, kept, probe.PeerNeverClosed, nil, figures{}},
				{"nothing asked", passive, "", server.idle, []probe.Form{probe.FourWay}, figures{900 * time.Millisecond, 2100 * time.Millisecond}},
				{"we close an idle connection", held, "", probe.OK, []probe.Form{probe.FourWay, probe.ThreeWay}, figures{}},
				{"we close a kept one", held, kept, probe.OK, []probe.Form{probe.FourWay, probe.ThreeWay}, figures{}},
				{"we close with the request", active, kept, probe.OK, []probe.Form{probe.FourWay, probe.ThreeWay, probe.Simultaneous}, figures{}},
				{"TIME-WAIT", waits, old, probe.OK, []probe.Form{probe.FourWay}, figures{}},
			}
			r := newRig(t, a, newSelf(), engine.Limits{Global: 1e6, PerAddress: 1e6})
			var targets []*engine.Target
			books := make([]*seen, len(cases))
			for i, k := range cases {
				books[i] = &seen{ledger: newLedger(), forms: make(map[probe.Form]int)}
				for j, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
					p := k.params
					p.Send = uint32(len(k.send))
					x := closing(uint64(2*i+j), netip.AddrPortFrom(addr, 80), p, books[i].ledger)
					x.Send, x.Sink, x.Interval = k.send, books[i], 200*time.Millisecond
					targets = append(targets, x)
				}
			}
			r.shard.Update(targets, nil)
			await(t, 20*time.Second, "verdicts", func() bool {
				for _, l := range books {
					if l.settled() < 20 {
						return false
					}
				}
				return true
			})
			r.rest(targets)
			await(t, 5*time.Second, "the end of what is open", func() bool { return r.shard.Stats.Conversations.Load() == 0 })
			await(t, 5*time.Second, "the server's end", func() bool { return len(left(b)) == 0 })
			r.end()
			for i, k := range cases {
				l := books[i]
				n := l.settled()
				if l.verdicts[k.want] != n || len(l.rejects)+len(l.discards) > 0 {
					t.Errorf("%s: verdicts %v, discards %v, rejects %v, want %v", k.what, l.verdicts, l.discards, l.rejects, k.want)
					tell(t, &l.transcripts[0])
				}
				formed := 0
				for _, f := range k.forms {
					formed += l.forms[f]
				}
				if k.want == probe.OK && formed != n {
					t.Errorf("%s: of %d: forms %v, want %v", k.what, n, l.forms, k.forms)
				}
				for _, d := range l.closes {
					if k.peerClose.most > 0 && k.want == probe.OK && (d < k.peerClose.least || d > k.peerClose.most) {
						t.Errorf("%s: closed after %v, want %v to %v", k.what, d, k.peerClose.least, k.peerClose.most)
					}
				}
				t.Logf("%s: %v, forms %v", k.what, l.verdicts, l.forms)
			}
		})
	}
}

// seen is a sink that keeps how connections were closed, and after how long the
// peer closed them.
type seen struct {
	*ledger
	forms  map[probe.Form]int
	closes []time.Duration
}

// Observe implements engine.Sink.
func (s *seen) Observe(o *probe.Observation) {
	s.ledger.Observe(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o.Kind {
	case probe.Teardown:
		s.forms[o.Form]++
	case probe.PeerCloseTime:
		s.closes = append(s.closes, o.Duration)
	}
}
