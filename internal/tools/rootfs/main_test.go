package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestOtherProcessor makes packages of a program that does not run here, as
// GOARCH=arm64 make packages does: this one, which is built faster than probed.
func TestOtherProcessor(t *testing.T) {
	t.Parallel()
	names := [][3]string{{"amd64", "amd64", "x86_64"}, {"arm64", "arm64", "aarch64"}, {"arm", "armhf", "armv7hl"}}
	for _, n := range slices.DeleteFunc(names, func(n [3]string) bool { return n[0] == runtime.GOARCH }) {
		t.Run(n[0], func(t *testing.T) {
			t.Parallel()
			packagesFor(t, n[0], n[1], n[2])
		})
	}
}

// packagesFor makes packages of a program for another processor, by whose names Debian and Red Hat
// know them.
func packagesFor(t *testing.T, other, debian, redHat string) {
	t.Helper()
	nfpm := os.Getenv("NFPM")
	if nfpm == "" {
		found, err := filepath.Glob("../../../.cache/nfpm-*/nfpm")
		if err != nil || len(found) != 1 {
			t.Fatalf("%d nfpm in .cache, %v; make packages builds it", len(found), err)
		}
		nfpm, _ = filepath.Abs(found[0])
	}
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+other, "CGO_ENABLED=0", "NFPM="+nfpm)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	dir := t.TempDir()
	run("go", "build", "-trimpath", "-o", dir+"/program", ".")
	run("../package.sh", dir+"/program", "1.2.3", dir)
	deb, rpm := dir+"/probed_1.2.3-1_"+debian+".deb", dir+"/probed-1.2.3-1."+redHat+".rpm"
	if arch := run("dpkg-deb", "--field", deb, "Architecture"); strings.TrimSpace(arch) != debian {
		t.Errorf("the deb is for %s", arch)
	}
	if says := run("rpm", "--query", "--package", "--queryformat", "%{ARCH} %{BUILDHOST}", rpm); says != redHat+" localhost" {
		t.Errorf("the rpm is for, and from, %s", says)
	}
	if wants := run("rpm", "--query", "--package", "--requires", rpm); !strings.Contains(wants, "/bin/sh\n") || !strings.Contains(wants, "systemd\n") {
		t.Errorf("the rpm does not require what its scripts run:\n%s", wants)
	}
	for path, want := range map[string]string{
		"./usr/share/bash-completion/completions/probed": "_probed_bash_autocomplete",
		"./usr/share/zsh/vendor-completions/_probed":     "#compdef probed",
	} {
		if text := run("sh", "-c", `dpkg-deb --fsys-tarfile "$0" | tar -xO "$1"`, deb, path); !strings.Contains(text, want) {
			t.Errorf("%s lacks %s:\n%s", path, want, text)
		}
	}
	if list := run("tar", "-tf", dir+"/rootfs.tar"); !strings.Contains(list, "usr/bin/probed\n") {
		t.Errorf("rootfs.tar lacks the program:\n%s", list)
	}
}
