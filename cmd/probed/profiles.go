package main

import (
	"net/http"
	"net/http/pprof"
	"os"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// mostProfile bounds how long a profile or a trace is taken.
const mostProfile = 60 * time.Second

// profiles returns the handler of /debug/pprof/: for users of this host, and for whom
// TLS or a password has let in by name. One is taken at a time.
func (d *daemon) profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	one := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromHere(r) && !d.byName(r) {
			http.Error(w, "profiles are for this host: ask over loopback, by address or as localhost, or set passwords up (docs/security.md)", http.StatusForbidden)
			return
		}
		if text := r.URL.Query().Get("seconds"); text != "" {
			if s, err := strconv.ParseFloat(text, 64); err != nil || !(s >= 0 && s <= mostProfile.Seconds()) {
				http.Error(w, "seconds: a number up to "+strconv.FormatFloat(mostProfile.Seconds(), 'f', -1, 64), http.StatusBadRequest)
				return
			}
		}
		if r.URL.Path != "/debug/pprof/" {
			select {
			case one <- struct{}{}:
				defer func() { <-one }()
			default:
				w.Header().Set("Retry-After", "10")
				http.Error(w, "a profile is being taken already", http.StatusServiceUnavailable)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// byName reports whether a request was let in because of who makes it: by a client's
// certificate, or by a password, which has been looked at if the web configuration has
// any.
func (d *daemon) byName(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	if _, _, ok := r.BasicAuth(); !ok || d.web == nil || *d.web.WebConfigFile == "" {
		return false
	}
	text, err := os.ReadFile(*d.web.WebConfigFile)
	if err != nil {
		return false
	}
	var c struct {
		Users map[string]string `yaml:"basic_auth_users"`
	}
	return yaml.Unmarshal(text, &c) == nil && len(c.Users) > 0
}
