package status

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// edge is a world such as one has it: three sites, some targets in trouble.
func edge(t testing.TB) *world {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"db", "cache", "api", "web", "queue", "ldap", "smtp", "git"}
	for i := range 40 {
		site := []string{"ams1", "fra2", "nyc3"}[i%3]
		name := names[i%len(names)]
		tgt := w.add(Target{
			Address: fmt.Sprintf("%s-%02d.%s.example.net:443", name, i, site),
			Job:     []string{"edge", "core"}[i%2],
			Labels:  []Label{{"site", site}, {"team", []string{"storage", "network", "web"}[i%3]}},
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

func TestBrowserPictures(t *testing.T) {
	b := launch(t)
	s := edge(t).serve(t)
	p := b.tab(t)
	p.size(1440, 900)
	p.open(s.URL, "/")
	p.wait(`document.querySelector("#live").dataset.state === "live"`)
	p.screenshot("list-light")
	p.dark(true)
	p.screenshot("list-dark")
	p.dark(false)
	p.open(s.URL, "/?group=site&sort=-p99")
	p.screenshot("list-grouped")
	p.size(390, 844)
	p.open(s.URL, "/")
	p.fits()
	p.screenshot("list-phone")
}
