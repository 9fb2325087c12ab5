package rawsock

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// A bell rings for what comes to its ports, in both families, until it is
// silenced, and for nothing else.
func TestBell(t *testing.T) {
	ns := newNamespace(t)
	var bell *Bell
	ns.must(t, func() (err error) { bell, err = OpenBell(61128, 61255); return err })
	t.Cleanup(func() {
		if err := bell.Close(); err != nil {
			t.Error(err)
		}
	})
	poller, err := NewPoller(bell.FDs()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = poller.Close() })
	knock := func(address string) {
		t.Helper()
		ns.must(t, func() error {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				_ = c.Close()
				return fmt.Errorf("somebody listens on %s", address)
			}
			return nil
		})
	}
	rings := func() bool {
		t.Helper()
		rang, err := poller.Wait(0, true)
		if err != nil {
			t.Fatal(err)
		}
		return rang
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		for port, want := range map[int]bool{61127: false, 61128: true, 61200: true, 61255: true, 61256: false} {
			address := net.JoinHostPort(host, fmt.Sprint(port))
			knock(address)
			knock(address)
			if rings() != want {
				t.Errorf("%s: rings is %v", address, !want)
			}
			bell.Silence()
			if rings() {
				t.Errorf("%s: rings when silenced", address)
			}
		}
	}
	if n := testing.AllocsPerRun(100, bell.Silence); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
