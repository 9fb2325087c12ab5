package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/probed/probed/internal/confine"
	"github.com/probed/probed/internal/host"
)

// shed gives up, at the very start, what not even the start needs: raw sockets
// (CAP_NET_RAW), filters on TCP sockets (CAP_NET_ADMIN, where it is there) and a web
// listener below port 1024 are all that takes a capability. Files are then read with the
// rights that a reload will have.
func shed() error {
	return errors.Join(confine.Undumpable(), confine.Keep(unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE))
}

// confined gives up, once the sockets are open, all but what probing needs. CAP_NET_RAW
// stays: the socket for IPv6 is bound to one interface after the other, which the kernel
// allows to nobody else. New raw sockets the filter refuses.
func confined(all ...*host.Network) error {
	var mute []int
	for _, n := range all {
		mute = append(mute, n.Listeners()...)
	}
	return errors.Join(confine.Undumpable(), confine.Keep(unix.CAP_NET_RAW), confine.ReadOnly(), confine.Filter(mute...))
}

// sayUnconfined says what could not be given up. Probing works all the same. That there
// is no filter for an architecture is as we have built it, and nothing to warn of.
func (d *daemon) sayUnconfined() {
	unlisted, others := sorted(d.unconfined)
	if others != nil {
		d.log.Warn("going on with more rights than probing needs", "err", oneLine(others))
	}
	if unlisted != nil {
		d.log.Info("system calls are not filtered", "why", oneLine(unlisted))
	}
}

// sorted divides what could not be given up into that there is no list of system calls,
// and the rest.
func sorted(err error) (unlisted, others error) {
	if joined, is := err.(interface{ Unwrap() []error }); is {
		for _, e := range joined.Unwrap() {
			u, o := sorted(e)
			unlisted, others = errors.Join(unlisted, u), errors.Join(others, o)
		}
		return unlisted, others
	}
	if errors.Is(err, confine.ErrNoList) {
		return err, nil
	}
	return nil, err
}

// oneLine is an error's text, each line once.
func oneLine(err error) string {
	var lines []string
	seen := make(map[string]bool)
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// sayOwner explains why a file may not be read: to root, who is used to reading all.
func sayOwner(err error, file string) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	folder := barred(file)
	switch root := os.Geteuid() == 0; {
	case folder != "" && root:
		return fmt.Errorf("%w: probed gives up root's right to enter others' folders, and %s is one: copy the file to /etc/probed, or `sudo setcap cap_net_raw+ep ./probed` and run it as yourself", err, folder)
	case folder != "":
		return fmt.Errorf("%w: the folder %s may not be entered: copy the file to /etc/probed, or give probed's user the right (o+x)", err, folder)
	case root:
		return fmt.Errorf("%w: probed gives up root's right to others' files: give it to root, or make it readable by everybody", err)
	}
	return err
}

// barred returns the first folder on the way to a file that may not be entered, or
// nothing.
func barred(file string) string {
	file, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	for i, c := range file {
		if c != '/' {
			continue
		}
		if _, err := os.Stat(file[:i] + "/."); errors.Is(err, fs.ErrPermission) {
			return cmp.Or(file[:i], "/")
		}
	}
	return ""
}

// readableFiles says what keeps us from the files that a pattern of file_sd_configs may
// fit: service discovery would find none of them, and say so in the log alone.
func readableFiles(pattern string) error {
	const ways = "make it readable by probed's user (o+rx), or move the files to /etc/probed"
	why := ""
	if os.Geteuid() == 0 {
		why = ": probed gives up root's right to others' folders"
	}
	if folder := barred(pattern); folder != "" {
		return fmt.Errorf("the folder %s may not be entered%s; %s", folder, why, ways)
	}
	// A file by its name is found in a folder that can't be listed, too.
	if folder := filepath.Dir(pattern); strings.ContainsAny(filepath.Base(pattern), `*?[\`) {
		f, err := os.Open(folder)
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("the folder %s may not be listed%s; %s", folder, why, ways)
		}
		if err == nil {
			f.Close()
		}
	}
	return nil
}

// issSeed keys the initial sequence numbers by a secret in RUNTIME_DIRECTORY, a folder
// that systemd makes for the service alone (RuntimeDirectory= of systemd.exec(5)), or
// whoever runs probed without systemd. Of several the first is taken.
func issSeed() ([]byte, error) {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	return host.Seed(dir)
}
