package trust

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// What probed says has nowhere to go: the disk is full, nobody reads any more, or nobody
// reads but the pipe is open. It goes on, and so do its probes and its pages.
func TestFaultLogGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		open func(*testing.T) *os.File
	}{
		{"log on a full disk (/dev/full)", func(t *testing.T) *os.File {
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return full
		}},
		{"log's reader gone (EPIPE)", func(t *testing.T) *os.File {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			return w
		}},
		{"log's reader asleep (a full pipe)", func(t *testing.T) *os.File {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = w.Write(make([]byte, 4096))
			}
			return w
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			here, there := lab.Pair(t)
			servers(there)
			capture := here.Capture(t, here.Iface(), "tcp", lab.Immediate)
			d := startTo(t, here, everyKind(20), c.open(t))
			n := times(20, 2)
			for range n {
				d.write(strings.ReplaceAll(everyKind(20), "interval: 200ms", "interval: 190ms"))
				d.signal(syscall.SIGHUP) // of which it has something to say
				before := d.scrape()
				d.recovers(before, time.Now())
			}
			select {
			case <-d.ended:
				t.Fatalf("probed ended: %v", d.err)
			default:
			}
			time.Sleep(time.Second)
			s, x := d.scrape(), exchanges(capture.Packets())
			book(t, Row{
				Part: "fault", What: c.what, Tried: n, Of: "lines", Probes: int(s.sum("probed_probes_total")),
				False: s.falsehoods(x), Discarded: s.ours(), Left: lasting(there), Note: x.String(),
			})
			if t.Failed() {
				t.Log(s.told(x))
			}
		})
	}
}

// startTo is start of a daemon that writes to a file.
func startTo(t *testing.T, h *lab.Host, yaml string, to *os.File) *daemon {
	t.Helper()
	t.Cleanup(func() { to.Close() })
	d := launch(t, h, yaml, func(c *lab.Cmd) { c.Stdout, c.Stderr = to, to })
	d.awaitReady()
	return d
}

// `probed ping` writes a capture to a disk that gets full: it says so, and ends with an
// error, once.
func TestFaultPingDiskFull(t *testing.T) {
	t.Parallel()
	here, there := lab.Pair(t)
	servers(there)
	script := `mount -t tmpfs -o size=16k,mode=1777 full /mnt && exec "$0" ping -c 300 -i 10ms -w /mnt/x.pcapng 198.18.0.2:80`
	cmd := here.Command(t.Context(), "unshare", "--mount", "sh", "-c", script, probedPath(t))
	out, err := cmd.CombinedOutput()
	said := string(out)
	complaints := strings.Count(said, "no space left on device")
	if err == nil || complaints != 1 || strings.Contains(said, "panic") {
		t.Errorf("%v, %d complaints:\n%s", err, complaints, said)
	}
	book(t, Row{Part: "fault", What: "ping's capture on a full disk", Tried: 1, Of: "times", Probes: strings.Count(said, "rtt="), Left: lasting(there),
		Note: "one line says so, and the exit code"})
}
