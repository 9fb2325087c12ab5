package ondemand

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/probed/probed/config"
)

// A refusal is why whoever asks does not get a probe.
type refusal string

func (r refusal) Error() string { return string(r) }

// forWhom returns what may be probed for whoever sent a request, as a function that says
// why an address may not be; of a host name that is asked about each address that it
// turns out to have. Its error says that nothing is, or not this target, whatever it
// resolves to.
//
// What the limits forbid is probed for nobody. Beyond that, allow says what may be.
// Without it, this host itself may ask for anything, and others for what the jobs probe
// anyway, address and port: else whoever reaches the web listener could scan the networks
// that this host reaches, or the other ports of what it probes.
func (h *handler) forWhom(r *http.Request, t *config.Target) (may func(netip.Addr) error, err error) {
	if foreign(r) {
		return nil, refusal("only a page of this probed may ask a browser for a probe: the request's Sec-Fetch-Site or Origin says that another one does")
	}
	trusted := h.FromHere(r)
	limits := func() *config.Limits { return &h.Config().Global.Limits }
	if l := limits(); !l.Only() && !trusted && !t.IP.IsValid() {
		// To look a name up is to send something too.
		if !h.Names(t.Host, t.Port) {
			return nil, h.outside(t)
		}
		trusted = true // with what the jobs do with it anyway
	}
	may = func(ip netip.Addr) error {
		l := limits()
		switch {
		case l.Forbids(ip) && t.IP.IsValid():
			return refusal(l.Refusal(ip))
		case l.Forbids(ip): // what a name resolves to is not for everybody to know
			return refusal(fmt.Sprintf("%s resolves to nothing that may be probed: see global.limits.deny and global.limits.allow", t.Host))
		case l.Only() || trusted || h.Probes(netip.AddrPortFrom(onLink(ip, t.Module), t.Port)):
			return nil
		}
		return h.outside(t)
	}
	if t.IP.IsValid() {
		return may, may(t.IP)
	}
	return may, nil
}

// onLink is an address with the link that it is on, if there may be another host's like it
// on another.
func onLink(ip netip.Addr, m *config.Module) netip.Addr {
	if ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "" {
		return ip.WithZone(m.Interface)
	}
	return ip
}

// outside is the refusal of what no job probes.
func (h *handler) outside(t *config.Target) error {
	return refusal(fmt.Sprintf("%s is not among what the jobs of this probed probe, port and all, and for other hosts it probes nothing else: "+
		"list in global.limits.allow what /probe may be asked for", t.Address))
}

// foreign reports whether a browser says that a page of another origin asks.
func foreign(r *http.Request) bool {
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return true
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return true
		}
	}
	return false
}
