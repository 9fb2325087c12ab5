package main

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/lab"
)

// minimal is a configuration without anything special.
const minimal = "jobs: [{name: test, targets: [\"127.0.0.1:80\"]}]\n"

// A failure is a start that must fail, and everything it writes.
type failure struct {
	name    string
	yaml    string // minimal if empty
	prepare func(*testing.T, *lab.Host)
	options []option
	want    string // stderr, DIR standing for the configuration's directory
}

var failures = []failure{
	{
		name:    "a source port in use",
		prepare: func(_ *testing.T, h *lab.Host) { h.Listen("tcp4", "127.0.0.1:61007") },
		want:    "probed: source port 61007 is in use by another socket (see ss -tanp 'sport = :61007'): choose another source_ports range\n",
	}, {
		name:    "a guarded source port in use",
		prepare: func(_ *testing.T, h *lab.Host) { h.Listen("tcp6", "[::1]:61200") },
		want:    "probed: source port 61200 is in use by another socket (see ss -tanp 'sport = :61200'): choose another source_ports range\n",
	}, {
		name:    "no CAP_NET_RAW",
		options: []option{unprivileged()},
		want:    "probed: raw sockets need CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep probed`, or set AmbientCapabilities=CAP_NET_RAW in the unit\n",
	}, {
		name:    "no CAP_NET_RAW with the embedded default",
		options: []option{unprivileged(), withoutConfig},
		want:    "probed: raw sockets need CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep probed`, or set AmbientCapabilities=CAP_NET_RAW in the unit\n",
	}, {
		name: "an interface that isn't there",
		yaml: "modules: {half_open: {interface: eth7}}\n" + minimal,
		want: "probed: modules.half_open: interface: this host has no \"eth7\"; it has lo\n",
	}, {
		name: "a source address of somebody else",
		yaml: "modules: {half_open: {source_address: 198.18.0.77}}\n" + minimal,
		want: "probed: modules.half_open: source_address: 198.18.0.77 is not an address of this host (see ip address): choose one that is, or leave it out\n",
	}, {
		name: "several modules that ask too much",
		yaml: "modules: {b: {probe: half_open, interface: eth8}, a: {probe: half_open, interface: eth7}, half_open: {source_address: \"2001:db8::77\"}}\n" +
			"jobs: [{name: test, targets: [\"[::1]:80\"]}]\n",
		want: "probed: modules.a: interface: this host has no \"eth7\"; it has lo\n" +
			"probed: modules.b: interface: this host has no \"eth8\"; it has lo\n" +
			"probed: modules.half_open: source_address: 2001:db8::77 is not an address of this host (see ip address): choose one that is, or leave it out\n",
	}, {
		name:    "a listen address of somebody else",
		options: []option{withArgs("--web.listen-address=198.18.0.77:10965")},
		want:    "probed: --web.listen-address=198.18.0.77:10965: cannot listen: bind: cannot assign requested address: choose a free address of this host, such as :10965\n",
	}, {
		name:    "a listen address without a port",
		options: []option{withArgs("--web.listen-address=127.0.0.1")},
		want:    "probed: --web.listen-address=127.0.0.1: cannot listen: address 127.0.0.1: missing port in address: choose a free address of this host, such as :10965\n",
	}, {
		name:    "a listen address of a vsock",
		options: []option{withArgs("--web.listen-address=vsock://:9100")},
		want:    "probed: --web.listen-address=vsock://:9100: not an address to listen on over TCP: write one such as :10965\n",
	}, {
		name:    "a listen port out of range",
		options: []option{withArgs("--web.listen-address=:99999")},
		want:    "probed: --web.listen-address=:99999: cannot listen: address 99999: invalid port: choose a free address of this host, such as :10965\n",
	}, {
		name:    "a listen port taken",
		prepare: func(_ *testing.T, h *lab.Host) { h.Listen("tcp", "127.0.0.1:10965") },
		want:    "probed: --web.listen-address=:10965: cannot listen: bind: address already in use: choose a free address of this host, such as :10965\n",
	}, {
		name:    "a metrics path taken",
		options: []option{withArgs("--web.telemetry-path=/config")},
		want:    "probed: --web.telemetry-path=/config: another page has this path: choose a free one, such as /metrics\n",
	}, {
		name:    "a relative metrics path",
		options: []option{withArgs("--web.telemetry-path=metrics")},
		want:    "probed: --web.telemetry-path=metrics: not a plain absolute path: write one such as /metrics\n",
	}, {
		name:    "a metrics path that is a pattern",
		options: []option{withArgs("--web.telemetry-path=/{metrics}")},
		want:    "probed: --web.telemetry-path=/{metrics}: not a plain absolute path: write one such as /metrics\n",
	}, {
		name:    "a configuration file that isn't there",
		options: []option{withConfigFile("/nowhere/probed.yml")},
		want:    "probed: configuration: open /nowhere/probed.yml: no such file or directory\n",
	}, {
		name: "a broken configuration",
		yaml: "global: {interval: soon}\njobs:\n- name: test\n  target: [\"127.0.0.1:99999\"]\n- name: test\n  modul: x\n",
		want: "probed: DIR/probed.yml:1:20: global.interval: \"soon\" is not a duration; allowed: whole numbers with the units w, d, h, m, s, ms, large to small, such as 1m30s\n" +
			"probed: DIR/probed.yml:4:3: jobs[0].target: unknown key; did you mean targets?\n" +
			"probed: DIR/probed.yml:5:3: jobs[1]: this job has nothing to probe; give it targets, static_configs, or a discovery such as file_sd_configs\n" +
			"probed: DIR/probed.yml:5:9: jobs[1].name: \"test\" is taken; jobs[0] at line 3 has the same name\n" +
			"probed: DIR/probed.yml:6:3: jobs[1].modul: unknown key; did you mean module?\n",
	}, {
		name:    "a web configuration that isn't there",
		options: []option{withArgs("--web.config.file=/nowhere/web.yml")},
		want:    "probed: --web.config.file=/nowhere/web.yml: no such file or directory\n",
	}, {
		name:    "a web configuration with an unknown key",
		options: []option{withWebConfig("tls_server_konfig: {}\n")},
		want:    "probed: --web.config.file=DIR/web.yml: line 1: field tls_server_konfig not found in type web.Config\n",
	}, {
		name:    "a web configuration with a password that YAML takes for an anchor",
		options: []option{withWebConfig("basic_auth_users: {u: *hush }\n")},
		want:    "probed: --web.config.file=DIR/web.yml: yaml: unknown anchor\n",
	}, {
		name:    "a web configuration with a password that YAML takes for a number",
		options: []option{withWebConfig("basic_auth_users: {u: !!int hush }\n")},
		want:    "probed: --web.config.file=DIR/web.yml: yaml: cannot decode !!str as a !!int\n",
	}, {
		name:    "an unknown flag",
		options: []option{withArgs("--config.fiel=x")},
		want:    "probed: unknown long flag '--config.fiel', try --help\n",
	}, {
		name:    "an unknown command",
		options: []option{withArgs("rum")},
		want:    "probed: unexpected rum, try --help\n",
	}, {
		name:    "an unknown log level",
		options: []option{withArgs("--log.level=loud")},
		want:    "probed: unrecognized log level loud, try --help\n",
	}, {
		name: "loopback is down",
		prepare: func(t *testing.T, h *lab.Host) {
			if out, err := h.Command(t.Context(), "ip", "link", "set", "lo", "down").CombinedOutput(); err != nil {
				t.Fatalf("ip link: %v %s", err, out)
			}
		},
		want: "probed: self-test on loopback: loopback is down: bring it up (ip link set lo up)\n",
	},
}

// withConfigFile names another configuration.
func withConfigFile(file string) option {
	return func(c *lab.Cmd) { c.Args[1] = "--config.file=" + file }
}

// withoutConfig names no configuration, so that the embedded default runs.
func withoutConfig(c *lab.Cmd) { c.Args = c.Args[:1] }

// withWebConfig writes a web configuration next to the configuration, which the
// first argument names.
func withWebConfig(text string) option {
	return func(c *lab.Cmd) {
		file := filepath.Join(filepath.Dir(strings.TrimPrefix(c.Args[1], "--config.file=")), "web.yml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			panic(err)
		}
		c.Args = append(c.Args, "--web.config.file="+file)
	}
}

func TestStartUpErrors(t *testing.T) {
	t.Parallel()
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			h := lab.NewHost(t, "a")
			if f.prepare != nil {
				f.prepare(t, h)
			}
			before := fmt.Sprint(lab.SS(h))
			file := filepath.Join(readableDir(t), "probed.yml")
			write(t, file, cmp.Or(f.yaml, minimal))
			cmd := program(t, h, "--config.file="+file)
			for _, o := range f.options {
				o(cmd)
			}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			began := time.Now()
			code := exitCode(t, cmd.Run())
			took := time.Since(began)
			got := strings.ReplaceAll(stderr.String(), filepath.Dir(file), "DIR")
			if code != 1 || stdout.Len() > 0 || got != f.want {
				t.Errorf("exit code %d, stdout %q, stderr\n%swant\n%s", code, &stdout, got, f.want)
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if after := fmt.Sprint(lab.SS(h)); after != before {
				t.Errorf("sockets before: %s, after: %s", before, after)
			}
		})
	}
}

// TestSecondProbed starts probed twice: on other source ports it is welcome,
// on the same it ends with one line, and so on the same web address.
func TestSecondProbed(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	config := simpleConfig("100ms", "90ms", "127.0.0.1:80")
	first := start(t, h, config)
	for _, second := range []struct{ name, yaml, address, want string }{
		{"same web address", config, ":10965", "probed: --web.listen-address=:10965: cannot listen: bind: address already in use: choose a free address of this host, such as :10965\n"},
		{"same source ports", config, ":10966", "probed: source port 61000 is in use by another socket (see ss -tanp 'sport = :61000'): choose another source_ports range\n"},
		{"overlapping source ports", "global: {source_ports: 60900-61000}\n" + minimal, ":10966", "probed: source port 61000 is in use by another socket (see ss -tanp 'sport = :61000'): choose another source_ports range\n"},
	} {
		p := launch(t, h, second.yaml, withArgs("--web.listen-address="+second.address))
		if code := p.end(3 * time.Second); code != 1 || p.said() != second.want {
			t.Errorf("%s: exit code %d, stderr\n%swant\n%s", second.name, code, p.said(), second.want)
		}
	}
	third := launch(t, h, "global: {source_ports: 60000-60001}\n"+minimal, withArgs("--web.listen-address=:10966"))
	third.base = "http://127.0.0.1:10966"
	third.awaitReady()
	if code := stop(third); code != 0 {
		t.Errorf("probed on ports of its own: exit code %d", code)
	}
	before := first.scrape().sum("probed_handshake_rtt_seconds", nil)
	lab.Eventually(t, 3*time.Second, func() error {
		if now := first.scrape().sum("probed_handshake_rtt_seconds", nil); now < before+5 {
			return fmt.Errorf("the first has made %v handshakes since", now-before)
		}
		return nil
	})
	if s := first.scrape(); s.sum("probed_probe_failures_total", nil) > 0 || len(s.reasons("probed_replies_rejected_total", nil)) > 0 {
		t.Errorf("the others disturbed the first: failures %v, rejected %v",
			s.reasons("probed_probe_failures_total", nil), s.reasons("probed_replies_rejected_total", nil))
	}
}

// TestLeastPrivilege runs probed as nobody with CAP_NET_RAW alone.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	b.Listen("tcp", "[::]:80")
	b.AllICMP()
	b.Refuse(81, lab.AdminProhibited)
	file := filepath.Join(readableDir(t), "probed.yml")
	write(t, file, simpleConfig("50ms", "900ms",
		b.Addr4().String()+":80", fmt.Sprintf("[%v]:80", b.Addr6()),
		b.Addr4().String()+":81", fmt.Sprintf("[%v]:81", b.Addr6()),
		"127.0.0.1:10965", "[::1]:10965"))
	veth := a.Capture(t, a.Iface(), ourPorts, lab.Immediate)
	p := launchFile(t, a, file, unprivileged(unix.CAP_NET_RAW))
	p.awaitReady()
	status := procStatus(t, p)
	for key, want := range map[string]string{
		"Uid": "65534\t65534\t65534\t65534", "NoNewPrivs": "1",
		"CapEff": "0000000000002000", "CapPrm": "0000000000002000",
	} {
		if status[key] != want {
			t.Errorf("/proc/PID/status: %s %q, want %q", key, status[key], want)
		}
	}
	var s scrape
	lab.Eventually(t, 10*time.Second, func() error {
		s = p.scrape()
		for _, target := range s.targets() {
			if n := s.sum("probed_probes_total", labels{"target": target}); n < 10 {
				return fmt.Errorf("%s: %v probes", target, n)
			}
		}
		if n := len(s.targets()); n != 6 {
			return fmt.Errorf("%d targets", n)
		}
		return nil
	})
	for _, target := range s.targets() {
		reason := ""
		if strings.HasSuffix(target, ":81") {
			reason = "prohibited"
		}
		with := labels{"target": target}
		probes, rtts := s.sum("probed_probes_total", with), s.sum("probed_handshake_rtt_seconds", with)
		if reason == "" && !about(rtts, probes) || reason != "" && !about(s.reasons("probed_probe_failures_total", with)[reason], probes) {
			t.Errorf("%s: %v probes, %v RTTs, failures %v", target, probes, rtts, s.reasons("probed_probe_failures_total", with))
		}
	}
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Errorf("reload: %d %s", code, body)
	}
	inject(t, b, netip.AddrPortFrom(b.Addr4(), 9), netip.AddrPortFrom(a.Addr4(), guardedFirst+7))
	inject(t, b, netip.AddrPortFrom(b.Addr6(), 9), netip.AddrPortFrom(a.Addr6(), guardedFirst+7))
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var injected int
	for _, s := range segments(t, veth.Packets()) {
		if s.SrcPort == 9 {
			injected++
		}
		if s.SrcPort >= guardedFirst && s.SrcPort <= guardedLast {
			t.Errorf("a segment from the guarded port %d: %v", s.SrcPort, s.Segment.Flags)
		}
	}
	if injected != 2 {
		t.Errorf("%d injected segments in the capture, want 2", injected)
	}
	if left := lab.SS(b, "syn-recv"); len(left) > 0 {
		t.Errorf("half-open state left: %v", left)
	}
}

// procStatus reads /proc/PID/status.
func procStatus(t *testing.T, p *process) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	status := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		status[key] = strings.TrimSpace(value)
	}
	return status
}
