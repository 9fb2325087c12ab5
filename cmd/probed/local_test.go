package main

import (
	"net/http/httptest"
	"testing"
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
