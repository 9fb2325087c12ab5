package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/crypto/bcrypt"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/lab"
	"github.com/probed/probed/internal/targets"
	"github.com/probed/probed/metrics"
)

func TestPages(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	p, file := reloadable(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80", "[::1]:80"))
	p.awaitProbes("127.0.0.1:80", 3)
	for _, r := range []struct {
		method, path string
		code         int
		body         string // is in it
	}{
		{"GET", "/", 200, `href="/metrics"`},
		{"GET", "/metrics", 200, "probed_handshake_rtt_seconds_bucket"},
		{"GET", "/-/healthy", 200, "probed is healthy.\n"},
		{"GET", "/-/ready", 200, "probed is ready.\n"},
		{"HEAD", "/-/ready", 200, ""},
		{"GET", "/config", 200, "127.0.0.1:80"},
		{"POST", "/-/reload", 200, "configuration reloaded\n"},
		{"GET", "/debug/pprof/", 200, "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "engine.(*Shard).Run"},
		{"GET", "/debug/pprof/cmdline", 200, "--config.file"},
		{"GET", "/nowhere", 404, "404 page not found"},
		{"GET", "/metrics/more", 404, "404 page not found"},
		{"GET", "/-/reload", 405, "Method Not Allowed"},
		{"PUT", "/-/reload", 405, "Method Not Allowed"},
		{"POST", "/metrics", 405, "Method Not Allowed"},
		{"DELETE", "/config", 405, "Method Not Allowed"},
		{"POST", "/", 405, "Method Not Allowed"},
		{"GET", "//etc/passwd", 404, "404 page not found"},
	} {
		code, body := p.do(r.method, r.path)
		if code != r.code || !strings.Contains(body, r.body) {
			t.Errorf("%s %s: %d, want %d and %q in\n%.400s", r.method, r.path, code, r.code, r.body, body)
		}
	}

	// /config is the configuration: what it shows, read back, is the same.
	want, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	_, shown := p.do("GET", "/config")
	got, err := config.Parse("/config", []byte(shown))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("/config read back: %v\n%s", err, shown)
	}
}

// TestMetricsAtTheRoot has the metrics take the place of the list.
func TestMetricsAtTheRoot(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	p := start(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80"), withArgs("--web.telemetry-path=/"))
	for path, want := range map[string]int{"/": 200, "/api/v1/targets": 200, "/nowhere": 404, "/-/ready": 200} {
		if code, body := p.do("GET", path); code != want || path == "/" && !strings.Contains(body, "probed_build_info") {
			t.Errorf("%s: %d %.100s", path, code, body)
		}
	}
}

// TestProtobuf scrapes as Prometheus does, and finds native histograms that
// agree with the classic ones of the text.
func TestProtobuf(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	p := start(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80"))
	p.awaitProbes("127.0.0.1:80", 20)
	req, err := http.NewRequestWithContext(t.Context(), "GET", p.base+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	resp, err := p.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	families := make(scrape)
	decoder := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header))
	for {
		f := new(dto.MetricFamily)
		if err := decoder.Decode(f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", resp.Header.Get("Content-Type"), err)
		}
		families[f.GetName()] = f
	}
	found := families.find("probed_handshake_rtt_seconds", labels{"target": "127.0.0.1:80"})
	if len(found) != 1 {
		t.Fatalf("%d histograms", len(found))
	}
	m := found[0].GetHistogram()
	var native, delta int64
	for _, d := range m.GetPositiveDelta() {
		delta += d
		native += delta
	}
	native += int64(m.GetZeroCount())
	buckets := m.GetBucket()
	if m.GetSampleCount() < 20 || uint64(native) != m.GetSampleCount() || len(buckets) == 0 || m.Schema == nil {
		t.Errorf("%d samples, %d in native buckets of schema %d, %d classic buckets",
			m.GetSampleCount(), native, m.GetSchema(), len(buckets))
	}
	if families["go_goroutines"] == nil || families["process_cpu_seconds_total"] == nil {
		t.Error("the runtime's and the process's own metrics are missing")
	}
}

// TestReadyHandler shows what a client sees before probing and while it ends,
// which is too short to be caught from outside.
func TestReadyHandler(t *testing.T) {
	t.Parallel()
	var d daemon
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		d.serveReady(w, httptest.NewRequest("GET", "/-/ready", nil))
		return w.Code, w.Body.String()
	}
	if code, body := ask(); code != 503 || body != "probed is not ready.\n" {
		t.Errorf("not ready: %d %q", code, body)
	}
	d.ready.Store(true)
	if code, body := ask(); code != 200 || body != "probed is ready.\n" {
		t.Errorf("ready: %d %q", code, body)
	}
}

// TestManyDoors listens on several addresses, with TLS and basic auth, and has
// the metrics elsewhere.
func TestManyDoors(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	dir := t.TempDir()
	certificate, key := selfSigned(t)
	write(t, filepath.Join(dir, "cert.pem"), certificate)
	write(t, filepath.Join(dir, "key.pem"), key)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(dir, "web.yml")
	write(t, web, fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {prometheus: %q}\n", hash))
	p := launch(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80"), withArgs("--web.config.file="+web,
		"--web.listen-address=127.0.0.1:10965", "--web.listen-address=[::1]:10966", "--web.telemetry-path=/m/etrics"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	p.http.Transport = &http.Transport{
		DialContext:     dialer(h),
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Proxy:           nil,
	}
	get := func(url, user, password string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := p.http.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, base := range []string{"https://127.0.0.1:10965", "https://[::1]:10966"} {
		lab.Eventually(t, 10*time.Second, func() error {
			if code, body := get(base+"/-/ready", "prometheus", "secret"); code != 200 {
				return fmt.Errorf("%d %s\n%s", code, body, p.said())
			}
			return nil
		})
		if code, body := get(base+"/m/etrics", "prometheus", "secret"); code != 200 || len(parseMetrics(t, body)) == 0 {
			t.Errorf("%s: metrics: %d", base, code)
		}
		if code, _ := get(base+"/metrics", "prometheus", "secret"); code != 404 {
			t.Errorf("%s: the metrics' usual path: %d", base, code)
		}
		if _, body := get(base+"/", "prometheus", "secret"); !strings.Contains(body, "m/etrics") {
			t.Errorf("%s: the landing page does not link to the metrics:\n%s", base, body)
		}
		for _, path := range []string{"/", "/m/etrics", "/config", "/-/ready", "/debug/pprof/"} {
			for _, user := range []string{"", "prometheus"} {
				if code, _ := get(base+path, user, "wrong"); code != 401 {
					t.Errorf("%s%s as %q with a wrong password: %d", base, path, user, code)
				}
			}
		}
		if code, _ := get(strings.Replace(base, "https", "http", 1)+"/m/etrics", "prometheus", "secret"); code == 200 {
			t.Errorf("%s answers without TLS", base)
		}
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestAllowedHosts has probed answer to one name only, and to addresses.
func TestAllowedHosts(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	h.Listen("tcp", "[::]:80")
	p := start(t, h, simpleConfig("20ms", "10ms", "127.0.0.1:80"), withArgs("--web.allowed-host=probed.example.net"))
	for host, want := range map[string]int{"probed.example.net:10965": 200, "127.0.0.1:10965": 200, "rebound.example.org:10965": 421} {
		for _, path := range []string{"/", "/metrics", "/api/v1/targets", "/-/ready"} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", p.base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := p.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want || resp.Header.Get("X-Frame-Options") != "DENY" {
				t.Errorf("%s%s: %s, X-Frame-Options %q", host, path, resp.Status, resp.Header.Get("X-Frame-Options"))
			}
		}
	}
	p = launch(t, lab.NewHost(t, "b"), simpleConfig("20ms", "10ms", "127.0.0.1:80"), withArgs("--web.allowed-host=http://probed"))
	if code := p.end(10 * time.Second); code != 1 || !strings.Contains(p.said(), "probed: --web.allowed-host=http://probed: not a name without a port") {
		t.Errorf("exit code %d\n%s", code, p.said())
	}
}

// selfSigned makes a certificate for the loopback addresses.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "probed"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// TestEmbeddedDefault starts probed with nothing at all: it probes its own
// listener.
func TestEmbeddedDefault(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	p := launchFile(t, h, "", withoutConfig, withArgs("--web.listen-address=:10977"))
	p.base = "http://127.0.0.1:10977"
	p.awaitReady()
	var s scrape
	lab.Eventually(t, 15*time.Second, func() error {
		s = p.scrape()
		for _, target := range []string{"127.0.0.1:10977", "[::1]:10977"} {
			if n := s.sum("probed_handshake_rtt_seconds", labels{"target": target}); n < 2 {
				return fmt.Errorf("%s: %v handshakes", target, n)
			}
		}
		for _, name := range []string{"probed_fin_ack_rtt_seconds", "probed_last_ack_rtt_seconds", "probed_time_wait_reuse_rtt_seconds"} {
			if n := s.sum(name, nil); n < 1 {
				return fmt.Errorf("%s: %v samples", name, n)
			}
		}
		return nil
	})
	if got := s.targets(); !slices.Equal(got, []string{"127.0.0.1:10977", "[::1]:10977"}) {
		t.Errorf("targets %v", got)
	}
	if !strings.Contains(p.said(), "no configuration file") || !strings.Contains(p.said(), "looked_for=/etc/probed/probed.yml") {
		t.Errorf("did not say that there is no file:\n%s", p.said())
	}
	if code, body := p.do("POST", "/-/reload"); code != 200 {
		t.Errorf("reload: %d %s", code, body)
	}
	if code := stop(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What concerns no path has the guard before it too.
func TestGuardBeforeOptions(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	p := start(t, h, "jobs: []\n")
	c, err := dialer(h)(t.Context(), "tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: probed\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
}

// Where there are no passwords, what a client sends to a proxy before us, another at each
// request as by Negotiate or Digest, is no guess.
func TestNoPasswordsToGuess(t *testing.T) {
	t.Parallel()
	p := start(t, lab.NewHost(t, "a"), "jobs: []\n")
	for i := range 3 * guessesAtOnce {
		r, err := http.NewRequestWithContext(t.Context(), "GET", p.base+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", fmt.Sprintf("Negotiate token%d", i))
		resp, err := p.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d: %s", i, resp.Status)
		}
	}
}

// webDaemon is as much of a daemon as its web server needs.
func webDaemon(t *testing.T) *daemon {
	t.Helper()
	c, err := config.Parse("/config", []byte("jobs:\n- {name: a, targets: ['198.18.0.1:80']}\n"))
	if err != nil {
		t.Fatal(err)
	}
	log, m := slog.New(slog.DiscardHandler), metrics.New(metrics.Options{})
	return &daemon{
		config: c, log: log, metrics: m, roster: targets.New(nil, m, nil, log), metricsPath: "/metrics",
		web:     &web.FlagConfig{WebConfigFile: new(string), WebListenAddresses: new([]string), WebSystemdSocket: new(bool)},
		callers: newCrowd(mostConnections, time.Now),
	}
}

// The configuration and what the pages need are made while no page is.
func TestConfigInTurn(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/config", "/static/list.js", "/targets/1", "/api/v1/targets"} {
		making, end := make(chan struct{}), make(chan struct{})
		routes := webDaemon(t).routes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				close(making)
				<-end
			}
			_, _ = io.WriteString(w, "made")
		}))
		go routes.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		<-making
		answer, answered := httptest.NewRecorder(), make(chan struct{})
		go func() {
			defer close(answered)
			routes.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		}()
		select {
		case <-answered:
			t.Errorf("%s: made beside a page", path)
		case <-time.After(50 * time.Millisecond):
		}
		close(end)
		<-answered
		if answer.Code != http.StatusOK || answer.Body.Len() == 0 {
			t.Errorf("%s: %d %q", path, answer.Code, answer.Body)
		}
	}
}

// A server speaks HTTP/1.1 alone, also where its configuration asks for HTTP/2, and its
// connections are in the crowd.
func TestServer(t *testing.T) {
	t.Parallel()
	d := webDaemon(t)
	certificate, key := selfSigned(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cert.pem"), certificate)
	write(t, filepath.Join(dir, "key.pem"), key)
	*d.web.WebConfigFile = filepath.Join(dir, "web.yml")
	write(t, *d.web.WebConfigFile, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nhttp_server_config: {http2: true}\n")
	servers, err := d.servers(1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.serveWeb(servers[0], l) }()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + l.Addr().String() + "/config")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	d.callers.mu.Lock()
	if n := len(d.callers.guests); n != 1 || resp.Proto != "HTTP/1.1" {
		t.Errorf("%d connections, %s", n, resp.Proto)
	}
	d.callers.mu.Unlock()
	if c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err == nil {
		_ = c.Close()
		t.Error("it agrees to HTTP/2")
	}
	shutdown(servers)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// What the listeners accept has the buffers that were said to them.
func TestNarrow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := narrow([]net.Listener{l}, 32<<10); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	raw, err := in.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent, received int
	if err := raw.Control(func(fd uintptr) {
		sent, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		received, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	}); err != nil {
		t.Fatal(err)
	}
	if sent != 24<<10 || received != 8<<10 {
		t.Errorf("buffers of %d and %d octets", sent, received)
	}
}
