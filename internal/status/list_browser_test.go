package status

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/probed/probed/internal/show"
)

const (
	wide, high   = 1440, 900
	phone, phigh = 390, 844
)

const (
	isLive = `document.querySelector("#live").dataset.state === "live"`
	// names are what the rows' links say, in order.
	names = `Array.from(document.querySelectorAll("tr[data-id] .c-target a"), (a) => a.textContent)`
)

// edge is a world such as one has it: three sites, some targets in trouble.
func edge(t testing.TB) *world {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"db", "cache", "api", "web", "queue", "ldap", "smtp", "git"}
	for i := range 40 {
		at := []string{"ams1", "fra2", "nyc3"}[i%3]
		tgt := w.add(Target{
			Address: fmt.Sprintf("%s-%02d.%s.example.net:443", kinds[i%len(kinds)], i, at),
			Job:     []string{"edge", "core"}[i%2],
			Labels:  []Label{{"site", at}, {"team", []string{"storage", "network", "web"}[i%3]}},
		})
		base := time.Duration(1+i%7*i%23) * time.Millisecond
		for n := range 256 {
			o := outcome{rtt: base + time.Duration(r.ExpFloat64()*float64(base)/5), ago: time.Duration(256-n) * time.Second}
			switch {
			case i == 7 && n > 230, i == 12 && n%50 == 3:
				o.rtt = 0
			case i == 21 && n > 250:
				o.refused = true
			case i == 33 && n == 255:
				o.discard = 1
			}
			if i != 39 {
				w.probe(tgt, o)
			}
		}
	}
	return w
}

// The list as it is seen: by day, by night, on a phone.
func TestBrowserListLooks(t *testing.T) {
	b := launch(t)
	s := edge(t).serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/")
	p.wait(isLive)
	if order := eval[[]string](p, names); len(order) != 40 || !strings.HasPrefix(order[0], "git-07.") || !strings.HasPrefix(order[1], "ldap-21.") {
		t.Errorf("the targets that are down don't come first: %.4q of %d", order, len(order))
	}
	p.screenshot("list-light")
	light := eval[string](p, `getComputedStyle(document.body).backgroundColor`)
	p.dark(true)
	p.screenshot("list-dark")
	if dark := eval[string](p, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("dark or light, the page is %s", dark)
	}
	p.dark(false)
	p.open(s.URL, "/?group=site&sort=-p99")
	p.screenshot("list-grouped")
	for _, width := range []int64{1280, 1101, 1100, 941, 940, 820, 600, 320} {
		p.size(width, high)
		p.fits()
		if width == 820 {
			p.screenshot("list-tablet")
		}
	}
	p.size(phone, phigh)
	for _, path := range []string{"/", "/?group=team", "/?q=nothing+at+all", "/no/such/page", "/?sort=sideways"} {
		if path != "/" && path[1] != '?' || strings.Contains(path, "sideways") {
			p.expect("Failed to load resource: the server responded with a status of 40")
		}
		p.open(s.URL, path)
		p.fits()
	}
	p.open(s.URL, "/")
	p.wait(isLive)
	p.screenshot("list-phone")
	p.dark(true)
	p.screenshot("list-phone-dark")
}

// Contrast is what WCAG 2 asks of text at level AA, in both schemes.
func TestBrowserListContrast(t *testing.T) {
	const lowest = `(() => {
		const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
		const rgb = (color, under) => {
			canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
			canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
			return Array.from(canvas.getImageData(0, 0, 1, 1).data).slice(0, 3);
		};
		const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
			.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
			.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
		const behind = (e) => {
			for (; e; e = e.parentElement) {
				const c = getComputedStyle(e).backgroundColor;
				if (c !== "rgba(0, 0, 0, 0)") return c;
			}
			return "white";
		};
		let worst = 21, where = "";
		const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (texts.nextNode()) {
			const e = texts.currentNode.parentElement;
			if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest(".skip, .visually-hidden, option")) continue;
			const style = getComputedStyle(e), under = behind(e), opacity = Number(style.opacity);
			const back = rgb(under, "white"), front = rgb(style.color, under).map((c, i) => c * opacity + back[i] * (1 - opacity));
			const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
			const ratio = (a + 0.05) / (b + 0.05);
			if (ratio < worst) { worst = ratio; where = e.tagName + "." + e.className + " " + texts.currentNode.data.trim().slice(0, 30); }
		}
		return worst.toFixed(2) + " " + where;
	})()`
	b := launch(t)
	s := edge(t).serve(t)
	p := b.tab(t)
	p.size(wide, high)
	for _, dark := range []bool{false, true} {
		p.dark(dark)
		p.open(s.URL, "/?group=site")
		p.wait(isLive)
		got := eval[string](p, lowest)
		var ratio float64
		if _, err := fmt.Sscan(got, &ratio); err != nil || ratio < 4.5 {
			t.Errorf("dark %v: the lowest contrast is %s, want 4.5", dark, got)
		}
	}
}

// Filter, sort and group work by their addresses and headers, with and without the
// page's script.
func TestBrowserListQueries(t *testing.T) {
	b := launch(t)
	s := edge(t).serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/")
	p.wait(isLive)

	p.run(chromedp.SendKeys("#q", "site=fra2 ldap"))
	p.wait(`document.querySelectorAll("tr[data-id]").length === 2 && location.search === "?q=site%3Dfra2+ldap"`)
	if !eval[bool](p, `document.activeElement.id === "q" && document.activeElement.value === "site=fra2 ldap"`) {
		t.Error("typing in the filter lost the focus or the text")
	}
	p.run(chromedp.Clear("#q"), chromedp.SendKeys("#q", "zzz"))
	p.wait(`document.querySelectorAll("tr[data-id]").length === 0 && document.body.innerText.includes("None of the 40 targets matches")`)

	p.open(s.URL, "/")
	p.run(chromedp.Click("th.c-p99 a"))
	p.wait(`document.querySelector("th.c-p99").getAttribute("aria-sort") === "descending"`)
	p.run(chromedp.Click("th.c-p99 a"))
	p.wait(`document.querySelector("th.c-p99").getAttribute("aria-sort") === "ascending"`)
	if !eval[bool](p, `(() => {
		const all = Array.from(document.querySelectorAll("td.c-p99"), (td) => td.textContent).filter(Boolean)
			.map((t) => parseFloat(t) * { "ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1 }[t.split(" ")[1]]);
		return all.length === 39 && all.every((v, i) => i === 0 || all[i - 1] <= v);
	})()`) {
		t.Error("sorted by p99, p99 does not rise")
	}
	p.run(chromedp.Click("th.c-target a"))
	p.wait(`document.querySelector("th.c-target").getAttribute("aria-sort") === "ascending"`)
	if order := eval[[]string](p, names); !slices.IsSorted(order) {
		t.Errorf("sorted by target: %q", order)
	}

	p.run(chromedp.SetValue("#group", "team"), chromedp.Evaluate[chromedp.Void](`document.querySelector("#group").dispatchEvent(new Event("input", { bubbles: true }))`))
	p.wait(`document.querySelectorAll("tr.group").length === 3`)
	groups := eval[[]string](p, `Array.from(document.querySelectorAll("tr.group"), (tr) => tr.innerText.trim())`)
	if len(groups) != 3 || !strings.HasPrefix(groups[0], "team: network") || !strings.Contains(groups[0], "13 targets, 1 down") {
		t.Errorf("groups %q", groups)
	}
	p.run(chromedp.Click(`.tab[data-state="down"]`))
	p.wait(`document.querySelectorAll("tr[data-id]").length === 2 && document.querySelectorAll("tr.group").length === 2`)

	// The same by the form alone.
	p.open(s.URL, "/?state=down")
	p.run(chromedp.Evaluate[chromedp.Void](`document.querySelector("#q").value = "refused-not", document.querySelector("#filter").submit()`))
	p.wait(`location.search.includes("q=refused-not") && location.search.includes("state=down")`)
}

// What is probed shows without a reload, in place, and is said.
func TestBrowserListLive(t *testing.T) {
	b := launch(t)
	w := edge(t)
	s := w.serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/?sort=target")
	p.wait(isLive)
	tgt, _ := w.Target(fmt.Sprintf("%016x", uint64(0xa000000000000000)))
	row := fmt.Sprintf(`document.querySelector('tr[data-id="%s"]')`, tgt.ID)
	p.run(chromedp.Evaluate[chromedp.Void](`window.same = ` + row + `, same.querySelector("a").focus()`))
	var slowest time.Duration
	for range 3 {
		for _, o := range []outcome{{}, {rtt: time.Millisecond}} {
			w.probe(&tgt, o)
			want := map[bool]string{true: "down", false: "up"}[o.rtt == 0]
			took := p.wait(row + `.querySelector(".state").textContent === "` + want + `"`)
			slowest = max(slowest, took)
			if said := `document.querySelector("#announce").textContent === "` + tgt.Address + ` is ` + want; want == "down" {
				p.wait(said + `: timeout"`)
				p.wait(row + `.querySelector("use").getAttribute("href") === "#shape-down"`)
				p.wait(row + `.querySelector(".reason").textContent === "timeout" && ` + row + `.querySelector("time").textContent !== ""`)
			} else {
				p.wait(said + `"`)
			}
		}
	}
	t.Logf("a probe showed within %v", slowest)
	if slowest > 2*time.Second {
		t.Errorf("a probe showed after %v, want 2 s", slowest)
	}
	if !eval[bool](p, `window.same.isConnected && document.activeElement === window.same.querySelector("a")`) {
		t.Error("the row was replaced, or lost the focus")
	}
	if eval[string](p, row+`.querySelector("td.c-loss").textContent`) == "0 %" {
		t.Error("lost probes, and a loss of 0 %")
	}
	if n := eval[string](p, `document.querySelector('[data-count="all"]').textContent`); n != "40" {
		t.Errorf("%s targets", n)
	}
}

// The order changes by itself while nobody is at it, and else when it is asked for.
func TestBrowserListOrder(t *testing.T) {
	b := launch(t)
	w := edge(t)
	s := w.serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/")
	p.wait(isLive)
	first := `document.querySelector("tr[data-id]").dataset.id`
	tgt, _ := w.Target(fmt.Sprintf("%016x", uint64(0xa000000000000000)))
	w.probe(&tgt, outcome{})
	p.wait(first + ` === "` + tgt.ID + `"`)

	p.run(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("tr[data-id] a")[5].focus()`))
	w.probe(&tgt, outcome{rtt: time.Millisecond})
	p.wait(`!document.querySelector("#stale").hidden`)
	if eval[string](p, first) != tgt.ID {
		t.Error("the order changed under the reader's hands")
	}
	p.screenshot("list-stale")
	p.run(chromedp.Click("#refresh"))
	p.wait(first + ` !== "` + tgt.ID + `" && document.querySelector("#stale").hidden`)
}

// A page that becomes empty says so, and its pager follows the number of targets.
func TestBrowserListEmpties(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	tgt := w.add(Target{Address: "web:443"})
	w.probe(tgt, outcome{})
	w.probe(w.add(Target{Address: "db:443"}), outcome{rtt: time.Millisecond})
	s := w.serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/?state=down")
	p.wait(isLive)
	p.wait(`document.querySelectorAll("tr[data-id]").length === 1`)
	w.probe(tgt, outcome{rtt: time.Millisecond})
	p.wait(`document.querySelectorAll("tr[data-id]").length === 0 && document.querySelector("#list").textContent.includes("None of the 2 targets matches")`)
	w.probe(tgt, outcome{})
	p.wait(`document.querySelectorAll("tr[data-id]").length === 1`)

	p.open(s.URL, "/?sort=config")
	p.wait(isLive)
	for i := range pageSize {
		w.probe(w.add(Target{Address: fmt.Sprintf("more-%d:443", i)}), outcome{rtt: time.Millisecond})
	}
	p.wait(`document.querySelector(".pager").textContent.includes("of 102") && document.querySelector(".pager [rel=next]") !== null`)
}

// A page says when it is not live, comes back by itself, and leaves the server
// alone while nobody sees it.
func TestBrowserListDisconnected(t *testing.T) {
	b := launch(t)
	w := edge(t)
	p := b.tab(t)
	p.expect("net::ERR_")
	p.size(wide, high)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	h := w.handler(t)
	run := func(l net.Listener) *http.Server {
		s := &http.Server{Handler: h}
		s.RegisterOnShutdown(h.Close)
		go func() { _ = s.Serve(l) }() // until it is shut down
		return s
	}
	s := run(l)
	p.open("http://"+address, "/")
	p.wait(isLive)

	p.run(chromedp.Evaluate[chromedp.Void](`Object.defineProperty(document, "hidden", { value: true, configurable: true }), document.dispatchEvent(new Event("visibilitychange"))`))
	p.wait(`document.querySelector("#live").textContent === "Paused"`)
	for begun := time.Now(); len(h.server.viewers) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatal("a hidden page keeps its stream")
		}
	}
	p.run(chromedp.Evaluate[chromedp.Void](`delete document.hidden, document.dispatchEvent(new Event("visibilitychange"))`))
	p.wait(isLive)

	begun := time.Now()
	go func() { _ = s.Shutdown(context.Background()) }() // it waits for connections that a browser opens beforehand
	for len(h.server.viewers) > 0 {
		if time.Since(begun) > time.Second {
			t.Fatal("the live stream holds the shutdown up")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.wait(`document.querySelector("#live").textContent.startsWith("Not live since ")`)
	p.screenshot("list-disconnected")
	h = w.handler(t)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	s = run(l)
	t.Cleanup(func() { s.Close() })
	p.wait(isLive)
}

// All of it can be reached with the keyboard, in the order in which it is read.
func TestBrowserListKeyboard(t *testing.T) {
	b := launch(t)
	s := edge(t).serve(t)
	p := b.tab(t)
	p.size(wide, high)
	p.open(s.URL, "/")
	p.wait(isLive)
	const at = `(() => {
		const e = document.activeElement;
		if (e.closest("tr[data-id]")) return "row";
		if (e.closest("thead")) return "header " + e.textContent;
		if (e.closest(".tab")) return "tab";
		return e.id || e.textContent.trim();
	})()`
	var order []string
	for range 40 {
		p.run(chromedp.KeyEvent(kb.Tab))
		what := eval[string](p, at)
		if len(order) == 0 || order[len(order)-1] != what {
			order = append(order, what)
		}
		if what == "row" {
			break
		}
		if outline := eval[string](p, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
			t.Errorf("the focus on %s is not to be seen", what)
		}
	}
	want := []string{"Skip to the content", "probed", "Targets", "Metrics", "Configuration", "tab", "q", "group",
		"header State", "header Target", "header Probe", "header Every", "header Loss", "header p50", "header p99", "header Last failure", "row"}
	if !slices.Equal(order, want) {
		t.Errorf("the tab key goes\n%q\nwant\n%q", order, want)
	}
	p.run(chromedp.KeyEvent(kb.Enter))
	p.wait(`location.pathname.startsWith("/targets/")`)
}

// Whatever a target, its labels or its job are called: it is shown as text.
func TestBrowserListHostile(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	long := strings.Repeat("very-long-name-", 14)
	hostile := []string{
		`<script>window.pwned = 1</script>`,
		`"><img src=x onerror="window.pwned = 2">`,
		`'><svg onload=window.pwned=3>`,
		`{{.Version}} ${window.pwned = 4} javascript:window.pwned=5`,
		"\x1b[31mred\x1b[0m \x07 \x00",
		"right \u202eto left\u202c",
		"数据库主节点东京一号", long, strings.Repeat("無", 60),
		`</style><style>*{display:none}</style>`, `]]>--><!--`,
	}
	for _, h := range hostile {
		tgt := w.add(Target{Address: h + ":443", Job: h, Module: h, Labels: []Label{{"site", h}, {"team", "x"}}})
		w.probe(tgt, outcome{rtt: time.Millisecond})
	}
	s := w.serve(t)
	p := b.tab(t)
	for _, width := range []int64{wide, phone} {
		p.size(width, high)
		for _, path := range []string{"/", "/?group=site", "/?q=%3Cscript%3Ewindow.pwned%3D9%3C%2Fscript%3E&group=%22%3E%3Cimg+src%3Dx+onerror%3Dwindow.pwned%3D8%3E", "/?q=site%3D%22" + "数据库主节点东京一号" + "%22"} {
			p.open(s.URL, path)
			p.wait(isLive)
			for i := range w.targets {
				w.probe(&w.targets[i], outcome{}) // so that the script writes as well
			}
			if path == "/" {
				p.wait(`document.querySelectorAll('.state[data-state="down"]').length === ` + fmt.Sprint(len(hostile)))
			}
			if eval[bool](p, injected) {
				t.Errorf("%s: something was injected", path)
			}
			p.fits()
		}
		p.open(s.URL, "/?sort=config")
		for i, name := range eval[[]string](p, names) {
			if want := show.SafeText(hostile[i]) + ":443"; name != want {
				t.Errorf("%q is shown as %q", want, name)
			}
		}
		p.screenshot(fmt.Sprintf("list-hostile-%d", width))
	}
}
