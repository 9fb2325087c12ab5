package lab

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A capture of "any" ends with a marker: a frame that crosses lo after all that
// is to be in the capture. The counts that tell when others have caught up say
// nothing there. The kernel's hold what came before the filter was in place, on
// any device, and both copies of what crosses lo, of which libpcap keeps one.

// markerType is an EtherType for experiments (IEEE 802, 0x88b5): every kernel
// ignores it, and what reads a capture leaves it out.
const markerType = 0x88b5

// newMark tells one capture's marker from another's.
func newMark() []byte {
	mark := make([]byte, 32)
	_, _ = rand.Read(mark) // never fails
	return mark
}

// sendMarker sends the marker over the host's lo.
func (c *Capture) sendMarker() error {
	var err error
	c.host.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			err = os.NewSyscallError("socket", err)
			return
		}
		const lo, swapped = 1, markerType&0xff<<8 | markerType>>8 // lo is every namespace's first
		to := &unix.SockaddrLinklayer{Protocol: swapped, Ifindex: lo, Halen: 6}
		err = errors.Join(os.NewSyscallError("sendto", unix.Sendto(fd, c.mark, 0, to)), unix.Close(fd))
	})
	return err
}

// marked reports whether the marker is in the file.
func (c *Capture) marked() bool {
	data, err := os.ReadFile(c.file)
	return err == nil && bytes.Contains(data, c.mark)
}
