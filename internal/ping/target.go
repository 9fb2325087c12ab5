package ping

import (
	"net/netip"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// A Target is what is probed and how, as the lines and the summary name it.
type Target struct {
	Name     string         // host:port as it was asked for; empty for an address
	Remote   netip.AddrPort // that is probed
	Kind     probe.Kind
	Interval time.Duration
	Timeout  time.Duration
	Limit    time.Duration // for which the end of a TIME-WAIT is waited for; 0 if it is not
	Flows    int           // source ports that the probes use in turn; 1 is as good as none
}

// String is the target in a line: a name with its address, an IPv6 address in
// brackets, nothing that a terminal would obey.
func (t *Target) String() string {
	remote := show.SafeText(t.Remote.String())
	if t.Name == "" {
		return remote
	}
	return show.SafeText(t.Name) + " (" + show.SafeText(t.Remote.Addr().String()) + ")"
}
