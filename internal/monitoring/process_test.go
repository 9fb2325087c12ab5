package monitoring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/lab"
)

// A server is a program with HTTP that runs inside a host of the laboratory.
type server struct {
	t     *testing.T
	cmd   *lab.Cmd
	base  string // of its URLs, from inside the host
	http  *http.Client
	ended chan struct{}
	said  lab.Output
}

// start runs a program inside a host and waits until it says that it is ready.
func start(t *testing.T, h *lab.Host, address, program string, args ...string) *server {
	t.Helper()
	s := &server{
		t: t, base: "http://" + address, ended: make(chan struct{}),
		http: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				return h.Dial(network, addr, 5*time.Second)
			},
		}},
	}
	t.Cleanup(s.http.CloseIdleConnections)
	s.cmd = h.Command(context.WithoutCancel(t.Context()), program, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("kill %s: %v", program, err)
		}
		<-s.ended
		if t.Failed() {
			t.Logf("%s said:\n%s", program, s.said.String())
		}
	})
	lab.Eventually(t, 30*time.Second, func() error {
		select {
		case <-s.ended:
			t.Fatalf("%s has ended", program)
		default:
		}
		_, err := s.get("/-/ready")
		return err
	})
	return s
}

// get returns what is at a path.
func (s *server) get(path string) ([]byte, error) {
	resp, err := s.http.Get(s.base + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, nil
}

// api asks Prometheus's HTTP API and reads the answer's data.
func (s *server) api(path string, parameters url.Values, data any) error {
	body, err := s.get("/api/v1/" + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	answer := struct{ Data any }{data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// tool returns the path of a program that an environment variable names, or that
// is in PATH.
func tool(t *testing.T, name string) string {
	t.Helper()
	program := os.Getenv(strings.ToUpper(name))
	if program == "" {
		program = name
	}
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("this test needs %s, in PATH or named by %s: %v", name, strings.ToUpper(name), err)
	}
	return path
}

// buildProbed builds the daemon.
func buildProbed(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probed")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/probed").CombinedOutput()
	if err != nil {
		t.Fatalf("build probed: %v\n%s", err, out)
	}
	return program
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
