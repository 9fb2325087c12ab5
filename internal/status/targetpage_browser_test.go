package status

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/probe"
)

// troubled is a target over four flows, one of which loses, whose peer has changed.
func troubled(w *world) *Target {
	r := rand.New(rand.NewPCG(3, 4))
	tgt := w.add(Target{
		Address: "db-01.ams1.example.net:5432", Job: "edge", Flows: 4,
		Labels: []Label{{"site", "ams1"}, {"team", "storage"}},
	})
	for n := range 256 {
		o := outcome{rtt: 2*time.Millisecond + time.Duration(r.ExpFloat64()*4e5), ago: time.Duration(256-n) * time.Second}
		if n%4 == 2 {
			o.rtt += 6 * time.Millisecond
		}
		switch {
		case n%12 == 1:
			o.rtt = 0
		case n == 101 || n == 102:
			o.discard = probe.DiscardTapDrop
		case n > 180 && n < 186:
			o.refused = true
		}
		if n > 150 {
			o.mss = 1400
		}
		w.probe(tgt, o)
	}
	return tgt
}

// closing has a target of a kind that closes, with the conversations of scripts.
func closing(t testing.TB, w *world, address string, scripts ...string) *Target {
	tgt := w.add(Target{Address: address, Kind: probe.ActiveClose, Interval: 10 * time.Second})
	for _, name := range scripts {
		for _, p := range playTranscripts(t, name) {
			w.mu.Lock()
			w.number++
			p.tr.Number = w.number
			w.mu.Unlock()
			for _, f := range p.tr.Figures() {
				tgt.Metrics.Observe(&f.Observation)
			}
			tgt.Recorder.Settled(&p.tr)
		}
	}
	return tgt
}

// pressOn clicks on what a selector finds.
func pressOn(p *tab, selector string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf("document.querySelector(%q).click(), true", selector))
}

// fetched sends a request and returns the answer with its body.
func fetched(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(body)
}

// The target's page shows the ladder and the charts, light and dark, wide and narrow.
func TestBrowserTargetPage(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	first := troubled(w).ID
	second := closing(t, w, "web-01.ams1.example.net:443", "active_close_three_way", "active_close_simultaneous", "active_close_fin_missing",
		"active_close_half_close_data", "active_close_four_way").ID
	s := w.serve(t)
	p := b.tab(t)
	p.size(1440, 1000)
	p.open(s.URL, "/targets/"+second)
	p.wait(`document.querySelector("#live").dataset.state === "live"`)
	if n := eval[int](p, `document.querySelectorAll("#ladder .wide svg .lad-arrow").length`); n < 8 {
		t.Errorf("%d arrows", n)
	}
	if !eval[bool](p, `document.querySelector("#ladder .wide svg").getBoundingClientRect().width > 600`) {
		t.Error("the ladder is not seen")
	}
	for _, want := range []string{"SYN-SENT", "FIN, ACK seq=1 ack=1", "close_wait", "250 ms", "verdict: ok"} {
		if !eval[bool](p, fmt.Sprintf(`document.querySelector("#ladder .wide svg").textContent.includes(%q)`, want)) {
			t.Errorf("the ladder does not say %q", want)
		}
	}
	p.screenshot("target-ladder-light")
	p.dark(true)
	p.screenshot("target-ladder-dark")
	p.open(s.URL, "/targets/"+first)
	p.size(1440, 1640)
	p.screenshot("target-charts-dark")
	p.dark(false)
	eval[bool](p, `document.querySelectorAll("details").forEach((d) => { d.open = true }), true`)
	p.screenshot("target-charts-light")
	p.size(390, 844)
	p.fits()
	p.screenshot("target-phone")
	eval[bool](p, `document.querySelector("#over-time").scrollIntoView(), true`)
	p.screenshot("target-phone-charts")
	p.open(s.URL, "/targets/"+second)
	p.fits()
	eval[bool](p, `document.querySelector("#ladder").scrollIntoView(), true`)
	p.screenshot("target-phone-ladder")
	p.size(820, 1180)
	p.fits()
	p.screenshot("target-tablet")
}

// Tabs lead to the other conversations, by links alone.
func TestBrowserTargetTabs(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	id := closing(t, w, "web:443", "active_close_fin_missing", "active_close_three_way", "active_close_four_way").ID
	s := w.serve(t)
	p := b.tab(t)
	p.open(s.URL, "/targets/"+id)
	p.wait(`document.querySelector(".tab[aria-current]").textContent.includes("ok")`)
	pressOn(p, `#tabs .tabline:nth-child(2) a`)
	p.wait(`location.search.startsWith("?number=") && document.querySelector("#ladder .wide svg").textContent.includes("verdict: fin_missing")`)
	if n := eval[int](p, `document.querySelectorAll(".tab[aria-current]").length`); n != 2 {
		t.Errorf("%d tabs are current, of the two that lead there", n)
	}
	// What was chosen stays, also when it is not kept any more.
	tgt, _ := w.Target(id)
	for range 9 {
		w.probe(&tgt, outcome{})
	}
	p.wait(`!document.querySelector("#gone").hidden`)
	if !eval[bool](p, `document.querySelector("#ladder .wide svg").textContent.includes("verdict: fin_missing")`) {
		t.Error("the conversation that was chosen is gone from the page")
	}
}

// News arrive by themselves; what is open stays open and what has the focus keeps it.
func TestBrowserTargetLive(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	tgt := w.add(Target{Address: "web:443"})
	w.probe(tgt, outcome{rtt: 3 * time.Millisecond})
	s := w.serve(t)
	p := b.tab(t)
	p.open(s.URL, "/targets/"+tgt.ID)
	p.wait(`document.querySelector("#live").dataset.state === "live"`)
	eval[bool](p, `document.querySelector("#steps").open = true, document.querySelector("#steps summary").focus(), true`)
	w.probe(tgt, outcome{})
	p.wait(`document.querySelector("#state").textContent.includes("timeout")`)
	if !eval[bool](p, `document.querySelector("#ladder .wide svg").textContent.includes("verdict: timeout")`) {
		t.Error("the ladder is still the last one's")
	}
	if !eval[bool](p, `document.querySelector("#steps").open && document.activeElement.tagName === "SUMMARY"`) {
		t.Error("an update has closed the table, or taken the focus")
	}
	pressOn(p, "#pause")
	w.probe(tgt, outcome{rtt: 3 * time.Millisecond})
	time.Sleep(2500 * time.Millisecond) // longer than the page waits between two looks
	if eval[bool](p, `document.querySelector("#state").textContent.includes("ok")`) {
		t.Error("a paused page has changed")
	}
	pressOn(p, "#pause")
	p.wait(`document.querySelector("#state").textContent.includes("ok")`)
}

// One probe can be asked for; the page says what became of it.
func TestBrowserProbeNow(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	tgt := w.add(Target{Address: "web:443"})
	s := w.serve(t)
	p := b.tab(t)
	p.open(s.URL, "/targets/"+tgt.ID)
	p.wait(`document.querySelector("#ladder").textContent.includes("no probe yet")`)
	pressOn(p, "#run button")
	p.wait(`document.querySelector("#told").textContent.includes("ok, 3 ms")`)
	p.wait(`document.querySelector("#ladder .wide svg") !== null`)
	p.expect("429")
	pressOn(p, "#run button")
	pressOn(p, "#run button")
	p.wait(`document.querySelector("#told").textContent.includes("too often")`)
	if got := eval[string](p, `document.querySelector("#capture").getAttribute("href")`); got != "/api/v1/targets/"+tgt.ID+"/capture.pcapng" {
		t.Errorf("the capture is at %q", got)
	}
	size := eval[int](p, `(() => { const x = new XMLHttpRequest(); x.open("GET", document.querySelector("#capture").href, false); x.send(); return x.status === 200 ? x.responseText.length : -1; })()`)
	if size < 100 {
		t.Errorf("the capture has %d octets", size)
	}
}

// Nothing that comes from outside runs or changes the page.
func TestBrowserTargetHostile(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	const bad = `"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script></title>{{.}}` + "\u202e\x1b[31m"
	tgt := w.add(Target{Address: bad, Job: bad, Module: bad, Labels: []Label{{"x", bad}}, IP: bad})
	w.probe(tgt, outcome{rtt: time.Millisecond})
	s := w.serve(t)
	p := b.tab(t)
	p.open(s.URL, "/targets/"+tgt.ID)
	p.wait(`document.querySelector("#live").dataset.state === "live"`)
	if eval[bool](p, injected) {
		t.Error("a label has become a part of the page")
	}
	if !eval[bool](p, `document.querySelector("h1").textContent.includes("<script>")`) {
		t.Error("the name is not shown as it is")
	}
	if eval[bool](p, `/[\u0000-\u0008\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)`) {
		t.Error("control characters are on the page")
	}
	p.expect("400")
	p.open(s.URL, "/targets/"+tgt.ID+"?number=%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E")
	if eval[bool](p, injected) {
		t.Error("the query has become a part of the page")
	}
}

// The page is whole without a script, and is not sent again to who has it.
func TestTargetPageWithoutScript(t *testing.T) {
	w := newWorld(t)
	tgt := w.add(Target{Address: "web:443"})
	w.probe(tgt, outcome{rtt: time.Millisecond})
	w.probe(tgt, outcome{})
	s := w.serve(t)
	get := func(path, tag string) (*http.Response, string) {
		r, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		return fetched(t, r)
	}
	a, body := get("/targets/"+tgt.ID, "")
	for _, want := range []string{
		"verdict: timeout", `href="?number=1#ladder"`, `action="/targets/` + tgt.ID + `/probe"`, `<table class="steps">`,
		"USER TIMEOUT", `id="reload" href="/targets/` + tgt.ID + `"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	tag := a.Header.Get("ETag")
	if again, _ := get("/targets/"+tgt.ID, tag); again.StatusCode != http.StatusNotModified {
		t.Errorf("%d to who has the page", again.StatusCode)
	}
	w.probe(tgt, outcome{rtt: time.Millisecond})
	if again, _ := get("/targets/"+tgt.ID, tag); again.StatusCode != http.StatusOK {
		t.Errorf("%d with news", again.StatusCode)
	}
	if _, body := get("/targets/"+tgt.ID+"?number=2", ""); !strings.Contains(body, "verdict: timeout") {
		t.Error("not the conversation that was asked for")
	}
	if _, body := get("/targets/"+tgt.ID+"?number=99", ""); !strings.Contains(body, "Conversation 99 is not kept any more") {
		t.Error("a conversation that is gone is not said to be")
	}
	if a, _ := get("/targets/"+tgt.ID+"?number=x", ""); a.StatusCode != http.StatusBadRequest {
		t.Errorf("%d to a number that is none", a.StatusCode)
	}
	if a, _ := get("/targets/0000000000000000", ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("%d to a target that is none", a.StatusCode)
	}
}
