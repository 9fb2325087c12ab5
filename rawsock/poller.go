package rawsock

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poller puts one goroutine to sleep until a file descriptor is readable, a
// time has passed, or another goroutine calls Wake.
type Poller struct {
	fds     []unix.PollFd // [0] is the eventfd
	timeout unix.Timespec // here so that it isn't allocated at each call

	mu     sync.Mutex // orders Wake's write against Close
	woken  bool       // the eventfd is readable
	closed bool
	count  [8]byte // the eventfd's, read and written

	alarm *time.Timer   // that a nap ends by
	bell  chan struct{} // or this, which Wake rings
}

// NewPoller returns a Poller that watches fds (a tap's, usually). They remain
// the caller's to close.
func NewPoller(fds ...int) (*Poller, error) {
	efd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &Poller{fds: make([]unix.PollFd, 0, 1+len(fds)), alarm: time.NewTimer(time.Hour), bell: make(chan struct{}, 1)}
	p.alarm.Stop()
	for _, fd := range append([]int{efd}, fds...) {
		p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return p, nil
}

// briefWait is how long a wait keeps the runtime's processor (the P of its scheduler).
// To give it away and to get it back takes 20 µs of two threads: much for a loop that
// sleeps a thousand times a second. For one that sleeps a hundred times it is worse: the
// runtime's monitor, woken each time, looks every 20 µs for a while whether somebody
// keeps a processor too long, and was two fifths of what 100 targets at 1 s cost. It is
// longer than a loop leaves what has arrived unread.
// Meanwhile no goroutine runs on the processor, so that a loop should have one more than
// there are cores; and who stops the world interrupts the wait.
const briefWait = 60 * time.Millisecond

// Wait sleeps for d, to the nanosecond of ppoll(2) and the thread's timer
// slack (see PreciseTimers); a negative d has no end, and 0 only looks. Wake
// ends it early. So does a readable descriptor if traffic is set; without it
// a loop sleeps its tick through, however much arrives. ready reports whether
// a watched descriptor is readable (never without traffic). One goroutine at
// a time may wait. A wait of briefWait or less may end early.
func (p *Poller) Wait(d time.Duration, traffic bool) (ready bool, err error) {
	fds := p.fds
	if !traffic {
		fds = fds[:1]
	}
	var timeout *unix.Timespec
	if d >= 0 {
		p.timeout = unix.NsecToTimespec(int64(d))
		timeout = &p.timeout
	}
	poll, brief := unix.Syscall6, d >= 0 && d <= briefWait
	if brief {
		poll = unix.RawSyscall6
	}
	for {
		n, _, errno := poll(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
			uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
		switch {
		case errno == unix.EINTR && brief:
			return false, nil // the runtime wants this thread, and gets it once we are back in Go
		case errno == unix.EINTR:
			// The Go runtime's preemption signal. The kernel has put the time
			// that remains into timeout (fs/select.c, poll_select_finish).
			continue
		case errno != 0:
			return false, os.NewSyscallError("ppoll", errno)
		case n == 0:
			return false, nil
		}
		if fds[0].Revents != 0 {
			p.consume()
		}
		for i := range fds[1:] {
			ready = ready || fds[1+i].Revents != 0
		}
		return ready, nil
	}
}

// LongNap is from when on a Nap is cheaper than a Wait. Who keeps the runtime's processor for
// so long is interrupted by its monitor after 10 ms, which looks 400 times a second
// whether somebody does: a third of what 100 targets at 1 s cost.
const LongNap = 5 * time.Millisecond

// Oversleep is by how much the runtime's own timers may be late: its epoll_wait(2) counts in
// milliseconds.
const Oversleep = 1500 * time.Microsecond

// Nap is Wait without traffic that leaves the sleep to the runtime, and the thread too, so that
// the goroutine may go on on another; it is locked to that again. It takes d, at least LongNap,
// or up to Oversleep less: to sleep that too as Wait does would have the monitor look
// some twenty times.
func (p *Poller) Nap(d time.Duration) error {
	p.alarm.Reset(d - Oversleep)
	runtime.UnlockOSThread()
	select {
	case <-p.alarm.C:
	case <-p.bell:
		p.alarm.Stop()
	}
	runtime.LockOSThread()
	if err := PreciseTimers(); err != nil {
		return err
	}
	_, err := p.Wait(0, false)
	return err
}

// consume makes the eventfd unreadable again.
func (p *Poller) consume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// EAGAIN cannot happen: only this reads, and poll said that it may.
	_, _ = unix.Read(int(p.fds[0].Fd), p.count[:])
	p.woken = false
	select {
	case <-p.bell:
	default:
	}
}

// Wake ends the current Wait, or the next one if nobody waits. Any goroutine
// may call it, also after Close. Calls that come before the waiter has run
// again are one.
func (p *Poller) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.woken || p.closed {
		return
	}
	binary.NativeEndian.PutUint64(p.count[:], 1)
	// An eventfd refuses only when its counter is full; woken keeps it at 1.
	_, _ = unix.Write(int(p.fds[0].Fd), p.count[:])
	p.woken = true
	select {
	case p.bell <- struct{}{}:
	default:
	}
}

// Close releases the Poller. Nobody may be in Wait.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return os.NewSyscallError("close", unix.Close(int(p.fds[0].Fd)))
}
