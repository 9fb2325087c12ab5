package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A CapturedPacket is one packet of a capture.
type CapturedPacket struct {
	Wall     int64  // ns since the epoch: the kernel's stamp
	Data     []byte // from the IP header on, cut at 256 octets less the link header
	Length   int    // octets of the packet from the IP header on
	Outgoing bool   // sent by the host that the capture was taken on; always false on lo, where a packet shows once
}

// A Capture is a tcpdump with nanosecond stamps on one of a host's devices.
type Capture struct {
	tb       testing.TB
	host     *Host
	file     string
	iface    string
	hardware []byte // the device's Ethernet address, nil on a TUN
	cmd      *Cmd
	mark     []byte // that the marker of a capture of "any" carries
	strays   int    // packets that the kernel counted before the filter was in place
	over     bool   // Packets has ended it

	counts chan captureCounts // one for every report that tcpdump writes

	mu     sync.Mutex // guards stderr
	stderr strings.Builder
	ended  chan struct{} // closed when tcpdump has exited
	status error         // its exit status, once it ended
}

// captureCounts is tcpdump's report: packets written, packets that the kernel
// gave or would have given, packets that the kernel dropped.
type captureCounts struct{ captured, received, dropped int }

// CaptureMode is a manner of capturing.
type CaptureMode uint8

// Immediate reads the kernel's ring by the frame. Packets then returns at once,
// where a block that is not full takes a second to be handed over; but waking
// tcpdump for each frame delays the stamps of taps beside it by 0.15 µs. It is
// for tests that count packets rather than compare stamps.
const Immediate CaptureMode = 1

// capture sizes: packets wait in a ring of 32 MiB, in frames for 256 octets.
const (
	captureSnap = 256
	captureKiB  = 32 << 10
)

// Capture starts a capture and returns when it runs. filter is pcap-filter(7)'s
// language, "" for everything. iface may be "any". It takes both directions.
//
// It reads the kernel's ring by the block unless how says Immediate. Output is
// flushed at the end only, but of "any" by the packet: at high rates that costs
// more than the ring can hide.
func (h *Host) Capture(tb testing.TB, iface, filter string, how ...CaptureMode) *Capture {
	tb.Helper()
	c := &Capture{tb: tb, host: h, iface: iface, counts: make(chan captureCounts, 16), ended: make(chan struct{})}
	c.file = filepath.Join(tb.TempDir(), "capture.pcap")
	tool(tb, "tcpdump", "tcpdump")
	if iface != "any" {
		c.hardware = h.hardware(iface)
	}
	args := []string{
		"-i", iface, "-w", c.file, "-n", "-s", strconv.Itoa(captureSnap), "-B", strconv.Itoa(captureKiB),
		"--time-stamp-precision=nano", "-Z", "root",
	}
	if slices.Contains(how, Immediate) {
		args = append(args, "--immediate-mode")
	}
	if iface == "any" {
		c.mark = newMark()
		args = append(args, "--packet-buffered") // the marker is looked for in the file
		if filter != "" {
			filter = fmt.Sprintf("(%s) or ether proto %d", filter, markerType)
		}
	}
	if filter != "" {
		args = append(args, filter)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.cmd = h.Command(ctx, "tcpdump", args...)
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		tb.Fatalf("lab: host %s: capture: %v", h.Name, err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatalf("lab: host %s: capture: %v", h.Name, err)
	}
	tb.Cleanup(func() {
		stop()
		<-c.ended
	})
	running := make(chan struct{})
	go c.read(stderr, running)
	select {
	case <-running:
	case <-c.ended:
		tb.Fatalf("lab: host %s: tcpdump %v ended:\n%s", h.Name, args, c.said())
	case <-time.After(10 * time.Second):
		tb.Fatalf("lab: host %s: tcpdump %v does not start:\n%s", h.Name, args, c.said())
	}
	if c.mark == nil && filter != "" {
		c.countStrays()
	}
	return c
}

var tcpdumpReport = regexp.MustCompile(`^(?:tcpdump: )?(\d+) packets? (captured|received by filter|dropped by kernel)`)

// read follows what tcpdump says: that it listens, then its reports.
func (c *Capture) read(stderr io.Reader, running chan<- struct{}) {
	defer func() {
		c.status = c.cmd.Wait() // wants every read of its pipe done
		close(c.ended)
	}()
	var now captureCounts
	lines := bufio.NewScanner(stderr)
	lines.Split(scanReports)
	for lines.Scan() {
		line := lines.Text()
		c.mu.Lock()
		c.stderr.WriteString(line + "\n")
		c.mu.Unlock()
		if strings.Contains(line, "listening on") {
			close(running)
		}
		m := tcpdumpReport.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, _ := strconv.Atoi(m[1]) // the expression took digits only
		switch m[2] {
		case "captured":
			now.captured = n
		case "received by filter":
			now.received = n
		default:
			now.dropped = n
			c.counts <- now
		}
	}
}

// scanReports splits at newlines and at the commas within a report, which
// tcpdump writes on one line for a signal and on three at its end.
func scanReports(data []byte, atEOF bool) (int, []byte, error) {
	for i, b := range data {
		if b == '\n' || (b == ',' && i+1 < len(data) && data[i+1] == ' ') {
			return i + 1, []byte(strings.TrimSpace(string(data[:i]))), nil
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func (c *Capture) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.String()
}

// report asks tcpdump for its counts.
func (c *Capture) report(deadline time.Time) captureCounts {
	c.tb.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		c.tb.Fatalf("lab: host %s: capture: %v\n%s", c.host.Name, err, c.said())
	}
	select {
	case n := <-c.counts:
		return n
	case <-c.ended:
		c.tb.Fatalf("lab: host %s: the capture ended:\n%s", c.host.Name, c.said())
	case <-time.After(time.Until(deadline)):
		c.tb.Fatalf("lab: host %s: the capture does not catch up:\n%s", c.host.Name, c.said())
	}
	return captureCounts{}
}

// missing is how many packets that the kernel counted tcpdump has not written. Of
// both copies of what crosses lo, which the kernel counts, libpcap keeps one.
func (c *Capture) missing(n captureCounts) int {
	if c.iface == "lo" {
		n.captured *= 2
	}
	return n.received - n.captured - c.strays
}

// countStrays finds out how many packets came between the socket and its filter:
// libpcap throws them away, and the kernel has counted them. What else is missing
// is written within the second after which a block is handed over.
func (c *Capture) countStrays() {
	c.tb.Helper()
	const block = 1500 * time.Millisecond
	deadline := time.Now().Add(10 * time.Second)
	least := c.missing(c.report(deadline))
	for end := time.Now().Add(block); least > 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		least = min(least, c.missing(c.report(deadline)))
	}
	c.strays = least
}

// caughtUp waits until tcpdump has written every packet that the kernel's
// filter let through, and fails the test if the kernel dropped any.
func (c *Capture) caughtUp() {
	c.tb.Helper()
	if c.mark != nil {
		if err := c.sendMarker(); err != nil {
			c.tb.Fatalf("lab: host %s: capture: marker: %v", c.host.Name, err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		n := c.report(deadline)
		if n.dropped > 0 {
			c.tb.Fatalf("lab: host %s: the kernel dropped %d of the capture's packets", c.host.Name, n.dropped)
		}
		if c.mark == nil && c.missing(n) <= 0 || c.mark != nil && c.marked() {
			return
		}
		if time.Now().After(deadline) {
			c.tb.Fatalf("lab: host %s: the capture does not catch up:\n%s", c.host.Name, c.said())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Packets ends the capture, once everything that had passed the device when it
// was called is in the file, and returns it in the file's order. It fails the
// test if the kernel dropped any packet.
func (c *Capture) Packets() []CapturedPacket {
	c.tb.Helper()
	if !c.over {
		c.over = true
		c.caughtUp()
		if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
			c.tb.Fatalf("lab: host %s: capture: %v", c.host.Name, err)
		}
		select {
		case <-c.ended:
		case <-time.After(10 * time.Second):
			c.tb.Fatalf("lab: host %s: the capture does not end:\n%s", c.host.Name, c.said())
		}
		if c.status != nil {
			c.tb.Fatalf("lab: host %s: tcpdump: %v\n%s", c.host.Name, c.status, c.said())
		}
	}
	data, err := os.ReadFile(c.file)
	if err != nil {
		c.tb.Fatalf("lab: host %s: %v", c.host.Name, err)
	}
	packets, err := parsePcap(data, c.network)
	if err != nil {
		c.tb.Fatalf("lab: host %s: %s: %v", c.host.Name, c.file, err)
	}
	return packets
}
