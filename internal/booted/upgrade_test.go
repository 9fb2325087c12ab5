package booted

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// newer makes a package of a higher version whose configuration file is another.
func newer(t *testing.T, deb, version string) string {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	edit := func(name string, change func(string) string) {
		b, err := os.ReadFile(filepath.Join(tree, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(tree, name), []byte(change(string(b))), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	command(t, "dpkg-deb", "--raw-extract", deb, tree)
	edit("DEBIAN/control", func(s string) string {
		return regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAllString(s, "Version: "+version)
	})
	edit("etc/probed/probed.yml", func(s string) string { return s + "# " + version + "\n" })
	out := filepath.Join(dir, "probed_"+version+".deb")
	command(t, "dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, out)
	return out
}

// command runs a program here.
func command(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// footprint lists what of probed is on the machine.
func (m *machine) footprint() string {
	m.t.Helper()
	found := m.run("find", "/etc", "/usr", "/var", "/lib", "/run/systemd", "-xdev", "-name", "*probed*",
		"-not", "-path", "/var/log/*", "-not", "-path", "/var/lib/apt/*", "-not", "-path", "/run/systemd/journal/*",
		"-not", "-path", "/run/systemd/units/*", "-not", "-path", "/var/cache/apt/*")
	return found
}

// TestLife is the package's: installed, edited, upgraded, turned off, upgraded,
// removed, installed again, purged.
func TestLife(t *testing.T) {
	t.Parallel()
	deb := thePackage(t)
	second, third := newer(t, deb, "900"), newer(t, deb, "901")
	m := boot(t, deb, second, third)
	given := func(file string) string { return "/given/" + filepath.Base(file) }
	if before := m.footprint(); before != "" {
		t.Fatalf("there before the package:\n%s", before)
	}
	m.install(given(deb))
	const mine = "# mine\njobs: [{name: mine, interval: 100ms, timeout: 90ms, targets: [\"127.0.0.1:10965\"]}]\n"
	m.write("/etc/probed/probed.yml", mine)
	m.write("/etc/probed/targets/edge.yml", "- targets: []\n")
	first := m.pid()

	m.install("-o", "Dpkg::Options::=--force-confold", given(second))
	if b, err := os.ReadFile(m.path("/etc/probed/probed.yml")); err != nil || string(b) != mine {
		t.Errorf("after an upgrade the configuration is %q, %v", b, err)
	}
	if pid := m.pid(); pid == first || m.property("ActiveState") != "active" {
		t.Errorf("an upgrade does not restart it: %s, then %s, %s", first, pid, m.property("ActiveState"))
	}
	m.awaitSample(3, "probed_handshake_rtt_seconds_count", `job_name="mine"`)

	m.run("systemctl", "disable", "--now", "probed.service")
	m.install("-o", "Dpkg::Options::=--force-confold", given(third))
	if out, _ := m.try("systemctl", "is-enabled", "probed.service"); out != "disabled" {
		t.Errorf("an upgrade turns on what was off: %s", out)
	}
	m.run("systemctl", "enable", "--now", "probed.service")
	m.awaitSample(1, "probed_handshake_rtt_seconds_count")

	m.run("apt-get", "remove", "--yes", "probed")
	if out, err := m.try("systemctl", "is-active", "probed.service"); err == nil {
		t.Errorf("removed, and %s", out)
	}
	if _, err := m.get(page + "/-/healthy"); err == nil {
		t.Error("removed, and it answers")
	}
	if b, err := os.ReadFile(m.path("/etc/probed/probed.yml")); err != nil || string(b) != mine {
		t.Errorf("after the removal the configuration is %q, %v", b, err)
	}
	m.install("-o", "Dpkg::Options::=--force-confold", given(third))
	m.awaitSample(1, "probed_handshake_rtt_seconds_count", `job_name="mine"`)

	m.run("apt-get", "purge", "--yes", "probed")
	time.Sleep(200 * time.Millisecond)
	if left := m.footprint(); left != "" {
		t.Errorf("left after the purge:\n%s", left)
	}
	if failed := m.run("systemctl", "--failed", "--no-legend"); failed != "" {
		t.Errorf("failed units after the purge: %s", failed)
	}
}
