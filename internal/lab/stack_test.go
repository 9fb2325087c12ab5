package lab

import (
	"fmt"
	"testing"
	"time"
)

// A stacked device carries the host's traffic, and each of its layers shows it.
func TestStackedDevicesShowAPacketOnceALayer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, iface string
		build       func(*End)
		layers      int
	}{
		{"bridge", "br-eth0", (*End).Bridge, 2},
		{"macvlan", "mac-eth0", (*End).Macvlan, 2},
		{"macvlan on a bridge", "mac-br-eth0", func(e *End) { e.Bridge(); e.Macvlan() }, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := Pair(t)
			tt.build(a.End(0))
			if a.Iface() != tt.iface {
				t.Errorf("device %s, want %s", a.Iface(), tt.iface)
			}
			b.Listen("tcp", "[::]:80")
			// The handshake's SYN and SYN-ACK.
			c := a.Capture(t, "any", "tcp[tcpflags] & tcp-syn != 0 or ip6[13+40] & 2 != 0", Immediate)
			var want []string
			for _, to := range []string{hostPort(b.Addr4(), 80), hostPort(b.Addr6(), 80)} {
				if got := dial(t, a, to, time.Second); got != "connected" {
					t.Fatalf("%s: %s", to, got)
				}
			}
			for _, version := range []int{4, 6} {
				for _, outgoing := range []bool{true, false} {
					for range tt.layers {
						want = append(want, fmt.Sprint(version, outgoing))
					}
				}
			}
			var got []string
			for _, p := range c.Packets() {
				got = append(got, fmt.Sprint(p.Data[0]>>4, p.Outgoing))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}
