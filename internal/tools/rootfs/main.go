// Command rootfs writes the root file system of the container image as a tar file.
// It needs no rights for that, although the binary in it has a capability, and the
// same files give the same bytes: every time stamp is SOURCE_DATE_EPOCH.
package main

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// caCertificates is Debian's bundle, for service discovery over HTTPS.
const caCertificates = "/etc/ssl/certs/ca-certificates.crt"

// user is the one that the recipe names.
const user = 65532

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: rootfs PROBED NOTICES.gz OUT.tar")
		os.Exit(1)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "rootfs:", err)
		os.Exit(1)
	}
}

// A layer is a tar file that is being written. The first error stays.
type layer struct {
	tar  *tar.Writer
	time time.Time
	err  error
}

func write(probed, notices, out string) error {
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	l := &layer{tar: tar.NewWriter(file), time: time.Unix(epoch, 0)}
	for _, dir := range []string{"etc/", "etc/probed/", "etc/ssl/", "etc/ssl/certs/", "usr/", "usr/bin/", "usr/share/", "usr/share/doc/", "usr/share/doc/probed/"} {
		l.add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	l.add(&tar.Header{Name: "usr/bin/probed", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": netRaw(),
	}}, read(probed))
	l.add(&tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, read(caCertificates))
	l.add(&tar.Header{Name: "usr/share/doc/probed/third-party.gz", Mode: 0o644}, read(notices))
	l.add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, text("root:x:0:0::/:/\nprobed:x:%d:%d::/:/\n", user, user))
	l.add(&tar.Header{Name: "etc/group", Mode: 0o644}, text("root:x:0:\nprobed:x:%d:\n", user))
	return errors.Join(l.err, l.tar.Close(), file.Close())
}

// A content is a file's octets, or why there are none.
type content func() ([]byte, error)

func read(path string) content { return func() ([]byte, error) { return os.ReadFile(path) } }

func text(format string, args ...any) content {
	return func() ([]byte, error) { return fmt.Appendf(nil, format, args...), nil }
}

func (l *layer) add(h *tar.Header, c content) {
	if l.err != nil {
		return
	}
	var b []byte
	if c != nil {
		h.Typeflag = tar.TypeReg
		if b, l.err = c(); l.err != nil {
			return
		}
	}
	h.Size, h.ModTime, h.Format = int64(len(b)), l.time, tar.FormatPAX
	if l.err = l.tar.WriteHeader(h); l.err == nil {
		_, l.err = io.Writer(l.tar).Write(b)
	}
}

// netRaw is the extended attribute that setcap cap_net_raw+ep writes: struct
// vfs_cap_data of linux/capability.h.
func netRaw() string {
	const (
		revision2 = 0x02000000
		effective = 0x000001
		capNetRaw = 13
	)
	var b []byte
	for _, word := range []uint32{revision2 | effective, 1 << capNetRaw, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return string(b)
}
