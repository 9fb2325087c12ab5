package status

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	devtools "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/gopacket/gopacket/pcapgo"
)

// The button on a target's page downloads a capture, whatever the target is called.
func TestBrowserCaptureDownload(t *testing.T) {
	b := launch(t)
	w := newWorld(t)
	tgt := w.add(Target{Address: "../../<b>\"db\".test\u202e:5432"})
	w.probe(tgt, outcome{rtt: time.Millisecond})
	w.probe(tgt, outcome{})
	s := w.serve(t)
	p := b.tab(t)
	folder := t.TempDir()
	if _, err := chromedp.CallBrowser(p.ctx, devtools.SetDownloadBehavior, devtools.SetDownloadBehaviorParams{
		Behavior: devtools.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder,
	}); err != nil {
		t.Fatal(err)
	}
	p.open(s.URL, "/targets/"+tgt.ID)
	p.run(chromedp.Click("#capture"))
	var path string
	for begun := time.Now(); path == ""; time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatal("nothing was downloaded")
		}
		found, err := filepath.Glob(filepath.Join(folder, "*.pcapng"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			path = found[0]
		}
	}
	if name := filepath.Base(path); !strings.HasPrefix(name, "probed-.._.._") {
		t.Errorf("the file is called %q", name)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	packets := 0
	for {
		if _, _, err := r.ReadPacketData(); err != nil {
			break
		}
		packets++
	}
	if packets != 4 { // SYN, SYN-ACK, RST; SYN
		t.Errorf("%d packets", packets)
	}
}
