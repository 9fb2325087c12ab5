package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// fromHere reports whether a request was made on this host by somebody who meant to:
// over loopback or from the very address that it was made to, to an IP address or
// localhost by name, not passed on by a proxy, and not by a browser on behalf of another
// site's page. A page whose name has been led
// here (DNS rebinding) has its own name in Host, and says where it comes from. HTTP/1.0
// is what nginx speaks to what is behind it, unless it is told otherwise.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !ours(r, from.Addr().Unmap()) || !plainHost(r.Host) || !r.ProtoAtLeast(1, 1) {
		return false
	}
	for name := range r.Header {
		if passedOn(name) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "none", "same-origin":
		return true
	case "":
		return !isBrowser(r)
	}
	return false
}

// passedOn reports whether a field is a proxy's.
func passedOn(name string) bool {
	return name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded") || strings.HasSuffix(name, "-Client-Ip") || strings.HasSuffix(name, "-Connecting-Ip")
}

// isBrowser reports whether a browser asks. Over plain HTTP to other addresses than
// loopback none says whose page has it ask (Fetch Metadata, §2: for potentially
// trustworthy URLs only), and an image's or a form's GET has no Origin either. What they
// call themselves no page can change without asking us first (CORS).
func isBrowser(r *http.Request) bool { return strings.HasPrefix(r.UserAgent(), "Mozilla/") }

// ours reports whether an address that a request came from is this host's: loopback, or
// the one that the connection has at this end too. (A connection from there is made here
// alone: what is sent to our address in its own name is dropped as it arrives by the wire,
// for IPv4, and anyhow the answer never leaves.)
func ours(r *http.Request, from netip.Addr) bool {
	if from.IsLoopback() {
		return true
	}
	at, is := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !is {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	return err == nil && to.Addr().Unmap() == from
}

// plainHost reports whether Host is an IP address or localhost, either with a port or
// without: no name that a name server decides on.
func plainHost(host string) bool {
	name := hostname(host)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost"
}

// hostname is Host without its port, its brackets and its last point, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
