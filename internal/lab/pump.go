package lab

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A pump is a thread that reads packets from a TUN, hands each to handle and
// sends what handle scheduled when it is due. Packets due at the same moment
// leave in the order in which they were scheduled. Everything but stop is for
// its own thread.
type pump struct {
	clock  clock
	in     *tun
	handle func(at Stamp, packet []byte)

	queue  []departure // a heap: the next departure is first
	serial uint64
	spare  [][]byte // buffers to use again

	busy atomic.Bool // set before the first read after a sleep, cleared when there was nothing left to read

	event int // an eventfd that ends the thread
	ended chan struct{}
	err   error // why it ended, valid once ended is closed; nil if told to
}

// A departure is a packet that waits for its time.
type departure struct {
	due    int64 // CLOCK_MONOTONIC, ns
	serial uint64
	to     *tun
	packet []byte
	record *Record // gets the departure's stamp; nil if nobody asks
	owner  *Pipe   // whose lock guards the record
}

func (d *departure) before(e *departure) bool {
	return d.due < e.due || d.due == e.due && d.serial < e.serial
}

// newPump starts nothing; run does.
func newPump(in *tun) (*pump, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &pump{clock: newClock(), in: in, event: event, ended: make(chan struct{})}, nil
}

// run is the thread.
func (p *pump) run() {
	defer close(p.ended)
	// Never unlocked: the thread ends with the goroutine, and its timer slack
	// with it. A slack of 1 ns makes ppoll wake when asked, not 50 µs later.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		p.err = os.NewSyscallError("prctl", err)
		return
	}
	fds := []unix.PollFd{{Fd: int32(p.in.fd), Events: unix.POLLIN}, {Fd: int32(p.event), Events: unix.POLLIN}}
	packet := make([]byte, 1<<16)
	for {
		var timeout *unix.Timespec
		if wait, waiting := p.sendDue(); waiting {
			ts := unix.NsecToTimespec(wait)
			timeout = &ts
		}
		_, err := unix.Ppoll(fds, timeout, nil)
		if err != nil && err != unix.EINTR {
			p.err = os.NewSyscallError("ppoll", err)
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if err == nil && fds[0].Revents != 0 {
			if p.err = p.read(packet); p.err != nil {
				return
			}
		}
	}
}

// read takes what has arrived, but sends what is due between two packets.
func (p *pump) read(packet []byte) error {
	p.busy.Store(true)
	defer p.busy.Store(false)
	for {
		n, err := unix.Read(p.in.fd, packet)
		switch err {
		case nil:
			p.handle(p.clock.now(), packet[:n])
			p.sendDue()
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("read from TUN", err)
		}
	}
}

// sendDue sends what is due and returns how many ns the next departure is
// away, if there is one.
func (p *pump) sendDue() (wait int64, waiting bool) {
	for len(p.queue) > 0 {
		next := &p.queue[0]
		now := p.clock.now()
		if next.due > now.Mono {
			return next.due - now.Mono, true
		}
		taken := next.to.write(next.packet)
		if next.record != nil {
			next.owner.departed(next.record, p.clock.now(), taken)
		}
		p.spare = append(p.spare, next.packet[:0])
		p.pop()
	}
	return 0, false
}

// schedule copies a packet into the queue.
func (p *pump) schedule(due int64, to *tun, packet []byte, record *Record, owner *Pipe) {
	var buffer []byte
	if n := len(p.spare); n > 0 {
		buffer, p.spare = p.spare[n-1], p.spare[:n-1]
	}
	p.serial++
	p.queue = append(p.queue, departure{due, p.serial, to, append(buffer, packet...), record, owner})
	for i := len(p.queue) - 1; i > 0; {
		parent := (i - 1) / 2
		if !p.queue[i].before(&p.queue[parent]) {
			break
		}
		p.queue[i], p.queue[parent] = p.queue[parent], p.queue[i]
		i = parent
	}
}

// pop removes the first departure.
func (p *pump) pop() {
	last := len(p.queue) - 1
	p.queue[0], p.queue[last] = p.queue[last], departure{}
	p.queue = p.queue[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if child+1 < last && p.queue[child+1].before(&p.queue[child]) {
			child++
		}
		if !p.queue[child].before(&p.queue[i]) {
			return
		}
		p.queue[i], p.queue[child] = p.queue[child], p.queue[i]
		i = child
	}
}

// caughtUp tells whether every packet that the host had sent when it was called
// has been handled. Any goroutine may ask. The order matters: what is not in
// the device any more was read while busy.
func (p *pump) caughtUp() bool {
	fds := []unix.PollFd{{Fd: int32(p.in.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n == 0 && err == nil && !p.busy.Load()
}

// waitCaughtUp fails the test if the thread does not catch up in 5 s.
func (p *pump) waitCaughtUp() {
	h := p.in.end.Host
	h.lab.tb.Helper()
	for deadline := time.Now().Add(5 * time.Second); !p.caughtUp(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			h.lab.tb.Fatalf("lab: host %s: the reader of %s does not catch up", h.Name, p.in.end.Iface)
		}
	}
}

// stop ends the thread and tells why it ended before, if it did. What still
// waits in the queue is gone.
func (p *pump) stop() error {
	_, _ = unix.Write(p.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd at 0 takes it
	<-p.ended
	_ = unix.Close(p.event)
	return p.err
}

// due is when a packet that arrived at a stamp leaves after d.
func due(at Stamp, d time.Duration) int64 { return at.Mono + max(int64(d), 0) }
