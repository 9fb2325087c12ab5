package status

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/html"

	"github.com/probed/probed/internal/script"
	"github.com/probed/probed/probe"
	"github.com/probed/probed/probe/wire"
)

// A visit is one request and its answer. A live stream's first event ends it.
type visit struct {
	*httptest.ResponseRecorder
	end context.CancelFunc
}

func (v visit) Flush() { v.end() }

// fuzzPatience is how long an answer may take in a fuzz target, on the slowest machine.
const fuzzPatience = 20 * time.Second

// visits makes a request and holds its answer to what any must be.
func visits(t *testing.T, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	ctx, end := context.WithTimeout(t.Context(), fuzzPatience)
	defer end()
	v := visit{httptest.NewRecorder(), end}
	began := time.Now()
	h.ServeHTTP(v, r.WithContext(ctx))
	if took := time.Since(began); took > fuzzPatience {
		t.Errorf("it took %v", took)
	}
	if v.Code < 200 || v.Code >= 500 {
		t.Errorf("%d %s", v.Code, v.Body)
	}
	for name, values := range v.Header() {
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n\x00") {
				t.Errorf("%s: %q", name, value)
			}
		}
	}
	// A redirect stays here.
	if to := v.Header().Get("Location"); to != "" {
		if u, err := url.Parse(to); err != nil || u.Scheme != "" || u.Host != "" || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`) {
			t.Errorf("redirects to %q", to)
		}
	}
	if v.Code/100 == 3 {
		return v.ResponseRecorder // net/http's, which repeats the query as it came
	}
	if v.Header().Get("Content-Encoding") != "" || r.Method == http.MethodHead || v.Body.Len() == 0 {
		return v.ResponseRecorder
	}
	switch kind, _, _ := strings.Cut(v.Header().Get("Content-Type"), ";"); kind {
	case "application/json":
		if !json.Valid(v.Body.Bytes()) {
			t.Errorf("no JSON: %s", v.Body)
		}
	case "text/html":
		harmless(t, v.Body.Bytes())
	case "application/x-pcapng":
		if _, err := pcapgo.NewNgReader(bytes.NewReader(v.Body.Bytes()), pcapgo.DefaultNgReaderOptions); err != nil {
			t.Errorf("no capture: %v", err)
		}
	case "text/event-stream", "text/css", "text/javascript", "image/svg+xml", "text/plain":
	default:
		t.Errorf("%d of type %q: %.100q", v.Code, kind, v.Body)
	}
	return v.ResponseRecorder
}

// harmless asserts that a page runs and loads nothing but ours, and leads nowhere
// else but where our templates do.
func harmless(t *testing.T, page []byte) {
	if !utf8.Valid(page) {
		t.Errorf("no UTF-8: %q", page)
	}
	z := html.NewTokenizer(bytes.NewReader(page))
	for z.Next() != html.ErrorToken {
		token := z.Token()
		if token.Type != html.StartTagToken && token.Type != html.SelfClosingTagToken {
			continue
		}
		for _, a := range token.Attr {
			key, value := strings.ToLower(a.Key), strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(key, "on"), key == "style", key == "srcdoc", key == "formaction",
				key == "src" && !strings.HasPrefix(value, "/static/"),
				strings.HasSuffix(key, "href") && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#") &&
					!strings.HasPrefix(value, "?") && !strings.HasPrefix(value, "https://") && !strings.HasPrefix(value, "data:image/svg+xml,"):
				t.Errorf("<%s %s=%q>", token.Data, a.Key, a.Val)
			}
		}
		if token.Data == "script" && !strings.Contains(token.String(), ` src="/static/`) {
			t.Errorf("%s", token)
		}
		switch token.Data {
		case "iframe", "object", "embed", "base", "frame", "applet":
			t.Errorf("<%s>", token.Data)
		}
	}
	if err := z.Err(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// FuzzRequest makes any request of the pages and the API. Whatever it asks, the answer
// is no fault of ours, is what its type says, and shows nothing of the request that a
// browser would run.
func FuzzRequest(f *testing.F) {
	for _, seed := range []struct{ method, uri, headers string }{
		{"GET", "/", ""}, {"GET", "/?q=site%3D%22fra+2%22&state=down&sort=-loss&group=site&page=2&limit=3", "Accept-Encoding: gzip"},
		{"GET", "/?q=%3Cscript%3E&group=%22%3E%3Cb&sort=state", ""}, {"HEAD", "/events?page=1", ""}, {"GET", "/events?q=x", ""},
		{"GET", "/targets/a000000000000000", ""}, {"GET", "/targets/a000000000000001?number=1", ""}, {"GET", "/targets/a0000000000000", ""},
		{"POST", "/targets/a000000000000000/probe", "Sec-Fetch-Site: same-origin"},
		{"POST", "/targets/a000000000000001/probe", "Origin: http://probed.test:10965\r\nAccept: application/json"},
		{"POST", "/targets/%2e%2e/probe", "Origin: null"}, {"GET", "//evil.test/..//targets", ""},
		{"GET", "/api/v1/targets?limit=1000&page=9", ""}, {"GET", "/api/v1/targets/a000000000000000", ""},
		{"GET", "/api/v1/targets/a000000000000000/samples", ""}, {"GET", "/api/v1/targets/a000000000000002/transcripts?failed=true", ""},
		{"GET", "/api/v1/targets/a000000000000000/capture.pcapng?failed=false&number=3", ""}, {"DELETE", "/api/v1/", ""},
		{"GET", "/static/list.js?v=1", "If-None-Match: \"x\"\r\nRange: bytes=0-1"}, {"GET", "/static/..%2flist.js", ""}, {"OPTIONS", "*", ""},
		{"CONNECT", "probed.test:443", ""}, {"GET", "http://other.test/%00%ff?q=%ff%fe&page=99999999999999999999", ""},
	} {
		f.Add(seed.method, seed.uri, seed.headers)
	}
	w := newWorld(f)
	now := time.Unix(1_800_000_000, 0)
	w.clock = func() time.Time { return now }
	for i, address := range []string{"a.example.net:443", "<script>alert(1)</script>:1", "\"'><img src=x onerror=y>\x00\xff:2", "javascript:alert(1)"} {
		tgt := w.add(Target{Address: address, Job: address, Module: address, Flows: 1 + i*2, OneAtATime: i == 3, Labels: []Label{{"site", address}, {"n", "x"}}})
		for _, o := range []outcome{{rtt: time.Millisecond}, {}, {refused: true, rtt: time.Second}, {discard: probe.DiscardTapDrop}, {rtt: time.Millisecond, mss: 1}} {
			w.probe(tgt, o)
		}
	}
	h := w.handler(f)
	f.Fuzz(func(t *testing.T, method, uri, headers string) {
		raw := method + " " + uri + " HTTP/1.1\r\nHost: probed.test:10965\r\n" + headers + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return // net/http answers 400 by itself
		}
		now = now.Add(10 * time.Second)
		visits(t, h, r)
	})
}

// FuzzConversation has a target's page, its API and its drawings show a conversation
// that any octets make up: what peers send is what they show.
func FuzzConversation(f *testing.F) {
	f.Add(false, []byte{0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x12, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 60, 0, 0, 4, 2, 4, 5, 0xb4})
	f.Add(true, []byte{2, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x12, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 60, 0, 0, 0, 0x60, 0x11})
	f.Add(false, bytes.Repeat([]byte{3, 0x21, 0x18, 0, 0, 0, 0, 1, 0, 9, 9, 60, 0, 0, 0}, 45))
	f.Add(true, []byte{1, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x58, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	w := newWorld(f)
	now := time.Unix(1_800_000_000, 0)
	w.clock = func() time.Time { return now }
	h := w.handler(f)
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		if len(b) > 700 {
			return // as many steps as are kept; a drawing of them takes a tenth of a second
		}
		tuple := probe.FourTuple{Local: netip.MustParseAddrPort("198.18.0.1:61000"), Remote: netip.MustParseAddrPort("198.18.0.2:443")}
		if v6 {
			tuple = probe.FourTuple{Local: netip.MustParseAddrPort("[2001:db8::1]:61000"), Remote: netip.MustParseAddrPort("[2001:db8::2]:443")}
		}
		tr := script.FromOctets(tuple, b, wire.ParseOptions)
		w.mu.Lock()
		w.targets, w.byID = nil, make(map[string]int)
		w.mu.Unlock()
		now = now.Add(10 * time.Second)
		w.metrics = newWorld(t).metrics
		tgt := w.add(Target{Address: "a:1", Kind: tr.Kind, Remote: tuple.Remote})
		tgt.Recorder.Settled(&tr)
		for _, path := range []string{"/targets/" + tgt.ID, "/api/v1/targets/" + tgt.ID + "/transcripts", "/api/v1/targets/" + tgt.ID} {
			r := httptest.NewRequest("GET", "http://probed.test:10965"+path, nil)
			a := visits(t, h, r)
			if a.Code != http.StatusOK {
				t.Errorf("%s: %d %s", path, a.Code, a.Body)
			}
			drawings(t, a.Body.Bytes())
		}
	})
}

// drawings asserts that every SVG of a page is whole XML, with no number that is none.
func drawings(t *testing.T, page []byte) {
	for {
		_, from, ok := bytes.Cut(page, []byte("<svg"))
		if !ok {
			return
		}
		drawing, rest, ok := bytes.Cut(from, []byte("</svg>"))
		if !ok {
			t.Errorf("a drawing does not end: %q", from)
			return
		}
		page = rest
		drawing = append(append([]byte("<svg"), drawing...), "</svg>"...)
		if bytes.Contains(drawing, []byte("NaN")) || bytes.Contains(drawing, []byte("Inf")) {
			t.Errorf("no number: %s", drawing)
		}
		d := xml.NewDecoder(bytes.NewReader(drawing))
		d.Entity = xml.HTMLEntity
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%v in %s", err, drawing)
				break
			}
		}
	}
}
