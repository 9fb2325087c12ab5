package ondemand_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// Who may have what probed: each row is a request and what it is answered.
func TestWhoMayAsk(t *testing.T) {
	const (
		none  = "jobs: []"
		deny  = "{global: {limits: {deny: [198.18.0.0/24, '2001:db8::/32', 198.18.1.7]}}, jobs: []}"
		allow = "{global: {limits: {allow: [198.18.0.0/24], deny: [198.18.0.9]}}, jobs: []}"
	)
	const links = "{modules: {link3: {probe: half_open, interface: eth3}, link4: {probe: half_open, interface: eth4}}, jobs: []}"
	type header map[string]string
	for _, tt := range []struct {
		what, yaml, from, host, target string
		header                         header
		code                           int
		says                           string
	}{
		// Without lists.
		{what: "from here, anything", target: "198.18.5.5:80", code: 200},
		{what: "from here over IPv6", from: "[::1]:4", host: "[::1]:10965", target: "[2001:db8::1]:80", code: 200},
		{what: "from here, a name", target: "other.test:80", code: 200},
		{what: "from here, as a browser's own page", target: "198.18.5.5:80", header: header{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:10965"}, code: 200},
		{what: "from here, typed into a browser", target: "198.18.5.5:80", header: header{"Sec-Fetch-Site": "none"}, code: 200},
		{what: "another host", from: "198.18.0.2:4", target: "198.18.5.5:80", code: 403, says: "global.limits.allow"},
		{what: "another host, what a job probes", from: "198.18.0.2:4", target: "198.18.0.7:80", code: 200},
		{what: "another host, another port of what a job probes", from: "198.18.0.2:4", target: "198.18.0.7:22", code: 403, says: "198.18.0.7:22 is not among what the jobs"},
		{what: "another host, a name of a job", from: "198.18.0.2:4", target: "db.test:80", code: 200},
		{what: "another host, another port of a job's name", from: "198.18.0.2:4", target: "db.test:22", code: 403, says: "global.limits.allow"},
		{what: "another host, any name", from: "198.18.0.2:4", target: "other.test:80", code: 403, says: "global.limits.allow"},
		{what: "another host by name, what a job probes", from: "198.18.0.2:4", host: "probe.example.net", target: "198.18.0.7:80", code: 200},
		{what: "another site's page", header: header{"Sec-Fetch-Site": "cross-site"}, target: "198.18.0.7:80", code: 403, says: "Sec-Fetch-Site"},
		{what: "a sibling's page", header: header{"Sec-Fetch-Site": "same-site"}, target: "198.18.0.7:80", code: 403},
		{what: "another origin", header: header{"Origin": "http://evil.test"}, target: "198.18.0.7:80", code: 403, says: "Origin"},
		{what: "a sandbox", header: header{"Origin": "null"}, target: "198.18.0.7:80", code: 403},
		{what: "another host, what a job probes by an interface", from: "198.18.0.2:4", yaml: links, target: "[fe80::1]:80&module=link3", code: 200},
		{what: "another host, the same on another link", from: "198.18.0.2:4", yaml: links, target: "[fe80::1]:80&module=link4", code: 403},
		{what: "another host, what a job probes by a zone", from: "198.18.0.2:4", target: "[fe80::1%eth3]:80", code: 200},
		{what: "another host, the same with another zone", from: "198.18.0.2:4", target: "[fe80::1%eth4]:80", code: 403},
		// With deny.
		{what: "denied", yaml: deny, target: "198.18.0.8:80", code: 403, says: "global.limits.deny has 198.18.0.0/24"},
		{what: "denied, though a job has it", yaml: deny, target: "198.18.0.7:80", code: 403},
		{what: "denied, IPv6", yaml: deny, target: "[2001:db8::5]:80", code: 403},
		{what: "denied behind a translator", yaml: deny, target: "[64:ff9b::198.18.0.1]:80", code: 403},
		{what: "not denied", yaml: deny, target: "198.18.1.8:80", code: 200},
		{what: "a name that is denied", yaml: deny, target: "bad.test:80", code: 403, says: "bad.test resolves to nothing that may be probed"},
		{what: "a name that is denied, mapped", yaml: deny, target: "mapped.test:80", code: 403},
		{what: "a name that is denied, with a zone", yaml: "{global: {limits: {deny: ['fe80::/10']}}, jobs: []}", target: "zone.test:80", code: 403},
		// With allow.
		{what: "allowed, to anybody", yaml: allow, from: "198.18.0.2:4", host: "probe.example.net", target: "198.18.0.3:80", header: header{"Via": "1.1 x"}, code: 200},
		{what: "not allowed, from here", yaml: allow, target: "198.18.1.3:80", code: 403, says: "global.limits.allow does not have it"},
		{what: "allowed and denied", yaml: allow, target: "198.18.0.9:80", code: 403, says: "global.limits.deny"},
		{what: "a name that is not allowed", yaml: allow, from: "198.18.0.2:4", target: "outside.test:80", code: 403, says: "global.limits.allow"},
		{what: "a name that is allowed", yaml: allow, from: "198.18.0.2:4", target: "bad.test:80", code: 200},
		{what: "not allowed, though a job of before has it", yaml: allow, target: "[2001:db8::1]:80", code: 403},
		{what: "allowed, but another site's page", yaml: allow, target: "198.18.0.3:80", header: header{"Sec-Fetch-Site": "cross-site"}, code: 403},
	} {
		p := &prober{file: "syn_then_synack_then_duplicate", resolves: map[string]netip.Addr{
			"bad.test":     netip.MustParseAddr("198.18.0.1"),
			"mapped.test":  netip.MustParseAddr("::ffff:198.18.0.1"),
			"zone.test":    netip.MustParseAddr("fe80::1%eth0"),
			"outside.test": netip.MustParseAddr("198.18.77.1"),
		}}
		yaml := tt.yaml
		if yaml == "" {
			yaml = none
		}
		r := httptest.NewRequest("GET", "/probe?target="+strings.ReplaceAll(url.QueryEscape(tt.target), "%26module%3D", "&module="), nil)
		r.RemoteAddr, r.Host = "127.0.0.1:40000", "localhost:10965"
		if tt.from != "" {
			r.RemoteAddr = tt.from
		}
		if tt.host != "" {
			r.Host = tt.host
		}
		for k, v := range tt.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		serveWith(t, p, yaml).ServeHTTP(w, r)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %q, want %d with %q", tt.what, w.Code, w.Body, tt.code, tt.says)
		}
		if w.Code == http.StatusForbidden && (len(p.asked) > 0 || strings.Contains(w.Body.String(), "198.18.77.1")) {
			t.Errorf("%s: %d probes were made; it said %q", tt.what, len(p.asked), w.Body)
		}
	}
}
