package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/exporter-toolkit/web"
)

// What systemd passes that can't listen is an error, and not a listener that is nil.
func TestInheritedDatagramSocket(t *testing.T) {
	if os.Getenv("LISTEN_FDS") != "" {
		systemd := true
		d := &daemon{web: &web.FlagConfig{WebSystemdSocket: &systemd}}
		if all, err := d.listen(); err == nil || !strings.Contains(err.Error(), "socket 1 ") {
			t.Fatalf("%v, %v", all, err)
		}
		return
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -test.run '^TestInheritedDatagramSocket$'`, os.Args[0])
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
