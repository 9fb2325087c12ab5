package trust

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/probed/probed/internal/lab"
)

// netRaw is a set of capabilities with CAP_NET_RAW alone, as proc_pid_status(5) has it.
const netRaw = "0000000000002000"

const noCapability = "0000000000000000"

// threads reads what /proc/PID/status says of each thread of a process.
func threads(t *testing.T, pid int) []map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // the thread has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		all = append(all, fields)
	}
	return all
}

// withProgram has another file be probed.
func withProgram(path string) option {
	return func(c *lab.Cmd) { c.Path, c.Args[0] = path, path }
}

// asUser runs as user 65534 with no capability.
func asUser(c *lab.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}}
}

// setcapped is a copy of probed that has CAP_NET_RAW by its file.
func setcapped(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "probed")
	from, err := os.Open(probedPath(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "setcap", "cap_net_raw+ep", path).CombinedOutput(); err != nil {
		t.Fatalf("setcap: %v %s", err, out)
	}
	return path
}

// However probed was started, each of its threads has CAP_NET_RAW and nothing else, can
// gain nothing, and is held to a list of system calls; and all that a reload may ask for
// still works: other targets, an interface and a source address, IPv6 and packet sockets.
func TestRightsOfEveryThread(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name     string
		options  func(t *testing.T) []option
		bounding string // what was left of it
	}{
		{"as a service: a user with an ambient capability", func(*testing.T) []option { return nil }, ""},
		{"as root", func(*testing.T) []option { return []option{asRoot} }, noCapability},
		{"by a file with setcap, as a user without any", func(t *testing.T) []option {
			return []option{withProgram(setcapped(t)), asUser}
		}, ""},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			here, there := lab.Pair(t)
			there.Listen("tcp", "[::]:80")
			const first = "global: {interval: 200ms, timeout: 150ms}\nmodules: {packet: {probe: half_open, transmit: packet}}\njobs:\n- {name: first, targets: ['198.18.0.2:80']}\n"
			d := start(t, here, first, way.options(t)...)
			lab.Eventually(t, patience, func() error { return atLeast(d.scrape(), 10) })
			d.write(fmt.Sprintf(`
global: {interval: 200ms, timeout: 150ms}
modules:
  bound: {probe: half_open, interface: %[1]s, source_address: "2001:db8::1"}
  packet: {probe: half_open, transmit: packet}
  closing: {probe: active_close, interface: %[1]s}
jobs:
- {name: first, targets: ['198.18.0.2:80']}
- {name: bound, module: bound, targets: ['[2001:db8::2]:80']}
- {name: free, targets: ['[2001:db8::2]:80']}
- {name: packet, module: packet, targets: ['198.18.0.2:80']}
- {name: closing, module: closing, targets: ['198.18.0.2:80']}
`, here.Iface()))
			if code, body := d.do("POST", "/-/reload"); code != 200 {
				t.Fatalf("reload: %d %s", code, body)
			}
			var s scrape
			lab.Eventually(t, patience, func() error {
				s = d.scrape()
				for _, job := range []string{"first", "bound", "free", "packet", "closing"} {
					if n := s.sum("probed_handshake_rtt_seconds", "job_name", job); n < 10 {
						return fmt.Errorf("%s: %.0f handshakes", job, n)
					}
				}
				return nil
			})
			if code, _ := d.do("GET", "/debug/pprof/profile?seconds=1"); code != 200 {
				t.Errorf("a profile: %d", code)
			}
			all := threads(t, d.cmd.Process.Pid)
			wrong := 0
			for _, thread := range all {
				for field, want := range map[string]string{
					"CapPrm": netRaw, "CapEff": netRaw, "CapInh": noCapability, "CapAmb": noCapability, "CapBnd": way.bounding,
					"NoNewPrivs": "1", "Seccomp": "2",
				} {
					if got := thread[field]; want != "" && got != want {
						t.Errorf("thread %s: %s %s, want %s", thread["Pid"], field, got, want)
						wrong++
					}
				}
			}
			if len(all) < 4 {
				t.Errorf("%d threads: nothing is shown", len(all))
			}
			// Its memory is nobody else's: a process of the same user may not trace it, and
			// what it owns in /proc is root's.
			var mem syscall.Stat_t
			if err := syscall.Stat(fmt.Sprintf("/proc/%d/mem", d.cmd.Process.Pid), &mem); err != nil || mem.Uid != 0 {
				t.Errorf("its memory is user %d's, %v: it can be dumped", mem.Uid, err)
				wrong++
			}
			if said := d.out.String(); strings.Contains(said, "level=WARN") {
				t.Errorf("probed said:\n%s", said)
			}
			book(t, Row{
				Part: "rights", What: "started " + way.name, Tried: len(all), Of: "threads", Probes: int(s.sum("probed_probes_total")),
				False: int(s.sum("probed_probe_failures_total")), Discarded: int(s.sum("probed_probes_discarded_total") + s.sum("probed_probes_skipped_total")), Left: wrong,
				Note: "CAP_NET_RAW alone, no_new_privs, seccomp: on every thread; a reload that asks for more works",
			})
		})
	}
}

// Without transmit: packet at the start there is no socket to send frames by, and so none
// can be misused. A configuration that asks for it later is probed by raw sockets until
// probed starts again, and it says so.
func TestRightsToSendFrames(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	there.Listen("tcp", "[::]:80")
	const yaml = "global: {interval: 200ms, timeout: 150ms}\nmodules: {packet: {probe: half_open%s}}\njobs:\n- {name: j, module: packet, targets: ['198.18.0.2:80']}\n"
	d := start(t, here, fmt.Sprintf(yaml, ""))
	d.write(fmt.Sprintf(yaml, ", transmit: packet"))
	if code, body := d.do("POST", "/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, body)
	}
	before := d.scrape()
	lab.Eventually(t, patience, func() error {
		return atLeast(d.scrape(), before.sum("probed_probes_total")+20)
	})
	if s := d.scrape(); s.sum("probed_probe_failures_total") != 0 {
		t.Errorf("%v failed", s.values("probed_probe_failures_total", "reason"))
	}
	if said := d.out.String(); strings.Count(said, "level=WARN") != 1 || !strings.Contains(said, "until probed is started again") {
		t.Errorf("probed said:\n%s", said)
	}
}

// What root's own files hold is what probed started as root can read: not those of
// others, and it says so at the start, not at the first reload.
func TestRightsToOthersFiles(t *testing.T) {
	t.Parallel()
	here := lab.NewHost(t, "here")
	d := launch(t, here, "jobs: []\n", asRoot, func(c *lab.Cmd) {
		file := strings.TrimPrefix(c.Args[1], "--config.file=")
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	d.end(patience)
	if said := d.out.String(); d.err == nil || !strings.Contains(said, "permission denied") || !strings.Contains(said, "root's right to others' files") {
		t.Errorf("it ended by %v and said:\n%s", d.err, said)
	}
}

// Nor does it enter their folders: it names the one in the way and says what to do, and
// check-config, by root too, says the same.
func TestRightsToOthersFolders(t *testing.T) {
	t.Parallel()
	here := lab.NewHost(t, "here")
	dir, err := os.MkdirTemp("", "probed-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	others := filepath.Join(dir, "others")
	file, lists := filepath.Join(others, "probed.yml"), filepath.Join(dir, "lists.yml")
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(others, 0o700), os.WriteFile(file, []byte("jobs: []\n"), 0o644),
		os.WriteFile(lists, []byte("jobs: [{name: j, file_sd_configs: [{files: [others/*.yml]}]}]\n"), 0o644),
		os.Chown(others, 65533, 65533),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		file:  "probed gives up root's right to enter others' folders, and " + others + " is one: copy the file to /etc/probed, or `sudo setcap cap_net_raw+ep ./probed`",
		lists: lists + ":1:45: jobs[0].file_sd_configs[0].files[0]: the folder " + others + " may not be entered: probed gives up root's right to others' folders; make it readable",
	} {
		d := launch(t, here, "jobs: []\n", asRoot, func(c *lab.Cmd) { c.Args[1] = "--config.file=" + file })
		d.end(patience)
		if said := d.out.String(); d.err == nil || !strings.Contains(said, want) {
			t.Errorf("it ended by %v and said:\n%swant: %s", d.err, said, want)
		}
		d = launch(t, here, "jobs: []\n", asRoot, func(c *lab.Cmd) { c.Args = []string{c.Args[0], "check-config", file} })
		d.end(patience)
		if said := d.out.String(); d.err == nil || !strings.Contains(said, want) {
			t.Errorf("check-config ended by %v and said:\n%swant: %s", d.err, said, want)
		}
	}
}
