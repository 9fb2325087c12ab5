package lab

import (
	"fmt"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunQueue is how many packets may wait in a TUN for its reader. Linux's 500
// would drop a burst.
const tunQueue = 10000

// A tun is a TUN device and the descriptor that holds it: closing the
// descriptor removes the device.
type tun struct {
	end    *End
	fd     int
	failed atomic.Uint64 // packets that the host did not take from us
}

// openTUN makes the end's device, gives it its addresses and brings it up.
func openTUN(e *End) *tun {
	tb := e.Host.lab.tb
	tb.Helper()
	t := &tun{end: e}
	var err error
	e.Host.Do(func() { t.fd, err = tunFD(e.Iface) })
	if err != nil {
		tb.Fatalf("lab: host %s: %s: %v", e.Host.Name, e.Iface, err)
	}
	e.Host.netlink("queue of "+e.Iface, func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(e.Iface)
		if err != nil {
			return err
		}
		return nl.LinkSetTxQLen(link, tunQueue)
	})
	e.up()
	return t
}

// tunFD makes a TUN without packet information or offloads in the calling
// thread's namespace: what is read are whole IP packets with whole checksums.
func tunFD(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/net/tun, which the module tun provides: %w", os.NewSyscallError("open", err))
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = os.NewSyscallError("ioctl TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// write hands the host a packet, and tells whether it took it.
func (t *tun) write(packet []byte) bool {
	if _, err := unix.Write(t.fd, packet); err != nil {
		t.failed.Add(1)
		return false
	}
	return true
}

// check fails the test if packets were lost between the host and us, which no
// record would show.
func (t *tun) check() {
	h := t.end.Host
	h.lab.tb.Helper()
	h.netlink("statistics of "+t.end.Iface, func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(t.end.Iface)
		if err != nil {
			return err
		}
		if n := link.Attrs().Statistics.TxDropped; n > 0 {
			return fmt.Errorf("%d packets overflowed the device's queue", n)
		}
		if n := t.failed.Load(); n > 0 {
			return fmt.Errorf("the host refused %d packets", n)
		}
		return nil
	})
}
