package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/probed/probed/internal/lab"
)

// dialer starts the loop around net.Dialer: this program under another name.
func (w *world) dialer(h *lab.Host, core int, args ...string) *lab.Cmd {
	w.t.Helper()
	return w.self(asDialer, h, core, args...)
}

// self is this program in one of its other roles.
func (w *world) self(role string, h *lab.Host, core int, args ...string) *lab.Cmd {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.command(core, h, self, args...)
	cmd.Env = append(os.Environ(), as+"="+role)
	return cmd
}

// blackbox starts blackbox_exporter with the one module that connects and closes.
func (w *world) blackbox(core int) *lab.Cmd {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "blackbox.yml")
	text := "modules: {tcp_connect: {prober: tcp, timeout: 900ms, tcp: {preferred_ip_protocol: ip4}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return w.command(core, w.here, "prometheus-blackbox-exporter", "--config.file="+file, "--web.listen-address=127.0.0.1:9115",
		"--log.level=error")
}

func blackboxURL(to string) string {
	return "http://127.0.0.1:9115/probe?module=tcp_connect&target=" + to
}

// smokeping starts smokeping_prober, which pings hosts once a second.
func (w *world) smokeping(core, n int) *lab.Cmd {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "smokeping.yml")
	if err := os.WriteFile(file, []byte("targets: []\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	args := []string{"--privileged", "--config.file=" + file, "--web.listen-address=127.0.0.1:9374", "--log.level=error"}
	for i := range n {
		args = append(args, target(i+1).String())
	}
	return w.command(core, w.here, "prometheus-smokeping-prober", args...)
}

// drive asks blackbox_exporter for a probe of each of n targets in turn, so that
// each is probed once every interval, as Prometheus does with a scrape of each; its
// cost is not the exporter's. What the exporter did of it, the targets' kernel counts.
func (w *world) drive(n int, interval time.Duration) {
	w.t.Helper()
	const workers = 32
	client := w.client(w.here, workers)
	ctx, cancel := context.WithCancel(w.t.Context())
	due := make(chan int, n)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range due {
				to := fmt.Sprintf("%s:%d", target(i), firstPort)
				_ = get(ctx, client, blackboxURL(to), func(r io.Reader) error {
					_, err := io.Copy(io.Discard, r)
					return err
				})
			}
		})
	}
	all.Go(func() {
		defer close(due)
		began := time.Now()
		for i := 0; ; i++ {
			time.Sleep(time.Until(began.Add(time.Duration(i) * interval / time.Duration(n))))
			select {
			case due <- i % n:
			case <-ctx.Done():
				return
			}
		}
	})
	w.t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}
