package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probed/probed/probe/engine"
)

// Many targets with one trouble are two lines; another trouble is another line.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c := newComplaints(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			c.run(ctx)
			close(done)
		}()
		for i := range 100 {
			remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 0, byte(i)}), 80)
			c.Trouble(&engine.Target{Remote: remote}, fmt.Errorf("route to %s: %w", remote.Addr(), os.NewSyscallError("connect", syscall.ENETUNREACH)))
		}
		c.Trouble(&engine.Target{Remote: netip.MustParseAddrPort("198.19.1.1:80")}, os.NewSyscallError("sendmmsg", syscall.EPERM))
		c.ClockStep(time.Hour)
		time.Sleep(complaintsEvery + time.Second)
		c.ClockStep(-time.Hour)
		synctest.Wait()
		cancel()
		<-done
		want := []string{
			`level=WARN msg="this host keeps segments from leaving" remote=198.19.0.0:80 err="route to 198.19.0.0: connect: network is unreachable"`,
			`level=WARN msg="this host keeps segments from leaving" remote=198.19.1.1:80 err="sendmmsg: operation not permitted"`,
			`level=WARN msg="the clock was set by 1h0m0s: probes under way are discarded as clock_step"`,
			`level=WARN msg="this host keeps segments from leaving: more of the same" times=99 err="network is unreachable"`,
			`level=WARN msg="the clock was set by -1h0m0s: probes under way are discarded as clock_step"`,
		}
		if got := strings.TrimSpace(out.String()); got != strings.Join(want, "\n") {
			t.Errorf("logged\n%s", got)
		}
	})
}
