package bench

import (
	"fmt"
	"net"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A scanner makes handshakes as fast as it can.
type scanner struct {
	name string
	// rates are SYNs a second to ask of it: some do better when asked for less than
	// they can. 0 is as fast as it goes.
	rates  []int
	settle time.Duration // in windows
	// length is how long a run may be measured, if it has an end soon: then several are.
	length time.Duration
	start  func(w *world, rate int) *lab.Cmd
	// agrees, if it is there, fails the test unless what the tool counts is what the
	// targets' kernel does.
	agrees func(w *world, r *running)
}

// zmap sends one port's SYNs through a packet socket, and sees the answers through
// libpcap; the kernel, which knows nothing of it, answers these with a RST. It is
// done with all addresses within a second. With --probes it would last, but send all of an
// address's SYNs one behind the other, which spares the kernel a quarter of its work.
func zmap(w *world, rate int) *lab.Cmd {
	return w.command(ours, w.here, "zmap",
		"--target-port="+fmt.Sprint(firstPort), "--rate="+fmt.Sprint(rate),
		"--interface="+w.here.Iface(), "--source-ip="+w.here.Addr4().String(), "--gateway-mac="+w.gateway(),
		"--blacklist-file=/dev/null", "--config=/dev/null", "--sender-threads=1", "--cores="+fmt.Sprint(ours),
		"--probes=1", "--max-runtime=30", "--cooldown-time=1",
		"--output-file=/dev/null", "--quiet", "--disable-syslog", "--verbosity=1", prefix)
}

// masscan does so over and over, with a RST of its own beside the kernel's unless
// --noreset spares it that. Its receiving thread sees half of the answers only, on a
// core shared with the sending one; that counts in its favour here.
func masscan(options ...string) func(*world, int) *lab.Cmd {
	return func(w *world, rate int) *lab.Cmd {
		return w.command(ours, w.here, "masscan", append([]string{
			"--ports", fmt.Sprintf("%d-%d", firstPort, firstPort+ports-1), "--rate", fmt.Sprint(rate),
			"--adapter", w.here.Iface(), "--adapter-ip", w.here.Addr4().String(), "--router-mac", w.gateway(),
			"--infinite", "--wait", "1", "--output-format", "list", "--output-filename", "/dev/null", prefix,
		}, options...)...)
	}
}

// gateway is the Ethernet address of the targets' host.
func (w *world) gateway() string {
	w.t.Helper()
	var mac string
	w.there.Do(func() {
		dev, err := net.InterfaceByName(w.there.Iface())
		if err != nil {
			w.t.Fatal(err)
		}
		mac = dev.HardwareAddr.String()
	})
	return mac
}

// theLeast is what is left of a scanner without anything to do: bare.
func theLeast(options ...string) func(*world, int) *lab.Cmd {
	return func(w *world, rate int) *lab.Cmd { return w.bare(scanned, rate, options...) }
}

// bare starts it with n targets.
func (w *world) bare(n, rate int, options ...string) *lab.Cmd {
	return w.self(asBare, w.here, ours, append([]string{
		"-first", fmt.Sprintf("%s:%d", target(0), firstPort), "-n", fmt.Sprint(n), "-rate", fmt.Sprint(rate),
	}, options...)...)
}
