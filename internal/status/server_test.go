package status

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// ask makes a request of a handler.
func ask(t testing.TB, h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://probed.test:10965"+path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// askJSON reads the answer to a GET.
func askJSON[T any](t testing.TB, h http.Handler, path string) T {
	t.Helper()
	w := ask(t, h, "GET", path)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d %s %s", path, w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// Everything that is answered carries the headers that keep a page from loading,
// running or being framed by what is not ours.
func TestHeaders(t *testing.T) {
	h := edge(t).handler(t)
	for _, path := range []string{"/", "/targets/a000000000000000", "/nothing", "/?sort=nothing", "/api/v1/targets", "/api/v1/nothing",
		"/api/v1/targets/a000000000000000/capture.pcapng", "/static/list.js", "/static/nothing"} {
		got := ask(t, h, "GET", path).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "same-origin",
			"Cache-Control":           "no-store",
		} {
			if got.Get(name) != want {
				t.Errorf("%s: %s: %q", path, name, got.Get(name))
			}
		}
	}
	page := ask(t, h, "GET", "/").Body.String()
	_, hash, _ := strings.Cut(page, "/static/list.js?v=")
	hash = hash[:12]
	if c := ask(t, h, "GET", "/static/list.js?v="+hash).Header().Get("Cache-Control"); !strings.Contains(c, "immutable") {
		t.Errorf("a script that is named by its content: Cache-Control %q", c)
	}
}

// A page or an answer is compressed for who likes that, and only then.
func TestCompression(t *testing.T) {
	h := edge(t).handler(t)
	plain := ask(t, h, "GET", "/api/v1/targets")
	for accept, compressed := range map[string]bool{"gzip": true, "br, gzip;q=0.8": true, "gzip;q=0": false, "": false, "identity": false} {
		w := ask(t, h, "GET", "/api/v1/targets", "Accept-Encoding", accept)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != compressed {
			t.Errorf("Accept-Encoding %q: compressed %v", accept, got)
			continue
		}
		if compressed {
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, plain.Body.Bytes()) {
				t.Errorf("not the same when compressed: %v", err)
			}
		}
	}
}

// What the API says is what was probed.
func TestAPITargets(t *testing.T) {
	w := edge(t)
	h := w.handler(t)
	all := askJSON[targetsJSON](t, h, "/api/v1/targets")
	if all.Total != 40 || len(all.Targets) != 40 || all.Pages != 1 || all.States != (tally{Down: 2, Ours: 1, Unknown: 1, Up: 36}) {
		t.Errorf("%d of %d on %d pages, %+v", len(all.Targets), all.Total, all.Pages, all.States)
	}
	git := all.Targets[0]
	if git.Target != "git-07.fra2.example.net:443" || git.State != down || git.Probes != 256 || git.Failed != 25 || *git.Loss != 25.0/256 ||
		git.Labels["site"] != "fra2" || git.Job != "core" || git.Probe != "half_open" || git.Remote != "198.18.0.7:443" ||
		git.LastProbe.Verdict != "failed" || git.LastFailure.Reason != "timeout" || git.Interval != show.Seconds(time.Second) {
		t.Errorf("%+v", git)
	}
	for _, tt := range []struct {
		query string
		want  []string // how the targets' names begin, in order
		total int
	}{
		{"?state=down", []string{"git-07", "ldap-21"}, 2},
		{"?state=down&sort=-state", []string{"git-07", "ldap-21"}, 2},
		{"?state=down&sort=-target", []string{"ldap-21", "git-07"}, 2},
		{"?sort=-loss&limit=3", []string{"git-07", "queue-12", "ldap-21"}, 40},
		{"?sort=config&limit=2&page=3", []string{"queue-04", "ldap-05"}, 40},
		{"?sort=config&limit=30&page=99", nil, 40},
		{"?q=LDAP&sort=config", []string{"ldap-05", "ldap-13", "ldap-21", "ldap-29", "ldap-37"}, 5},
		{"?q=ldap+site%3Dfra2&sort=config", []string{"ldap-13", "ldap-37"}, 2},
		{"?q=job%3Dcore+team%3Dweb+db", []string{}, 0},
		{"?q=198.18.0.9", []string{"cache-09"}, 1},
		{"?group=site&q=db&sort=target", []string{"db-00", "db-24", "db-16", "db-08", "db-32"}, 5},
		{"?sort=-failure&limit=3", []string{"ldap-21", "git-07", "queue-12"}, 40},
	} {
		got := askJSON[targetsJSON](t, h, "/api/v1/targets"+tt.query)
		var names []string
		for _, tgt := range got.Targets {
			names = append(names, strings.SplitN(tgt.Target, ".", 2)[0])
		}
		if got.Total != tt.total || tt.want != nil && !slices.Equal(names, tt.want) && len(names)+len(tt.want) > 0 {
			t.Errorf("%s: %q of %d, want %q of %d", tt.query, names, got.Total, tt.want, tt.total)
		}
	}
}

func TestAPITarget(t *testing.T) {
	w := newWorld(t)
	tgt := w.add(Target{Address: "db.test:5432"})
	w.probe(tgt, outcome{rtt: time.Millisecond})
	w.probe(tgt, outcome{rtt: 3 * time.Millisecond, mss: 1400})
	w.probe(tgt, outcome{})
	w.probe(tgt, outcome{discard: probe.DiscardSendError})
	h := w.handler(t)
	got := askJSON[detailJSON](t, h, "/api/v1/targets/"+tgt.ID)
	if got.Totals.Probes != 3 || !maps.Equal(got.Totals.Failures, map[string]uint64{"timeout": 1}) || !maps.Equal(got.Totals.Discarded, map[string]uint64{"send_error": 1}) {
		t.Errorf("totals %+v", got.Totals)
	}
	if got.State != ours || got.Probes != 3 || got.Failed != 1 || got.Discarded != 1 || *got.P50 != 0.001 || *got.P99 != 0.003 || got.LastProbe.Discarded != "send_error" {
		t.Errorf("%+v", got.targetJSON)
	}
	if got.Peer == nil || got.Peer.Fingerprint.MSS != 1400 || len(got.Peer.Changes) != 1 || got.Peer.Changes[0].Before.MSS != 1460 {
		t.Errorf("peer %+v", got.Peer)
	}
	samples := askJSON[samplesJSON](t, h, "/api/v1/targets/"+tgt.ID+"/samples").Samples
	var verdicts []string
	for _, s := range samples {
		verdicts = append(verdicts, s.Verdict+s.Reason+s.Discarded)
	}
	if !slices.Equal(verdicts, []string{"ok", "ok", "failedtimeout", "discardedsend_error"}) || samples[0].RTT != 0.001 || samples[0].Port != 61000 {
		t.Errorf("samples %+v", samples)
	}
	for path, want := range map[string]int{"": 4, "?failed=false": 4, "?failed=true": 1} {
		kept := askJSON[transcriptsJSON](t, h, "/api/v1/targets/"+tgt.ID+"/transcripts"+path).Transcripts
		if len(kept) != want {
			t.Errorf("%s: %d transcripts", path, len(kept))
		}
		if path == "" && (kept[3].Verdict != "ok" || time.Duration(*kept[3].HandshakeRTT) != time.Millisecond) {
			t.Errorf("the oldest: %+v", kept[3])
		}
	}
}

// An error of the API is JSON, and says what is wrong.
func TestAPIErrors(t *testing.T) {
	h := edge(t).handler(t)
	for _, tt := range []struct {
		method, path string
		code         int
		says         string
	}{
		{"GET", "/api/v1/targets?sort=size", 400, `cannot sort by "size"`},
		{"GET", "/api/v1/targets?state=sad&limit=0", 400, "limit: \"0\" is no whole number from 1 to 1000"},
		{"GET", "/api/v1/targets?state=sad", 400, `state: "sad" is none`},
		{"GET", "/api/v1/targets?page=-1", 400, "page:"},
		{"GET", "/api/v1/targets?q=" + strings.Repeat("x", 1001), 400, "q: longer than 1000 octets"},
		{"GET", "/api/v1/targets/a00000000000ffff", 404, "no such target"},
		{"GET", "/api/v1/targets/x", 404, "no such target"},
		{"GET", "/api/v1/targets/a000000000000000/transcripts?failed=perhaps", 400, "neither true nor false"},
		{"GET", "/api/v1/targets/a000000000000000/capture.pcapng?number=x", 400, "no number of a conversation"},
		{"GET", "/api/v1/targets/a000000000000000/capture.pcapng?number=99999999", 404, "no such conversation"},
		{"GET", "/api/v1/targets/a000000000000000/capture.pcapng?failed=true", 404, "no such conversation"},
		{"GET", "/api/v2", 404, "no such thing"},
		{"POST", "/api/v1/targets", 405, "only read from"},
		{"GET", "/events?limit=101", 400, "limit:"},
	} {
		w := ask(t, h, tt.method, tt.path)
		var e struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tt.code || !strings.Contains(e.Error, tt.says) {
			t.Errorf("%s %.60s: %d %s", tt.method, tt.path, w.Code, w.Body)
		}
	}
}

// The capture holds each remembered conversation once, in order, and its file's
// name is harmless.
func TestAPICapture(t *testing.T) {
	w := newWorld(t)
	tgt := w.add(Target{Address: "../../etc/\"; x=\"\r\n<b>数:443"})
	for n := range 12 {
		o := outcome{rtt: time.Millisecond, ago: time.Duration(12-n) * time.Second}
		if n%3 == 0 {
			o.rtt = 0
		}
		w.probe(tgt, o)
	}
	h := w.handler(t)
	base := "/api/v1/targets/" + tgt.ID + "/capture.pcapng"
	for query, want := range map[string]int{
		"":             3 + 1 + 3 + 3 + 1 + 1 + 1, // the last four, of which one failed, and three that failed before
		"?failed=true": 4,
		"?number=12":   3,
	} {
		got := ask(t, h, "GET", base+query)
		_, params, err := mime.ParseMediaType(got.Header().Get("Content-Disposition"))
		if err != nil || !strings.HasPrefix(params["filename"], "probed-.._.._etc____x___") || strings.ContainsAny(params["filename"], "/\"\\\r\n<>") {
			t.Errorf("Content-Disposition %q: %v", got.Header().Get("Content-Disposition"), err)
		}
		r, err := pcapgo.NewNgReader(got.Body, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var last time.Time
		packets := 0
		for {
			_, info, err := r.ReadPacketData()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.Timestamp.Before(last) {
				t.Errorf("%s: packet %d goes back in time", query, packets)
			}
			last = info.Timestamp
			packets++
		}
		if packets != want {
			t.Errorf("%s: %d packets, want %d", query, packets, want)
		}
	}
}

const sameSite = "Sec-Fetch-Site"

// A probe may be asked for from our own pages only.
func TestProbeNowOrigin(t *testing.T) {
	for _, tt := range []struct {
		headers []string
		code    int
	}{
		{[]string{sameSite, "same-origin"}, 303},
		{[]string{sameSite, "same-origin", "Origin", "http://behind.a.proxy"}, 303},
		{[]string{sameSite, "none", "Origin", "http://evil.test"}, 303}, // what no browser says
		{[]string{"Origin", "http://probed.test:10965"}, 303},
		{[]string{"Origin", "https://probed.test:10965"}, 303}, // Host has no scheme to hold it to
		{nil, 303}, // no browser
		{[]string{sameSite, "cross-site"}, 403},
		{[]string{sameSite, "same-site"}, 403},
		{[]string{sameSite, "cross-site", "Origin", "http://probed.test:10965"}, 403},
		{[]string{"Origin", "http://evil.test"}, 403},
		{[]string{"Origin", "http://probed.test:80"}, 403},
		{[]string{"Origin", "null"}, 403},
	} {
		w := newWorld(t)
		tgt := w.add(Target{Address: "db.test:5432"})
		got := ask(t, w.handler(t), "POST", "/targets/"+tgt.ID+"/probe", tt.headers...)
		if got.Code != tt.code {
			t.Errorf("%q: %d, want %d", tt.headers, got.Code, tt.code)
		}
		if made := len(tgt.Recorder.Last()) == 1; made != (tt.code == 303) {
			t.Errorf("%q: probed: %v", tt.headers, made)
		}
		if tt.code == 303 && got.Header().Get("Location") != "/targets/"+tgt.ID {
			t.Errorf("goes to %q", got.Header().Get("Location"))
		}
	}
	w := newWorld(t)
	tgt := w.add(Target{Address: "db.test:5432"})
	if got := ask(t, w.handler(t), "GET", "/targets/"+tgt.ID+"/probe", sameSite, "same-origin"); got.Code == 200 || len(tgt.Recorder.Last()) != 0 {
		t.Errorf("a GET makes a probe: %d", got.Code)
	}
}

func TestProbeNow(t *testing.T) {
	w := newWorld(t)
	now := time.Unix(1e9, 0)
	w.clock = func() time.Time { return now }
	first := w.add(Target{Address: "a.test:1"})
	slow := w.add(Target{Address: "b.test:1", OneAtATime: true})
	for i := range 30 {
		w.add(Target{Address: fmt.Sprint("c.test:", i+1)})
	}
	h := w.handler(t)
	post := func(tgt *Target, accept string) *httptest.ResponseRecorder {
		return ask(t, h, "POST", "/targets/"+tgt.ID+"/probe", sameSite, "same-origin", "Accept", accept)
	}
	got := post(first, "application/json")
	var c show.ConversationJSON
	if err := json.Unmarshal(got.Body.Bytes(), &c); err != nil || c.Verdict != "ok" || c.Number == 0 {
		t.Errorf("%d %s: %v", got.Code, got.Body, err)
	}
	if got := post(first, "text/html"); got.Code != 429 || got.Header().Get("Retry-After") != "1" || !strings.Contains(got.Body.String(), `href="/targets/`+first.ID) {
		t.Errorf("at once again: %d %s", got.Code, got.Body)
	}
	now = now.Add(time.Second)
	if got := post(first, "text/html,application/json"); got.Code != 303 {
		t.Errorf("a second later: %d", got.Code)
	}
	if got := post(slow, "application/json"); got.Code != 409 || !strings.Contains(got.Body.String(), "how long TIME-WAIT lasts") {
		t.Errorf("one at a time: %d %s", got.Code, got.Body)
	}
	if got := post(&Target{ID: "a00000000000ffff"}, ""); got.Code != 404 {
		t.Errorf("no target: %d", got.Code)
	}
	now = now.Add(time.Minute)
	codes := make(map[int]int)
	for i := range 30 {
		codes[post(&w.targets[2+i], "application/json").Code]++
	}
	if codes[200] != probesPerSecond || codes[429] != 30-probesPerSecond {
		t.Errorf("thirty targets at once: %v", codes)
	}
	now = now.Add(time.Minute)
	for err, code := range map[error]int{context.DeadlineExceeded: 504, errors.New("no source port is free"): 503} {
		w.now = func(context.Context, string) (probe.Transcript, error) {
			return probe.Transcript{}, fmt.Errorf("the probe is not over: %w", err)
		}
		if got := post(first, "application/json"); got.Code != code {
			t.Errorf("%v: %d", err, got.Code)
		}
		now = now.Add(time.Second)
	}
	// Who leaves does not spoil the probe; the end of the daemon ends the waiting.
	w.now = func(ctx context.Context, _ string) (probe.Transcript, error) {
		h.Close()
		<-ctx.Done()
		return probe.Transcript{}, ctx.Err()
	}
	if got := post(first, "application/json"); got.Code != 503 {
		t.Errorf("at the end: %d", got.Code)
	}
}

// events reads a live stream.
func events(t *testing.T, s *site, query string) (next func() update, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		answer.Body.Close()
	})
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	return func() update {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var u update
				if err := json.Unmarshal([]byte(data), &u); err != nil {
					t.Fatal(err)
				}
				return u
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return update{}
	}, answer.StatusCode
}

// A stream tells the whole page first and then only what changed on it.
func TestStream(t *testing.T) {
	w := edge(t)
	s := w.serve(t)
	next, _ := events(t, s, "?sort=target&q=site%3Damsterdam+or+not")
	if u := next(); u.Total != 0 || u.Rows != nil || u.Order == nil {
		t.Errorf("of nothing: %+v", u)
	}
	next, _ = events(t, s, "?sort=target&limit=10")
	u := next()
	if u.Total != 40 || len(u.Rows) != 10 || len(u.Order) != 10 || u.States.Down != 2 || u.Rows[0].Sparkline == "" {
		t.Errorf("first: %d rows of %d, %d in order, %+v", len(u.Rows), u.Total, len(u.Order), u.States)
	}
	shown, _ := w.Target(u.Order[3])
	w.probe(&shown, outcome{})
	u = next()
	if len(u.Rows) != 1 || u.Rows[0].ID != shown.ID || u.Rows[0].State != down || u.Rows[0].Reason != "timeout" || u.Order != nil || u.States.Down != 3 {
		t.Errorf("then: %+v", u)
	}
	// What is on another page changes the sums alone.
	other := w.byID["a000000000000000"]
	for slices.Contains(u.Order, w.targets[other].ID) || strings.HasPrefix(w.targets[other].Address, "api") || strings.HasPrefix(w.targets[other].Address, "cache") {
		other++
	}
	w.probe(&w.targets[other], outcome{})
	if u = next(); len(u.Rows) != 0 || u.States.Down != 4 {
		t.Errorf("at last: %+v", u)
	}
}

// There are so many streams and no more, and all end at the end.
func TestStreamsAreBounded(t *testing.T) {
	s := edge(t).serve(t)
	for i := range maxStreams {
		if _, code := events(t, s, "?limit=1"); code != http.StatusOK {
			t.Fatalf("stream %d: %d", i, code)
		}
	}
	if _, code := events(t, s, "?limit=1"); code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", code)
	}
	s.handler.Close()
	s.handler.Close()
	for begun := time.Now(); len(s.handler.server.viewers) > 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Second {
			t.Fatalf("%d streams are still there after a second", len(s.handler.server.viewers))
		}
	}
}

// A stalled is the writer of an answer that its client does not read after its beginning.
type stalled struct {
	*httptest.ResponseRecorder
	writes atomic.Int32
	more   chan struct{} // closed for it to go on
}

func (w *stalled) Write(b []byte) (int, error) {
	if w.writes.Add(1) > 1 {
		<-w.more
	}
	return len(b), nil
}

// A viewer that doesn't read keeps no snapshot: ten of every target's rows would be there.
func TestStreamsKeepNoSnapshot(t *testing.T) {
	w := edge(t)
	var ahead atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	h := w.handler(t)
	out := &stalled{ResponseRecorder: httptest.NewRecorder(), more: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(out, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil))
	}()
	for out.writes.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	seen := weak.Make(h.server.snapshots.get())
	ahead.Store(int64(time.Hour))
	h.server.snapshots.get()
	runtime.GC()
	if seen.Value() != nil {
		t.Error("the snapshot is kept")
	}
	cancel()
	close(out.more)
	<-done
}

// A snapshot is made once a second at most, however many look.
func TestSnapshotsAreShared(t *testing.T) {
	w := newWorld(t)
	tgt := w.add(Target{Address: "a.test:1"})
	now := time.Unix(1e9, 0)
	m := snapshots{source: w, clock: func() time.Time { return now }}
	first := m.get()
	w.probe(tgt, outcome{rtt: time.Millisecond})
	now = now.Add(snapshotEvery - 1)
	if m.get() != first || m.due(first.at) != 1 {
		t.Error("a second snapshot within a second")
	}
	now = now.Add(1)
	second := m.get()
	if second == first || second.rows[0].state != up || first.rows[0].state != unknown {
		t.Error("no new snapshot after a second, or the old one changed")
	}
	now = now.Add(snapshotEvery)
	if third := m.get(); third == second || third.rows[0] != second.rows[0] {
		t.Error("a row with nothing new was made again")
	}
	now = now.Add(-time.Hour)
	if m.get().at != now {
		t.Error("a clock set back stops the snapshots")
	}
}

func TestTerms(t *testing.T) {
	for text, want := range map[string][]term{
		``:                       nil,
		`Web  DB`:                {{folded: "web"}, {folded: "db"}},
		`team=core`:              {{label: "team", value: "core"}},
		`team="net ops" x`:       {{label: "team", value: "net ops"}, {folded: "x"}},
		`"net ops"`:              {{folded: "net ops"}},
		`a=b=c =x`:               {{label: "a", value: "b=c"}, {folded: "=x"}},
		`"unclosed quote team=x`: {{label: `"unclosed quote team`, value: "x"}},
		`team=`:                  {{label: "team"}},
	} {
		if got := parseTerms(text); !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{0.001113: "1.113 ms", 0.0176: "17.60 ms", 0.005: "5.000 ms", 0.2: "200.0 ms", 12: "12.00 s", 0.00000012: "120 ns", 0.0001234: "123.4 µs"} {
		if got := seconds(v); got != want {
			t.Errorf("%v s: %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 %", 1: "100 %", 0.0001: "0.1 %", 0.9999: "99.9 %", 0.5: "50.0 %"} {
		if got := percent(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	samples := make([]recorder.Sample, 200)
	for i := range samples {
		samples[i].RTT = float32(200 - i)
	}
	if p50, p99 := quantiles(samples); p50 != 100 || p99 != 198 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

// TestCompressorIsShared asserts that answers that are compressed don't take a compressor
// each, which is most of a megabyte.
func TestCompressorIsShared(t *testing.T) {
	h := edge(t).handler(t)
	for _, path := range []string{"/static/list.js", "/static/nothing", "/api/v1/targets"} {
		ask(t, h, "GET", path, "Accept-Encoding", "gzip")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const n = 50
		for range n {
			ask(t, h, "GET", path, "Accept-Encoding", "gzip")
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 200<<10 {
			t.Errorf("%s: %d octets allocated an answer", path, each)
		}
	}
}
