package status

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take for one thing on a busy machine. What is to
// be quick has a bound of its own.
const patience = 30 * time.Second

// screenshots is where a person finds the pictures.
const screenshots = "../../.cache/screenshots"

// A browser is Chromium without a window. It reaches loopback and nothing else.
type browser struct{ ctx context.Context }

func launch(t *testing.T) *browser {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("no Chromium: run 'make tools': %v", err)
	}
	options := append([]chromedp.ExecAllocatorOption{}, chromedp.DefaultExecAllocatorOptions[:]...)
	options = append(options,
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // it runs as root
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1440, 900),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Env("TZ=UTC"),
	)
	allocator, freed := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closed := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		// Cancel waits for the process's end, so that its folder can go.
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("closing Chromium: %v", err)
		}
		closed()
		freed()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return &browser{ctx}
}

// A tab is one of its pages. A test fails for whatever a tab complains of: errors
// and warnings on the console, breaches of the content security policy among them,
// uncaught exceptions, and addresses asked for that are not the server's.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	origin   string
	expected []string // complaints that a test provokes contain one of them
}

func (b *browser) tab(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser complains: %s", problem)
		}
	})
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, runtime.Enable, cdp.Empty{})
	return p
}

func (p *tab) listen(ev any) {
	switch ev := ev.(type) {
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			p.complain(fmt.Sprintf("%s: %s (%s)", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		p.complain(fmt.Sprintf("console.%s: %v", ev.Type, ev.Args))
	case *runtime.EventExceptionThrown:
		p.complain(fmt.Sprintf("exception: %s %+v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception))
	case *network.EventRequestWillBeSent:
		p.mu.Lock()
		origin := p.origin
		p.mu.Unlock()
		if u := ev.Request.URL; !strings.HasPrefix(u, origin+"/") && u != "about:blank" {
			p.complain("asked for " + u)
		}
	}
}

func (p *tab) complain(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.expected {
		if strings.Contains(text, e) {
			return
		}
	}
	p.problems = append(p.problems, text)
}

// expect has the tab ignore complaints that contain a text.
func (p *tab) expect(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, text)
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// call has the browser carry a command of its protocol out.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatalf("%s: %v", command.Method, err)
	}
	return r
}

// open goes to a page of a server.
func (p *tab) open(server, path string) {
	p.t.Helper()
	p.mu.Lock()
	p.origin = server
	p.mu.Unlock()
	p.run(chromedp.Navigate(server + path))
}

// eval evaluates an expression.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// wait waits until an expression is true, and returns how long that took. While one
// page gives way to the next it may fail.
func (p *tab) wait(expression string) time.Duration {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	begun := time.Now()
	for {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		switch {
		case is:
			return time.Since(begun)
		case ctx.Err() != nil:
			p.t.Fatalf("not within %v: %s (%v)\non: %.3000s", patience, expression, err, eval[string](p, "document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dark has pages take the reader for one who likes it dark, or light.
func (p *tab) dark(yes bool) {
	p.t.Helper()
	value := "light"
	if yes {
		value = "dark"
	}
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
	})
}

// size sets the window's, in CSS pixels.
func (p *tab) size(width, height int64) {
	p.t.Helper()
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500,
	})
}

// fits fails the test if the page is wider than its window.
func (p *tab) fits() {
	p.t.Helper()
	const widest = `(() => {
		const w = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= w) return "";
		const wide = Array.from(document.querySelectorAll("body *")).filter((e) => e.getBoundingClientRect().right > w + 1);
		return document.documentElement.scrollWidth + " > " + w + ": " + wide.slice(0, 5).map((e) => e.tagName + "." + e.getAttribute("class")).join(" ");
	})()`
	if too := eval[string](p, widest); too != "" {
		p.t.Errorf("the page scrolls sideways: %s", too)
	}
}

// screenshot takes a picture of what the window shows.
func (p *tab) screenshot(name string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.MkdirAll(screenshots, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screenshots, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// injected reports whether a script that was not ours has run, or could.
const injected = `window.pwned !== undefined || document.querySelector("img, iframe, body script, [onerror], [onload], [onclick], [style]") !== null`
