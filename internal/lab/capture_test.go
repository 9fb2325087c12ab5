package lab

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

func TestCaptureSeesEveryPacket(t *testing.T) {
	t.Parallel()
	const n = 20000
	a, b := Pair(t)
	var to *net.UDPConn
	b.Do(func() {
		var err error
		if to, err = net.ListenUDP("udp", &net.UDPAddr{Port: 9}); err != nil {
			t.Fatal(err)
		}
	})
	defer to.Close()
	there, here := b.Capture(t, b.Iface(), "udp"), a.Capture(t, a.Iface(), "udp port 9", Immediate)
	start := time.Now().UnixNano()
	a.Do(func() {
		c, err := net.Dial("udp", hostPort(b.Addr4(), 9))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range n {
			if _, err := c.Write([]byte("twelve bytes")); err != nil {
				t.Fatal(err)
			}
		}
	})
	end := time.Now().UnixNano()
	for _, c := range []struct {
		name     string
		packets  []CapturedPacket
		outgoing bool
	}{{"here", here.Packets(), true}, {"there", there.Packets(), false}} {
		if len(c.packets) != n {
			t.Errorf("%s: %d packets, want %d", c.name, len(c.packets), n)
		}
		for i, p := range c.packets {
			if p.Outgoing != c.outgoing || p.Length != 20+8+12 || len(p.Data) != p.Length || p.Wall < start || p.Wall > end {
				t.Fatalf("%s: packet %d: %+v", c.name, i, p)
			}
		}
	}
}

func TestCaptureOfAnyDeviceTellsDirections(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	b.Listen("tcp", "[::]:80")
	c := a.Capture(t, "any", "tcp[tcpflags] & tcp-syn != 0 or ip6[13+40] & 2 != 0", Immediate)
	for _, to := range []string{hostPort(b.Addr4(), 80), hostPort(b.Addr6(), 80)} {
		if got := dial(t, a, to, time.Second); got != "connected" {
			t.Fatal(got)
		}
	}
	var got []string
	for _, p := range c.Packets() {
		got = append(got, fmt.Sprint(p.Data[0]>>4, p.Outgoing))
	}
	if want := "[4 true 4 false 6 true 6 false]"; fmt.Sprint(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A capture ends although something came between its socket and its filter.
func TestCaptureCatchesUpWithWhatItThrewAway(t *testing.T) {
	t.Parallel()
	a, b := Pair(t)
	stop := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(stop) }))
	b.Go(func() {
		c, err := net.Dial("udp", hostPort(a.Addr4(), 9))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for {
			select {
			case <-stop:
				return
			default:
				for range 8 {
					_, _ = c.Write([]byte("noise")) // refused now and then
				}
				time.Sleep(10 * time.Microsecond)
			}
		}
	})
	b.Listen("tcp", "[::]:80")
	stray := false
	for range 200 {
		c := a.Capture(t, a.Iface(), "tcp", Immediate)
		stray = stray || c.strays > 0
		if got := dial(t, a, hostPort(b.Addr4(), 80), time.Second); got != "connected" {
			t.Fatal(got)
		}
		if n := len(c.Packets()); n < 3 { // a handshake
			t.Fatalf("%d packets", n)
		}
		if stray {
			return
		}
	}
	t.Error("nothing came before the filter of two hundred captures")
}

// A capture of every device ends although the kernel counts what crosses lo
// twice, and what came before the filter was in place.
func TestCaptureOfAnyDeviceCatchesUp(t *testing.T) {
	t.Parallel()
	const n = 1000
	for _, mode := range [][]CaptureMode{nil, {Immediate}} {
		a, _ := Pair(t)
		var to net.PacketConn
		a.Do(func() {
			var err error
			if to, err = net.ListenPacket("udp", "127.0.0.1:9"); err != nil {
				t.Fatal(err)
			}
		})
		defer to.Close()
		send := func() {
			c, err := a.Dial("udp", "127.0.0.1:9", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range n {
				if _, err := c.Write([]byte("twelve bytes")); err != nil {
					t.Fatal(err)
				}
			}
		}
		first, second := a.Capture(t, "any", "udp port 9", mode...), a.Capture(t, "any", "", mode...)
		send()
		if got := len(first.Packets()); got != n {
			t.Errorf("mode %v, filtered: %d packets, want %d", mode, got, n)
		}
		send()
		got := 0
		for _, p := range second.Packets() {
			if p.Length == 20+8+12 {
				got++
			}
		}
		if got != 2*n {
			t.Errorf("mode %v, all: %d packets, want %d", mode, got, 2*n)
		}
	}
}
