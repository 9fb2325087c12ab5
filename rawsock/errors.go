package rawsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotUnicast is a destination that is no single host's: unspecified,
// multicast, or a broadcast address of the host's own networks.
var ErrNotUnicast = errors.New("not a unicast address")

// ErrSource is a source address that no host sends from, or one that is not
// of the destination's family.
var ErrSource = errors.New("unusable source address")

// ErrSecondTry is of a packet that has left, but that the kernel refused before, and did not
// say why: a firewall may have answered it.
var ErrSecondTry = errors.New("refused, and sent when it was tried again")

// errNeedsNetRaw explains the EPERM of raw and packet sockets.
type errNeedsNetRaw struct{ err error }

func (e errNeedsNetRaw) Error() string {
	return "raw sockets need CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep probed`, " +
		"or set AmbientCapabilities=CAP_NET_RAW in the unit"
}

func (e errNeedsNetRaw) Unwrap() error { return e.err }

// socketError wraps what socket(2) said of a raw or packet socket.
func socketError(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return errNeedsNetRaw{err}
	}
	return os.NewSyscallError("socket", err)
}

// optionError wraps what setsockopt(2) said of the named option.
func optionError(option string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("setsockopt %s: %w", option, err)
}

// NeedsNetRaw reports whether an error is that CAP_NET_RAW is missing.
func NeedsNetRaw(err error) bool {
	_, is := errors.AsType[errNeedsNetRaw](err)
	return is
}
