package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/prometheus/exporter-toolkit/web"
)

// askProfile asks for one.
func askProfile(h http.Handler, path, remote string, change func(*http.Request)) int {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr, r.Host = remote, "localhost:10965"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

const fromThere = "198.18.0.7:4711"

// Profiles are for this host, bounded, and taken one at a time.
func TestProfiles(t *testing.T) {
	t.Parallel()
	h := new(daemon).profiles()
	const here = "127.0.0.1:4711"
	for path, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/goroutine?debug=1": 200, "/debug/pprof/cmdline": 200, "/debug/pprof/nothing": 404,
		"/debug/pprof/profile?seconds=61": 400, "/debug/pprof/trace?seconds=1e9": 400, "/debug/pprof/heap?seconds=NaN": 400, "/debug/pprof/heap?seconds=-1": 400,
	} {
		if code := askProfile(h, path, here, nil); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
		if code := askProfile(h, path, fromThere, nil); code != 403 {
			t.Errorf("%s from elsewhere: %d", path, code)
		}
	}
	began, done := make(chan struct{}), make(chan int)
	go func() {
		close(began)
		done <- askProfile(h, "/debug/pprof/heap?seconds=1", here, nil)
	}()
	<-began
	refused := false
	for over := false; !over; {
		select {
		case code := <-done:
			over = true
			if code != 200 {
				t.Errorf("the first: %d", code)
			}
		default:
			refused = refused || askProfile(h, "/debug/pprof/goroutine", here, nil) == 503
		}
	}
	if !refused {
		t.Error("two at once")
	}
}

// From elsewhere they are for whoever was let in by name.
func TestProfilesByName(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "web.yml")
	d := &daemon{web: &web.FlagConfig{WebConfigFile: &file}}
	h := d.profiles()
	named := func(r *http.Request) { r.SetBasicAuth("prometheus", "looked at already") }
	certified := func(r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{new(x509.Certificate)}}}
	}
	presented := func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{new(x509.Certificate)}}
	}
	ask := func(what string, change func(*http.Request), want int) {
		t.Helper()
		if code := askProfile(h, "/debug/pprof/", fromThere, change); code != want {
			t.Errorf("%s: %d, want %d", what, code, want)
		}
	}
	ask("a password, no file", named, 403)
	write(t, file, "http_server_config: {http2: true}\n")
	ask("a password, and nobody looks at it", named, 403)
	write(t, file, "basic_auth_users: {prometheus: hash}\n")
	ask("a password", named, 200)
	ask("no password", nil, 403)
	ask("a certificate", certified, 200)
	ask("a certificate that was not verified", presented, 403)
}
