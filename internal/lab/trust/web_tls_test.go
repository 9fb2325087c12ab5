package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/probed/probed/internal/lab"
)

// webConfig writes a web configuration with TLS, and with a password of bcrypt's usual
// cost, where user 65534 may read it.
func webConfig(t *testing.T) (file string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "probed-web-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "probed"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "web.yml")
	for name, text := range map[string][]byte{
		filepath.Join(dir, "cert.pem"): pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		filepath.Join(dir, "key.pem"):  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		file:                           fmt.Appendf(nil, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {prometheus: %q}\n", hash),
	} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// withPassword adds one to every request.
type withPassword struct{ next *http.Transport }

func (p withPassword) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth("prometheus", "right")
	return p.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client's calls.
func (p withPassword) CloseIdleConnections() { p.next.CloseIdleConnections() }

// newTLSWorld is a web world with TLS and a password.
func newTLSWorld(t *testing.T) *webWorld {
	t.Helper()
	w := newWebWorld(t, withArgs("--web.config.file="+webConfig(t)))
	w.overTLS()
	w.ready()
	return w
}

// overTLS has its scrapes go by TLS, with the password.
func (w *webWorld) overTLS() {
	w.d.base = "https://127.0.0.1:10965"
	plain := w.d.http.Transport.(*http.Transport)
	plain.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	w.d.http.Transport = withPassword{plain}
}

// withoutPasswords is a file for --web.config.file with TLS alone.
func withoutPasswords(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(filepath.Dir(webConfig(t)), "tls.yml")
	if err := os.WriteFile(file, []byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// dialTLS connects from there.
func (w *webWorld) dialTLS() (*tls.Conn, error) {
	c, err := w.dial(0)
	if err != nil {
		return nil, err
	}
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := s.HandshakeContext(context.Background()); err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

// TestWebTLS attacks what TLS and passwords cost.
func TestWebTLS(t *testing.T) {
	t.Parallel()
	w := newTLSWorld(t)
	w.under("handshakes of TLS that never end", "connections", func() (int, string) {
		n := times(3000, 600)
		defer closeConns(w.hold(n, "\x16\x03\x01\x01\x00"))
		return n, ""
	})
	w.under("handshakes of TLS, one after the other", "connections", func() (int, string) {
		n := times(3000, 100)
		all(n, 4, func(int) {
			c, err := w.dialTLS()
			if err != nil {
				t.Errorf("TLS: %v", err)
				return
			}
			_ = c.NetConn().Close()
		})
		return n, ""
	})
	w.under("passwords by trial", "requests", func() (int, string) {
		var mu sync.Mutex
		codes := make(map[int]int)
		length := time.Duration(times(20, 2)) * time.Second
		began, cpu := time.Now(), lab.CPUTime(t, w.d.cmd.Process.Pid)
		var group sync.WaitGroup
		for n := range 8 {
			group.Go(func() {
				for i := 0; time.Since(began) < length; i++ {
					code := w.guess(fmt.Sprintf("%d wrong %d", n, i))
					mu.Lock()
					codes[code]++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		elapsed, cpu := time.Since(began), lab.CPUTime(t, w.d.cmd.Process.Pid)-cpu
		tried := 0
		for code, n := range codes {
			tried += n
			if code != 401 && code != 429 {
				t.Errorf("%d guesses were answered %d", n, code)
			}
		}
		if most := 10 + int(elapsed.Seconds()) + 2; codes[401] > most || codes[401] == 0 {
			t.Errorf("%d guesses were looked at in %v", codes[401], elapsed)
		}
		return tried, fmt.Sprintf("%d of them looked at, %.0f %% of a processor", codes[401], 100*cpu.Seconds()/elapsed.Seconds())
	})
	// What is let in by a password may have a profile from anywhere.
	for password, want := range map[string]int{"right": 200, "": 401} {
		if code := w.tlsGet("/debug/pprof/goroutine", password); code != want {
			t.Errorf("a profile with the password %q: %d", password, code)
		}
	}
}

// guess tries a password.
func (w *webWorld) guess(password string) int { return w.tlsGet("/metrics", password) }

// tlsGet makes a request from there.
func (w *webWorld) tlsGet(path, password string) int {
	c, err := w.dialTLS()
	if err != nil {
		w.t.Errorf("TLS: %v", err)
		return 0
	}
	defer c.Close()
	client := http.Client{Transport: &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return c, nil },
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://"+w.at+path, nil)
	if err != nil {
		w.t.Error(err)
		return 0
	}
	if password != "" {
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("prometheus:"+password)))
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Errorf("a guess: %v", err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
