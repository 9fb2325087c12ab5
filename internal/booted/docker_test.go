package booted

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDocker builds the recipe and runs it, where there is a Docker engine: without a
// registry, because nothing is fetched. Where there is none, TestContainer has run the
// same files the same way.
func TestDocker(t *testing.T) {
	t.Parallel()
	if out, err := exec.CommandContext(t.Context(), "docker", "info").CombinedOutput(); err != nil {
		t.Logf("no Docker engine here: %v %s", err, out)
		return
	}
	const image = "probed-test:booted"
	context := filepath.Dir(built(t, "DIST", "../../dist", "rootfs.tar"))
	command(t, "docker", "build", "--quiet", "--tag", image, "--file", "../../deploy/container/Dockerfile", context)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "--force", image).Run() })
	id := strings.TrimSpace(command(t, "docker", "run", "--detach", "--network=none", "--read-only",
		"--cap-drop=ALL", "--cap-add=NET_RAW", image))
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "--force", id).Run() })
	pid, err := strconv.Atoi(strings.TrimSpace(command(t, "docker", "inspect", "--format={{.State.Pid}}", id)))
	if err != nil || pid == 0 {
		t.Fatalf("it does not run: %v\n%s", err, command(t, "docker", "logs", id))
	}
	m := at(t, pid)
	m.awaitSample(2, "probed_handshake_rtt_seconds_count", `module="half_open"`)
	m.awaitSample(1, "probed_teardowns_total", `module="active_close"`)
	out, err := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--network=none",
		"--cap-drop=ALL", "--cap-add=NET_RAW", "--security-opt=no-new-privileges", image).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CAP_NET_RAW") {
		t.Errorf("with no-new-privileges: %v\n%s", err, out)
	}
}
