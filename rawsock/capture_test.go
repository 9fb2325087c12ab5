package rawsock

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A capture is tcpdump on one device of a namespace: an independent witness
// with nanosecond stamps.
type capture struct {
	cmd  *exec.Cmd
	file string
}

// captured is a packet as tcpdump wrote it, from the IP header on.
type captured struct {
	wall int64
	data []byte
}

func newCapture(t testing.TB, ns *namespace, device, filter string) *capture {
	t.Helper()
	c := &capture{file: filepath.Join(t.TempDir(), "capture.pcap")}
	args := []string{"-i", device, "-w", c.file, "-Z", "root", "-U", "--immediate-mode", "-B", "8192",
		"-s", "256", "--time-stamp-precision=nano"}
	ns.must(t, func() error {
		c.cmd = exec.Command("tcpdump", append(args, strings.Fields(filter)...)...)
		stderr, err := c.cmd.StderrPipe()
		if err != nil {
			return err
		}
		if err := c.cmd.Start(); err != nil {
			return err
		}
		said := bufio.NewScanner(stderr)
		for said.Scan() {
			if strings.Contains(said.Text(), "listening on") {
				go func() {
					for said.Scan() { // nothing may block it
					}
				}()
				return nil
			}
		}
		return fmt.Errorf("tcpdump ended: %w", c.cmd.Wait())
	})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return c
}

// wait returns the packets once there are n, or what there is after 5 s.
func (c *capture) wait(t testing.TB, n int) []captured {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := parsePcap(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(packets) >= n || time.Now().After(deadline) {
			return packets
		}
	}
}

// parsePcap reads a nanosecond pcap file of Ethernet frames
// (draft-ietf-opsawg-pcap), as far as it is written.
func parsePcap(b []byte) ([]captured, error) {
	const fileHeader, recordHeader, ethernet = 24, 16, 14
	if len(b) < fileHeader {
		return nil, nil
	}
	order := binary.NativeEndian
	if magic, link := order.Uint32(b), order.Uint32(b[20:]); magic != 0xa1b23c4d || link != unix.ARPHRD_ETHER {
		return nil, fmt.Errorf("pcap magic %x, link type %d", magic, link)
	}
	var packets []captured
	for b = b[fileHeader:]; len(b) >= recordHeader; {
		n := int(order.Uint32(b[8:]))
		if len(b) < recordHeader+n {
			break
		}
		packets = append(packets, captured{
			wall: int64(order.Uint32(b))*1e9 + int64(order.Uint32(b[4:])),
			data: b[recordHeader+ethernet : recordHeader+n],
		})
		b = b[recordHeader+n:]
	}
	return packets, nil
}
