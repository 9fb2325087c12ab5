package booted

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLintian: not a word, but for what deploy/package/lintian-overrides gives a
// reason for, and of what the program's constants spell together: Go's linker puts
// them side by side with nothing between, other ones in each build, so "silent" and the
// "Y" of the next one are a misspelling of one commit, and an override that finds none
// is itself reported.
func TestLintian(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "lintian", "--no-cfg", "--allow-root",
		"--display-info", "--pedantic", "--suppress-tags", "spelling-error-in-binary", "--fail-on", "error,warning,info,pedantic", thePackage(t)).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// theRPM is the other package.
func theRPM(t *testing.T) string { return built(t, "DIST", "../../dist", "probed-*.rpm") }

// rpmlint reads a package, by a configuration. It unpacks it by the paths that are in
// it, which are absolute: so it gets a root of its own, this one with a layer over it
// that goes with the mount namespace.
const rpmlint = `
mount -t tmpfs none /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
mount -t proc none /mnt/root/proc
cp "$1" "$2" /mnt/root/tmp
exec chroot /mnt/root rpmlint --config "/tmp/${2##*/}" "/tmp/${1##*/}"`

// TestRPM installs the RPM into a folder, and has rpmlint read it.
func TestRPM(t *testing.T) {
	t.Parallel()
	rpm := theRPM(t)
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-ec", rpmlint, "sh", rpm, "../../deploy/package/rpmlint.toml").CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 errors, 0 warnings") {
		t.Errorf("rpmlint: %v\n%s", err, out)
	}
	root := t.TempDir()
	command(t, "rpm", "--root", root, "--install", "--nodeps", "--noscripts", rpm)
	// All is there, with the modes, sizes and digests that the package says.
	if changed, err := exec.CommandContext(t.Context(), "rpm", "--root", root, "--verify", "--nodeps", "probed").CombinedOutput(); err != nil {
		t.Errorf("rpm --verify: %v\n%s", err, changed)
	}
	for flag, want := range map[string]string{
		"--configfiles":  "/etc/default/probed\n/etc/probed/probed.yml\n",
		"--licensefiles": "/usr/share/licenses/probed/LICENSE\n",
	} {
		if got := command(t, "rpm", "--root", root, "--query", flag, "probed"); got != want {
			t.Errorf("rpm %s: %q, want %q", flag, got, want)
		}
	}
	if out := command(t, "chroot", root, "/usr/bin/probed", "check-config", "/etc/probed/probed.yml"); !strings.Contains(out, "good") {
		t.Errorf("its configuration: %s", out)
	}
	for script, has := range map[string]string{"postinst": "postinstall", "prerm": "preuninstall", "postrm": "postuninstall"} {
		file := filepath.Join("../../deploy/package/rpm", script)
		command(t, "sh", "-n", file)
		text, err := os.ReadFile(file)
		if all := command(t, "rpm", "--query", "--scripts", "--package", rpm); err != nil || !strings.Contains(all, has+" scriptlet (using /bin/sh):\n"+string(text)) {
			t.Errorf("%v; %s is not in\n%s", err, script, all)
		}
	}
}

// TestSame: both packages hold the same files, but for what each system has in a
// place of its own, and the image the same program.
func TestSame(t *testing.T) {
	t.Parallel()
	list := func(text string) map[string]bool {
		all := make(map[string]bool)
		for line := range strings.Lines(text) {
			path := strings.TrimPrefix(strings.TrimSpace(line), ".")
			switch {
			case strings.HasSuffix(path, "/"), path == "/etc/probed": // folders, as tar and as rpm has them
				continue
			case strings.HasPrefix(path, "/usr/lib/systemd/"):
				path = strings.TrimPrefix(path, "/usr")
			case strings.Contains(path, "zsh"):
				path = "zsh completion"
			case strings.Contains(path, "lintian"), strings.HasSuffix(path, "/changelog.Debian.gz"),
				strings.HasSuffix(path, "/copyright"), strings.Contains(path, "licenses"):
				continue
			}
			all[path] = true
		}
		return all
	}
	contents := command(t, "dpkg-deb", "--fsys-tarfile", thePackage(t))
	tree := t.TempDir()
	tarball := filepath.Join(tree, "deb.tar")
	if err := os.WriteFile(tarball, []byte(contents), 0o644); err != nil {
		t.Fatal(err)
	}
	deb := list(command(t, "tar", "-tf", tarball))
	rpm := list(command(t, "rpm", "--query", "--list", "--package", theRPM(t)))
	for path := range deb {
		if !rpm[path] {
			t.Errorf("%s is in the deb and not in the rpm", path)
		}
	}
	for path := range rpm {
		if !deb[path] {
			t.Errorf("%s is in the rpm and not in the deb", path)
		}
	}
	command(t, "tar", "-C", tree, "-xf", tarball, "./usr/bin/probed")
	image := built(t, "DIST", "../../dist", "rootfs.tar")
	command(t, "tar", "-C", tree, "--transform", "s,.*,image,", "-xf", image, "usr/bin/probed")
	command(t, "cmp", filepath.Join(tree, "usr/bin/probed"), filepath.Join(tree, "image"))
}

// TestManPages has mandoc read them, which is stricter than man(1).
func TestManPages(t *testing.T) {
	t.Parallel()
	out, _ := exec.CommandContext(t.Context(), "mandoc", "-T", "lint", "-W", "warning",
		"../../deploy/package/probed.1", "../../deploy/package/probed.yml.5").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "missing date") { // they are of every commit
			t.Error(strings.TrimSpace(line))
		}
	}
}

// TestVerify has systemd read the units as a file, where it complains of what it would
// ignore.
func TestVerify(t *testing.T) {
	t.Parallel()
	m := installed(t)
	if out := m.run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/probed.service", "/lib/systemd/system/probed.socket"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
