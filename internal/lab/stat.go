package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// A Socket is a line of ss(8): one TCP socket of a host.
type Socket struct {
	State         string // ss's word: LISTEN, SYN-RECV, ESTAB, TIME-WAIT, …
	RecvQ, SendQ  int    // of a LISTEN socket: the accept queue's length and limit
	Local, Remote string // address:port as ss writes it; * where there is none
}

// SS lists the host's TCP sockets in the given states (ss's names, in either
// case), or all of them. Sockets that wait in SYN-RECV are listed one by one.
func SS(h *Host, states ...string) []Socket {
	h.lab.tb.Helper()
	tool(h.lab.tb, "ss", "iproute2")
	out, err := h.Command(context.Background(), "ss", "-tanH").CombinedOutput()
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: ss: %v\n%s", h.Name, err, out)
	}
	var sockets []Socket
	for line := range strings.Lines(string(out)) {
		s, err := parseSS(line)
		if err != nil {
			h.lab.tb.Fatalf("lab: host %s: ss: %v", h.Name, err)
		}
		if len(states) == 0 {
			sockets = append(sockets, s)
		}
		for _, state := range states {
			if strings.EqualFold(state, s.State) {
				sockets = append(sockets, s)
			}
		}
	}
	return sockets
}

// parseSS reads a line of ss -tanH.
func parseSS(line string) (Socket, error) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return Socket{}, fmt.Errorf("a line of %d fields: %q", len(f), line)
	}
	recv, err := strconv.Atoi(f[1])
	if err != nil {
		return Socket{}, fmt.Errorf("Recv-Q: %w", err)
	}
	send, err := strconv.Atoi(f[2])
	if err != nil {
		return Socket{}, fmt.Errorf("Send-Q: %w", err)
	}
	return Socket{State: f[0], RecvQ: recv, SendQ: send, Local: f[3], Remote: f[4]}, nil
}

// RemotePort is the peer's port, 0 where ss shows none.
func (s Socket) RemotePort() uint16 {
	ap, err := netip.ParseAddrPort(s.Remote)
	if err != nil {
		return 0
	}
	return ap.Port()
}

// Counters returns the host's kernel counters by nstat's names, zeros included:
// TcpActiveOpens, TcpExtListenOverflows, Ip6InReceives, Icmp6OutDestUnreachs, …
func (h *Host) Counters() map[string]int64 {
	h.lab.tb.Helper()
	counters := make(map[string]int64)
	var err error
	h.Do(func() {
		// Not /proc/net: that is the first thread's, which is outside.
		for _, file := range []string{"snmp", "netstat", "snmp6"} {
			var text []byte
			if text, err = os.ReadFile("/proc/thread-self/net/" + file); err != nil {
				return
			}
			readCounters(string(text), counters)
		}
	})
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: %v", h.Name, err)
	}
	return counters
}

// readCounters understands both of the kernel's forms: pairs of lines "Tcp:
// names" and "Tcp: values", and lines of one name and one value.
func readCounters(text string, into map[string]int64) {
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 2 && !strings.HasSuffix(f[0], ":") {
			into[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
			continue
		}
		if names == nil || len(f) != len(names) || f[0] != names[0] {
			names = f
			continue
		}
		for i, value := range f[1:] {
			into[strings.TrimSuffix(f[0], ":")+names[i+1]], _ = strconv.ParseInt(value, 10, 64)
		}
		names = nil
	}
}
