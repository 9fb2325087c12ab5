package booted

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// installed boots a machine and installs the package.
func installed(t *testing.T) *machine {
	t.Helper()
	deb := thePackage(t)
	m := boot(t, deb)
	m.install("/given/" + filepath.Base(deb))
	return m
}

// mostExposed is what `systemd-analyze security` may say of the service, of 10.
const mostExposed = 1.5

// TestInstall is the first five minutes: install, look at the status, the metrics,
// the manual and the completion.
func TestInstall(t *testing.T) {
	t.Parallel()
	m := installed(t)
	status := m.run("systemctl", "status", "--no-pager", "probed.service")
	for _, want := range []string{"Active: active (running)", "; enabled;", `Status: "probing`} {
		if !strings.Contains(status, want) {
			t.Errorf("systemctl status lacks %s:\n%s", want, status)
		}
	}
	t.Log(status)
	m.awaitSample(3, "probed_handshake_rtt_seconds_count", `module="half_open"`)
	for _, module := range []string{"active_close", "passive_close"} {
		m.awaitSample(1, "probed_teardowns_total", `module="`+module+`"`)
	}
	m.awaitSample(1, "probed_time_wait_reuse_total", `answer="accepted"`)
	if n, err := m.sample("probed_probe_failures_total"); n != 0 || err != nil {
		t.Errorf("%v failures, %v", n, err)
	}
	// What a filter of system calls or a hidden /proc would have taken away.
	processors := m.run("nproc")
	if n, err := m.sample("go_sched_gomaxprocs_threads"); err != nil || strconv.Itoa(int(n)-1) != processors { // and one for its loop
		t.Errorf("probed sees %v of %s processors, %v", n-1, processors, err)
	}
	if n, err := m.sample("process_start_time_seconds"); err != nil || time.Since(time.Unix(int64(n), 0)).Abs() > time.Hour {
		t.Errorf("process_start_time_seconds %v, %v", n, err)
	}
	if out := m.run("bash", "-c", `. /usr/share/bash-completion/completions/probed
		COMP_WORDS=(probed ping --lad) COMP_CWORD=2; _probed_bash_autocomplete; echo "${COMPREPLY[@]}"`); out != "--ladder" {
		t.Errorf("the completion of --lad is %q", out)
	}
	for _, file := range []string{"/etc/probed/probed.yml", "/usr/share/doc/probed/examples/probed.yml"} {
		m.run("probed", "check-config", file)
	}
}

// TestHardening holds the service's process against what the unit promises.
func TestHardening(t *testing.T) {
	t.Parallel()
	m := installed(t)
	analysis := m.run("systemd-analyze", "security", "--no-pager", "probed.service")
	line := regexp.MustCompile(`Overall exposure level for probed\.service: ([0-9.]+)`).FindStringSubmatch(analysis)
	if line == nil {
		t.Fatalf("systemd-analyze security says\n%s", analysis)
	}
	t.Log(line[0])
	if exposure, err := strconv.ParseFloat(line[1], 64); err != nil || exposure > mostExposed {
		t.Errorf("exposure %s, want at most %v:\n%s", line[1], mostExposed, analysis)
	}
	proc, err := os.ReadFile(m.path("/proc/" + m.pid() + "/status"))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(proc)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	const netRaw = "0000000000002000" // CAP_NET_RAW, linux/capability.h
	for name, want := range map[string]string{
		"CapPrm": netRaw, "CapEff": netRaw, "CapBnd": netRaw, "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if fields[name] != want {
			t.Errorf("%s is %s, want %s", name, fields[name], want)
		}
	}
	// The unit's filters do not keep it from giving up more.
	if said := m.run("journalctl", "--no-pager", "--unit=probed.service", "--output=cat"); strings.Contains(said, "more rights than probing needs") {
		t.Errorf("the journal:\n%s", said)
	}
	// The key of its sequence numbers is its own, and stays when it starts again.
	const key = "stat -L -c '%a %s' /run/probed/iss.key && sha256sum </run/probed/iss.key && stat -L -c %a /run/probed"
	before := m.run("sh", "-c", key)
	if f := strings.Fields(before); len(f) != 5 || f[0] != "600" || f[1] != "32" || f[4] != "700" {
		t.Errorf("the key: %s", before)
	}
	m.run("systemctl", "stop", "probed.service")
	m.run("systemctl", "start", "probed.service")
	if after := m.run("sh", "-c", key); after != before {
		t.Errorf("the key was %s, and is %s", before, after)
	}
	if uid := strings.Fields(fields["Uid"]); uid[0] == "0" {
		t.Error("it runs as root")
	}
	// A process beside it in the same sandbox: what it may not do.
	refused := map[string]string{
		"see other processes": "[ -d /proc/1 ]",
		"look into /root":     "ls /root",
		"change an address":   "ip address add 198.18.0.9/32 dev lo",
		"change a sysctl":     "echo 1 >/proc/sys/net/ipv4/ip_forward",
		"make a namespace":    "unshare --net true",
	}
	for _, place := range []string{
		"/etc/probed", "/dev", "/dev/mqueue", "/dev/shm", "/home", "/opt", "/run", "/run/lock", "/srv", "/tmp",
		"/usr", "/var/cache", "/var/lib", "/var/tmp",
	} {
		refused["write in "+place] = "echo x >" + place + "/x"
	}
	for what, command := range refused {
		if m.sandboxed(command) == nil {
			t.Errorf("it can %s", what)
		}
	}
	if err := m.sandboxed("test -r /etc/probed/probed.yml"); err != nil {
		t.Errorf("the sandbox itself does not run: %v", err)
	}
	// Nor anywhere else. Of /proc there is its own process.
	err = m.sandboxed(`find / -path /proc -prune -o -path /run/private/probed -prune -o -type d -writable -printf "writable: %%p\\n" -o -type f -writable -printf "writable: %%p\\n" || true`)
	said := m.run("journalctl", "--no-pager", "--unit=sandboxed.service", "--lines=1000", "--output=cat")
	if err != nil || strings.Contains(said, "writable: ") {
		t.Errorf("it can write: %v\n%s", err, said)
	}
	// The unit's list of calls has those by which probed gives up writing, once it has started.
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 {
		t.Logf("this kernel has no Landlock: %v", errno)
	} else if err := m.landlocked(); err != nil {
		t.Errorf("Landlock: %v\n%s", err, m.run("journalctl", "--no-pager", "--unit=sandboxed.service", "--lines=5", "--output=cat"))
	}
	// The kernel lets it send to unicast addresses only.
	m.dropIn("IPAddressAllow=\nIPAddressAllow=127.0.0.0/8 ::1\n")
	m.awaitSample(1, "probed_handshake_rtt_seconds_count", `module="half_open"`)
	m.write("/etc/systemd/system/probed.service.d/test.conf", "[Service]\nIPAddressAllow=\n")
	m.run("systemctl", "daemon-reload")
	if out, err := m.try("systemctl", "restart", "probed.service"); err == nil {
		t.Errorf("IPAddressDeny= is not in force: it probes where nothing is allowed\n%s", out)
	}
}

// landlock has a process give up writing as internal/confine does, where it may write
// before.
const landlock = `
sub may { open my $f, '>>', '/run/probed/landlock' }
may or die "before: $!";
my $ruleset = pack 'Q', %d;
(my $fd = syscall %d, $ruleset, 8, 0) >= 0 or die "landlock_create_ruleset: $!";
syscall(%d, $fd, 0) == 0 or die "landlock_restrict_self: $!";
die 'it goes on writing' if may;
`

// landlocked runs it in the service's sandbox.
func (m *machine) landlocked() error {
	m.t.Helper()
	m.write("/usr/share/landlock", fmt.Sprintf(landlock, unix.LANDLOCK_ACCESS_FS_WRITE_FILE, unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_RESTRICT_SELF))
	return m.sandboxed("perl /usr/share/landlock")
}

// sandboxed runs a shell command in a service with probed's own unit, but for what it
// starts.
func (m *machine) sandboxed(command string) error {
	m.t.Helper()
	unit, err := os.ReadFile(m.path("/lib/systemd/system/probed.service"))
	if err != nil {
		m.t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^(ExecStart|ExecReload|Restart|WatchdogSec|Type)=.*$`).ReplaceAllString(string(unit), "")
	m.write("/run/systemd/system/sandboxed.service", text+"\n[Service]\nType=oneshot\nExecStart=/bin/sh -ec '"+command+"'\n")
	m.run("systemctl", "daemon-reload")
	out, err := m.try("systemctl", "start", "sandboxed.service")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestReload(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.awaitSample(1, "probed_handshake_rtt_seconds_count")
	pid := m.pid()
	m.write("/etc/probed/probed.yml", "jobs:\n- {name: two, interval: 100ms, timeout: 90ms, targets: [\"127.0.0.1:10965\", \"127.0.0.2:10965\"]}\n")
	m.run("systemctl", "reload", "probed.service")
	m.awaitSample(5, "probed_handshake_rtt_seconds_count", `job_name="two"`, `target="127.0.0.2:10965"`)

	m.write("/etc/probed/probed.yml", "jobs: oops\n")
	m.run("systemctl", "reload", "probed.service")
	m.await(5*time.Second, "the status", func() error {
		if s := m.property("StatusText"); !strings.Contains(s, "probing 2 targets; the reload at ") {
			return errors.New(s)
		}
		return nil
	})
	if v, err := m.sample("probed_config_last_reload_successful"); v != 0 || err != nil {
		t.Errorf("probed_config_last_reload_successful %v, %v", v, err)
	}
	if said := m.run("journalctl", "-u", "probed.service", "--no-pager"); !strings.Contains(said, "probed.yml:1:7: jobs:") {
		t.Errorf("the journal does not say where the mistake is:\n%s", said)
	}
	n, _ := m.sample("probed_handshake_rtt_seconds_count", `job_name="two"`)
	m.awaitSample(n+5, "probed_handshake_rtt_seconds_count", `job_name="two"`)
	if m.property("ActiveState") != "active" || m.pid() != pid || m.number("NRestarts") != 0 {
		t.Errorf("it is %s, its process was %s and is %s", m.property("ActiveState"), pid, m.pid())
	}
}

// TestDiscovery: a list of targets that is changed while the service runs, which it
// watches from inside its sandbox.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.write("/etc/probed/targets/edge.yml", "- targets: [\"127.0.0.1:10965\"]\n")
	m.write("/etc/probed/probed.yml", "jobs:\n- {name: edge, interval: 100ms, timeout: 90ms, file_sd_configs: [{files: [\"targets/*.yml\"]}]}\n")
	m.run("systemctl", "reload", "probed.service")
	m.awaitSample(3, "probed_handshake_rtt_seconds_count", `target="127.0.0.1:10965"`)
	m.write("/etc/probed/targets/new.yml", "- targets: [\"127.0.0.2:10965\"]\n")
	m.awaitSample(3, "probed_handshake_rtt_seconds_count", `target="127.0.0.2:10965"`)
	m.await(10*time.Second, "the status", func() error {
		if s := m.property("StatusText"); s != "probing 2 targets" {
			return errors.New(s)
		}
		return nil
	})
}

// TestListsAnywhere: the sandbox hides nothing where a list of targets is likely to be
// kept. From what it does hide, a drop-in fetches it.
func TestListsAnywhere(t *testing.T) {
	t.Parallel()
	m := installed(t)
	jobs := "jobs:\n"
	for i, dir := range []string{"/srv", "/opt", "/var/lib", "/var/cache", "/mnt", "/media", "/home/ops", "/tmp"} {
		m.write(dir+"/lists/edge.yml", fmt.Sprintf("- targets: [\"127.0.0.%d:10965\"]\n", i+1))
		jobs += fmt.Sprintf("- {name: %q, interval: 100ms, timeout: 90ms, file_sd_configs: [{files: [%s/lists/*.yml]}]}\n", dir, dir)
	}
	home := "- {name: \"/home/ops\", interval: 100ms, timeout: 90ms, file_sd_configs: [{files: [/home/ops/lists/*.yml]}]}\n"
	m.write("/etc/probed/probed.yml", strings.Replace(jobs, home, "", 1))
	m.run("systemctl", "reload", "probed.service")
	for _, dir := range []string{"/srv", "/opt", "/var/lib", "/var/cache", "/mnt", "/media"} {
		m.awaitSample(2, "probed_handshake_rtt_seconds_count", `job_name="`+dir+`"`)
	}
	m.await(5*time.Second, "the status", func() error {
		if s := m.property("StatusText"); s != "probing 6 targets" {
			return errors.New(s)
		}
		return nil
	})
	m.write("/etc/probed/probed.yml", jobs)
	m.run("systemctl", "reload", "probed.service")
	m.await(5*time.Second, "the journal", func() error { // the configuration of before stays
		if said := m.run("journalctl", "-u", "probed.service", "--no-pager"); !strings.Contains(said, "the folder /home may not be entered") {
			return errors.New(said)
		}
		return nil
	})
	m.dropIn("ProtectHome=tmpfs\nBindReadOnlyPaths=/home/ops/lists /tmp/lists\n")
	for _, dir := range []string{"/home/ops", "/tmp"} {
		m.awaitSample(2, "probed_handshake_rtt_seconds_count", `job_name="`+dir+`"`)
	}
}

// TestNoFile: without a configuration it probes itself, and says so; with one that is
// named and missing it does not start.
func TestNoFile(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.run("rm", "/etc/probed/probed.yml")
	m.run("systemctl", "restart", "probed.service")
	m.await(5*time.Second, "the status", func() error {
		if s := m.property("StatusText"); s != "probing 10 targets" {
			return errors.New(s)
		}
		return nil
	})
	if n, err := m.sample("probed_targets"); n != 10 || err != nil {
		t.Errorf("probed_targets %v, %v", n, err)
	}
	m.awaitSample(1, "probed_handshake_rtt_seconds_count", `job_name="self"`)
	if said := m.run("journalctl", "-u", "probed.service", "--no-pager"); !strings.Contains(said, "no configuration file: probing our own web listener") {
		t.Errorf("the journal does not say that there is no file:\n%s", said)
	}
	m.write("/etc/default/probed", "ARGS=\"--config.file=/etc/probed/probed.yml\"\n")
	if out, err := m.try("systemctl", "restart", "probed.service"); err == nil {
		t.Errorf("it starts without the file that is named\n%s", out)
	}
}

// A talker is a peer that accepts connections and writes to each now and then, so
// that its kernel learns what has become of the other end.
type talker struct {
	mu   sync.Mutex
	open map[net.Conn]bool
}

// talk listens in the machine's network.
func (m *machine) talk(address string) *talker {
	m.t.Helper()
	var l net.Listener
	var err error
	m.inside(func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	k := &talker{open: make(map[net.Conn]bool)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k.set(c, true)
			go func() {
				defer c.Close()
				for {
					if _, err := c.Write([]byte(".")); err != nil {
						k.set(c, false)
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
	}()
	return k
}

func (k *talker) set(c net.Conn, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if open {
		k.open[c] = true
	} else {
		delete(k.open, c)
	}
}

func (k *talker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)
}

// TestKilled: what SIGKILL ends comes back, and its peers keep nothing of the
// connections that were open.
func TestKilled(t *testing.T) {
	t.Parallel()
	m := installed(t)
	m.run("ip", "address", "add", "198.18.0.2/32", "dev", "lo")
	peer := m.talk("198.18.0.2:80")
	m.write("/etc/probed/probed.yml", `
modules: {held: {probe: active_close, interval: 500ms, timeout: 60s, hold: 50s}}
jobs:
- {name: open, module: held, targets: ["198.18.0.2:80"]}
- {name: half, interval: 20ms, timeout: 19ms, targets: ["198.18.0.2:80"]}
`)
	m.dropIn("RestartSec=3s\n")
	m.await(10*time.Second, "open connections", func() error {
		if n := peer.count(); n < 5 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	before := m.pid()
	m.run("sh", "-c", "kill -KILL "+before)
	m.await(2500*time.Millisecond, "the peer's connections to end before probed is back", func() error {
		if n := peer.count(); n > 0 {
			return fmt.Errorf("%d open", n)
		}
		return nil
	})
	if left := m.run("ss", "-Htan", "state", "connected", "src", "198.18.0.2"); left != "" {
		t.Errorf("the peer is left with\n%s", left)
	}
	m.await(10*time.Second, "its return", func() error {
		if pid := m.pid(); pid == before || pid == "0" || m.property("ActiveState") != "active" {
			return errors.New(m.property("ActiveState"))
		}
		return nil
	})
	if n := m.number("NRestarts"); n != 1 {
		t.Errorf("%d restarts", n)
	}
	m.awaitSample(5, "probed_handshake_rtt_seconds_count", `job_name="half"`)
}

// TestWatchdog: a process that hangs is started again, one with nothing to do is
// left alone.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := installed(t)
	if usec := m.property("WatchdogUSec"); usec != "30s" {
		t.Errorf("the unit's watchdog waits %s", usec)
	}
	const watchdog = 2 * time.Second
	m.write("/etc/probed/probed.yml", "jobs: []\n")
	m.dropIn("WatchdogSec=2s\nRestartSec=100ms\n")
	before := m.pid()
	time.Sleep(2*watchdog + watchdog/2)
	if n, pid := m.number("NRestarts"), m.pid(); n != 0 || pid != before {
		t.Fatalf("an idle probed was restarted %d times: %s, then %s", n, before, pid)
	}
	m.run("sh", "-c", "kill -STOP "+before)
	m.await(3*watchdog, "its return", func() error {
		if pid := m.pid(); pid == before || pid == "0" || m.property("ActiveState") != "active" {
			return errors.New(m.property("ActiveState"))
		}
		return nil
	})
	journal := m.run("journalctl", "--no-pager", "-u", "probed.service")
	for _, want := range []string{"Watchdog timeout", "(*Shard).Run"} { // who, and where it hung
		if !strings.Contains(journal, want) {
			t.Errorf("the journal lacks %q:\n%s", want, journal)
		}
	}
	if _, err := m.get(page + "/-/ready"); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// TestSocketActivation turns the socket on as its unit says.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	m := installed(t)
	if out, err := m.try("systemctl", "is-enabled", "probed.socket"); err == nil {
		t.Errorf("it is on without being asked for: %s", out)
	}
	m.write("/etc/default/probed", `ARGS="--web.systemd-socket"`+"\n")
	m.run("systemctl", "stop", "probed.service")
	m.run("systemctl", "enable", "--now", "probed.socket")
	if state, _ := m.try("systemctl", "is-active", "probed.service"); state != "inactive" {
		t.Errorf("before the first request probed is %s", state)
	}
	if _, err := m.get(page + "/-/healthy"); err != nil { // which starts it
		t.Errorf("the first request: %v", err)
	}
	m.awaitSample(1, "probed_handshake_rtt_seconds_count")
	// The listener is systemd's: who connects while probed is away waits for it. Only
	// what the old process had accepted in its last moment may end without an answer.
	cut := 0
	restarted := make(chan error, 1)
	go func() {
		_, err := m.try("systemctl", "restart", "probed.service")
		restarted <- err
	}()
	for done := false; !done; {
		select {
		case err := <-restarted:
			if err != nil {
				t.Error(err)
			}
			done = true
		default:
		}
		if _, err := m.get(page + "/-/healthy"); err != nil {
			t.Logf("a request during a restart: %v", err)
			cut++
			if cut > 1 || errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%d requests without an answer, the last: %v", cut, err)
			}
		}
	}
	m.awaitSample(1, "probed_handshake_rtt_seconds_count")
	if n := m.number("NRestarts"); n != 0 {
		t.Errorf("it has failed %d times", n)
	}
}

// TestTLS hands the certificate's key over as docs/install.md says: as a credential,
// which only the service can read.
func TestTLS(t *testing.T) {
	t.Parallel()
	certificate, key := selfSigned(t)
	m := installed(t)
	m.write("/etc/probed/web.yml", "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n")
	m.write("/etc/ssl/probed.crt", certificate)
	m.write("/etc/ssl/private/probed.key", key)
	m.run("chmod", "600", "/etc/ssl/private/probed.key")
	m.write("/etc/default/probed", `ARGS="--web.config.file=/run/credentials/probed.service/web.yml"`+"\n")
	m.dropIn(`LoadCredential=web.yml:/etc/probed/web.yml
LoadCredential=tls.crt:/etc/ssl/probed.crt
LoadCredential=tls.key:/etc/ssl/private/probed.key
`)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		t.Fatal("the certificate is none")
	}
	m.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	m.await(10*time.Second, "an answer over TLS", func() error {
		_, err := m.get(strings.Replace(page, "http:", "https:", 1) + "/-/ready")
		return err
	})
	if _, err := m.get(page + "/-/ready"); err == nil {
		t.Error("it answers without TLS too")
	}
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return encode("CERTIFICATE", cert), encode("PRIVATE KEY", der)
}
