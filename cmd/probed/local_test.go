package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/probed/probed/internal/lab"
)

func TestFromHere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		remote, host, header, value string
		want                        bool
	}{
		{"127.0.0.1:4711", "127.0.0.1:10965", "", "", true},
		{"127.0.0.1:4711", "localhost:10965", "", "", true},
		{"127.0.0.1:4711", "LOCALHOST.", "", "", true},
		{"[::1]:4711", "[::1]:10965", "", "", true},
		{"[::1]:4711", "[::1]", "", "", true},
		{"[::ffff:127.0.0.1]:4711", "127.0.0.1", "", "", true},
		{"127.0.0.1:4711", "198.18.0.1:10965", "", "", true},
		{"127.0.0.1:4711", "127.0.0.1", "Sec-Fetch-Site", "none", true},
		{"127.0.0.1:4711", "127.0.0.1", "Sec-Fetch-Site", "same-origin", true},
		{"127.0.0.1:4711", "127.0.0.1", "Sec-Fetch-Site", "cross-site", false},
		{"127.0.0.1:4711", "127.0.0.1", "Sec-Fetch-Site", "same-site", false},
		{"127.0.0.1:4711", "rebound.example.net:10965", "", "", false},
		{"127.0.0.1:4711", "localhost.example.net", "", "", false},
		{"127.0.0.1:4711", "127.0.0.1.example.net", "", "", false},
		{"127.0.0.1:4711", "", "", "", false},
		{"198.18.0.7:4711", "127.0.0.1:10965", "", "", false},
		{"[2001:db8::7]:4711", "localhost", "", "", false},
		{"127.0.0.1:4711", "127.0.0.1", "X-Forwarded-For", "198.18.0.7", false},
		{"127.0.0.1:4711", "127.0.0.1", "X-Forwarded-Host", "probed", false},
		{"127.0.0.1:4711", "127.0.0.1", "Forwarded", "for=198.18.0.7", false},
		{"127.0.0.1:4711", "127.0.0.1", "Via", "1.1 proxy", false},
		{"127.0.0.1:4711", "127.0.0.1", "X-Real-IP", "198.18.0.7", false},
		{"127.0.0.1:4711", "127.0.0.1", "CF-Connecting-IP", "198.18.0.7", false},
		{"127.0.0.1:4711", "127.0.0.1", "True-Client-IP", "", false},
		{"127.0.0.1:4711", "127.0.0.1", "User-Agent", "curl/8.5.0", true},
		{"127.0.0.1:4711", "127.0.0.1", "User-Agent", "Prometheus/3.0.0", true},
		{"127.0.0.1:4711", "127.0.0.1", "User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", false}, // and does not say for whom
		{"@", "127.0.0.1", "", "", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		if got := fromHere(r); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if r.ProtoMajor, r.ProtoMinor = 1, 0; fromHere(r) {
			t.Errorf("%+v over HTTP/1.0", c)
		}
	}
}

// Who calls this host by one of its addresses calls from that address too.
func TestFromHereByOwnAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		remote, local, host, via string
		want                     bool
	}{
		{"198.18.0.1:4711", "198.18.0.1:10965", "198.18.0.1:10965", "", true},
		{"[2001:db8::1]:4711", "[2001:db8::1]:10965", "[2001:db8::1]:10965", "", true},
		{"[fe80::1%eth0]:4711", "[fe80::1%eth0]:10965", "[fe80::1%eth0]:10965", "", true},
		{"[fe80::1%eth0]:4711", "[fe80::1%eth1]:10965", "[fe80::1%eth1]:10965", "", false},
		{"198.18.0.1:4711", "[::ffff:198.18.0.1]:10965", "198.18.0.1:10965", "", true},
		{"198.18.0.2:4711", "198.18.0.1:10965", "198.18.0.1:10965", "", false},
		{"198.18.0.1:4711", "198.18.0.1:10965", "probe.example.net:10965", "", false},
		{"198.18.0.1:4711", "198.18.0.1:10965", "198.18.0.1:10965", "1.1 proxy", false},
	} {
		at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.local))
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, at))
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.via != "" {
			r.Header.Set("Via", c.via)
		}
		if got := fromHere(r); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// A page of another site can have a browser on this host ask for an image by one of its
// addresses: nothing in that request says that it is not meant.
func TestFromHereByABrowser(t *testing.T) {
	t.Parallel()
	for site, want := range map[string]bool{"": false, "cross-site": false, "same-site": false, "same-origin": true, "none": true} {
		r := httptest.NewRequest("GET", "/probe?target=198.18.0.9:22", nil)
		at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.18.0.1:10965"))
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, at))
		r.RemoteAddr, r.Host = "198.18.0.1:4711", "198.18.0.1:10965"
		r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36")
		r.Header.Set("Accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8")
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		if got := fromHere(r); got != want {
			t.Errorf("Sec-Fetch-Site %q: %v", site, got)
		}
	}
}

// By its own address this host may ask for what others may not.
func TestFromHereByTheWire(t *testing.T) {
	t.Parallel()
	a, b := lab.Pair(t)
	a.Listen("tcp", "0.0.0.0:22")
	p := start(t, a, "jobs: []\n")
	for _, at := range []netip.Addr{a.Addr4(), a.Addr6()} {
		for who, want := range map[*lab.Host]int{a: http.StatusOK, b: http.StatusForbidden} {
			elsewhere := &process{t: t, host: who, base: "http://" + netip.AddrPortFrom(at, 10965).String(), http: &http.Client{
				Timeout: p.http.Timeout, Transport: &http.Transport{DialContext: dialer(who)},
			}}
			t.Cleanup(elsewhere.http.CloseIdleConnections)
			if code, body := elsewhere.do("GET", fmt.Sprintf("/probe?target=%v:22", a.Addr4())); code != want {
				t.Errorf("%v by %v: %d %s", who.Name, at, code, body)
			}
		}
	}
}
