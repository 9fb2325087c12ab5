package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A pod is a container that runc has started inside a host of the laboratory, from
// the specification that containerd would write.
type pod struct {
	t      *testing.T
	dir    string // of the bundle
	volume string // what is mounted at /etc/probed
	name   string
	http   *http.Client
	ended  chan struct{}
	said   lab.Output
}

// A preparation changes the image's files before the container starts.
type preparation func(root string)

// launch starts a container of the image.
func launch(t *testing.T, h *lab.Host, c container, prepare ...preparation) *pod {
	t.Helper()
	p := &pod{t: t, dir: t.TempDir(), volume: t.TempDir(), name: fmt.Sprintf("probed-test-%d-%d", os.Getpid(), time.Now().UnixNano()), ended: make(chan struct{})}
	p.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return h.Dial(network, addr, 5*time.Second)
		},
	}}
	root := filepath.Join(p.dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	image, entry, _ := recipe(t)
	command(t, "", "tar", "--xattrs", "--xattrs-include=*", "-C", root, "-xf", image)
	for _, f := range prepare {
		f(root)
	}
	files := make(map[string]string)
	for path, text := range c.Files {
		files[filepath.Base(path)] = text
	}
	p.project(files)
	at[map[string]any](t, c.Spec, "process")["args"] = append([]string{entry}, c.Args...)
	c.Spec["mounts"] = []map[string]any{
		{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{"destination": "/etc/probed", "type": "bind", "source": p.volume, "options": []string{"rbind", "ro"}},
		{"destination": "/etc/resolv.conf", "type": "bind", "source": filepath.Join(p.dir, "resolv.conf"), "options": []string{"rbind", "ro"}},
	}
	write(t, filepath.Join(p.dir, "resolv.conf"), c.DNS)
	// The network is that of the laboratory's host, where runc is started.
	at[map[string]any](t, c.Spec, "linux")["namespaces"] = []map[string]string{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	text, err := json.Marshal(c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.dir, "config.json"), string(text))
	cmd := h.Command(context.WithoutCancel(t.Context()), "runc", "--root", filepath.Join(p.dir, "state"), "run", "--bundle", p.dir, p.name)
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("the container said:\n%s", p.said.String())
		}
	})
	return p
}

// end ends the container as a kubelet does, first with SIGTERM.
func (p *pod) end() {
	p.t.Helper()
	for _, signal := range []string{"TERM", "KILL"} {
		_ = p.runc("kill", p.name, signal).Run() // fails when it has ended
		select {
		case <-p.ended:
			return
		case <-time.After(10 * time.Second):
			p.t.Errorf("the container is still there 10 s after SIG%s", signal)
		}
	}
}

func (p *pod) runc(args ...string) *exec.Cmd {
	return exec.CommandContext(context.WithoutCancel(p.t.Context()), "runc", append([]string{"--root", filepath.Join(p.dir, "state")}, args...)...)
}

// project writes the volume's files as a kubelet does: into a new folder, to which
// a link is turned by one rename.
func (p *pod) project(files map[string]string) {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.volume, "..")
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(p.volume, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for name, text := range files {
		write(p.t, filepath.Join(dir, name), text)
	}
	link := filepath.Join(p.volume, "..data_tmp")
	if err := os.Symlink(filepath.Base(dir), link); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(p.volume, "..data")); err != nil {
		p.t.Fatal(err)
	}
	for name := range files {
		if err := os.Symlink("..data/"+name, filepath.Join(p.volume, name)); err != nil && !errors.Is(err, os.ErrExist) {
			p.t.Fatal(err)
		}
	}
}

func (p *pod) get(path string) (string, error) {
	resp, err := p.http.Get("http://127.0.0.1:10965" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// ready waits until the readiness probe would succeed.
func (p *pod) ready() {
	p.t.Helper()
	p.await(func() error {
		_, err := p.get("/-/ready")
		return err
	})
}

func (p *pod) await(f func() error) {
	p.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the container ended: %s", p.said.String())
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not within 15 s: %v", err)
		}
	}
}

var success = regexp.MustCompile(`(?m)^probed_probe_success\{.*target="([^"]*)".*\} 1$`)

// probing waits until n targets have answered and returns them.
func (p *pod) probing(n int) []string {
	p.t.Helper()
	var targets []string
	p.await(func() (err error) {
		targets, err = p.answered()
		if err == nil && len(targets) != n {
			err = fmt.Errorf("%d targets answered, expected %d", len(targets), n)
		}
		return err
	})
	return targets
}

// answered returns the targets whose last probe succeeded.
func (p *pod) answered() ([]string, error) {
	body, err := p.get("/metrics")
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, m := range success.FindAllStringSubmatch(body, -1) {
		targets = append(targets, m[1])
	}
	return targets, nil
}

// status returns what the kernel says of the container's first process.
func (p *pod) status() map[string]string {
	p.t.Helper()
	out, err := p.runc("state", p.name).Output()
	if err != nil {
		p.t.Fatal(err)
	}
	var state struct{ Pid int }
	parse(p.t, string(out), &state)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", state.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	all := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(line, ":")
		all[k] = strings.Join(strings.Fields(v), " ")
	}
	return all
}

var (
	entryPoint = regexp.MustCompile(`(?m)^ENTRYPOINT \["(.*)"\]$`)
	ofUser     = regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`)
)

// recipe returns the image's files, as `make packages` makes them, and what its recipe
// says of its program and its user.
func recipe(t *testing.T) (image, entry, user string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	e, u := entryPoint.FindSubmatch(text), ofUser.FindSubmatch(text)
	if e == nil || u == nil {
		t.Fatal("deploy/container/Dockerfile: no ENTRYPOINT or USER that this test understands")
	}
	dist := os.Getenv("DIST")
	if dist == "" {
		dist = "../../dist"
	}
	image = filepath.Join(dist, "rootfs.tar")
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("%v: run `make packages`", err)
	}
	return image, string(e[1]), string(u[1])
}

// TestPod runs the shards of a list one after the other, each as its node would run
// it. It has CAP_NET_RAW and nothing else, and no way to more; the shards are disjoint
// and complete; and a changed list takes effect without a restart.
func TestPod(t *testing.T) {
	const netRaw = "0000000000002000"
	program, built := probed(t), build(t, "base/sharded")
	_, _, user := recipe(t)
	a, b := lab.Pair(t)
	b.AnyIP("198.18.64.0/24")
	b.Listen("tcp4", "0.0.0.0:80")
	list := func(n int) string {
		var text strings.Builder
		text.WriteString("- targets:\n")
		for i := range n {
			fmt.Fprintf(&text, "  - 198.18.64.%d:80\n", i+1)
		}
		return text.String()
	}
	var all []string
	for i := range 3 {
		c := node(t, built, "StatefulSet/probed", i)
		c.Files["/etc/probed/targets.yml"] = list(60)
		p := launch(t, a, c)
		p.ready()
		status := p.status()
		for k, want := range map[string]string{
			"Uid": strings.Join([]string{user, user, user, user}, " "), "Groups": "",
			"CapInh": "0000000000000000", "CapPrm": netRaw, "CapEff": netRaw, "CapBnd": netRaw, "CapAmb": "0000000000000000",
			"NoNewPrivs": "1", "Seccomp": "2",
		} {
			if status[k] != want {
				t.Errorf("%s: %q, expected %q", k, status[k], want)
			}
		}
		n := checked(t, program, c)
		all = append(all, p.probing(n)...)
		if i == 2 {
			p.project(map[string]string{"probed.yml": c.Files["/etc/probed/probed.yml"], "targets.yml": list(3)})
			c.Files["/etc/probed/targets.yml"] = list(3)
			p.probing(checked(t, program, c))
		}
		p.end()
	}
	slices.Sort(all)
	if unique := len(slices.Compact(slices.Clone(all))); len(all) != 60 || unique != 60 {
		t.Errorf("three shards probed %d targets, %d of them different, expected 60", len(all), unique)
	}
}

var together = regexp.MustCompile(`(?m)^  together: (\d+) targets?`)

// checked returns how many targets check-config says that a container would probe.
func checked(t *testing.T, program string, c container) (n int) {
	t.Helper()
	dir := t.TempDir()
	for path, text := range c.Files {
		write(t, filepath.Join(dir, filepath.Base(path)), text)
	}
	said := command(t, "", program, append([]string{"check-config", filepath.Join(dir, "probed.yml")}, c.Args...)...)
	m := together.FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("check-config said: %s", said)
	}
	if _, err := fmt.Sscan(m[1], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPodOfTheMesh starts it without a name server: it is ready, has no targets yet,
// and says why.
func TestPodOfTheMesh(t *testing.T) {
	p := launch(t, lab.NewHost(t, "a"), node(t, build(t, "base/mesh"), "DaemonSet/probed-mesh", 0))
	p.ready()
	p.probing(0)
}

// TestPodOfBaseline keeps NET_RAW of what containerd gives every container.
func TestPodOfBaseline(t *testing.T) {
	built := overlay(t, `
resources: [$MANIFESTS/base/mesh]
components: [$MANIFESTS/components/containerd-baseline]`)
	p := launch(t, lab.NewHost(t, "a"), node(t, built, "DaemonSet/probed-mesh", 0))
	p.ready()
	if got := p.status()["CapEff"]; got != "0000000000002000" {
		t.Errorf("capabilities %s", got)
	}
}

// TestPodWithoutFileCapability shows what the manifests say of it: without it a
// process that isn't root's has no capability, and says what to do.
func TestPodWithoutFileCapability(t *testing.T) {
	p := launch(t, lab.NewHost(t, "a"), node(t, build(t, "base/mesh"), "DaemonSet/probed-mesh", 0), func(root string) {
		_, entry, _ := recipe(t)
		command(t, "", "setcap", "-r", filepath.Join(root, entry))
	})
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it runs")
	}
	if !strings.Contains(p.said.String(), "raw sockets need CAP_NET_RAW") {
		t.Errorf("it said: %s", p.said.String())
	}
}
