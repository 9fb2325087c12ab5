package discovery

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"

	sd "github.com/prometheus/prometheus/discovery"
	sdhttp "github.com/prometheus/prometheus/discovery/http"

	"github.com/probed/probed/internal/memory"
)

// What an answer takes while it is read and its targets are checked, in octets.
const (
	perOctet  = 6    // which Prometheus's library has several times over
	perTarget = 1000 // a map for its one label, among others
	perGroup  = 1000
	perLabel  = 100
	atOnce    = 1 << 20 // set aside at a time
)

// bound has a discoverer's web client read no answer that there is no memory for. The
// library keeps the client to itself, and has no other way to see an answer that came by TLS.
func bound(d sd.Discoverer, b *memory.Budget) error {
	web, is := d.(*sdhttp.Discovery)
	if !is {
		return nil
	}
	field := reflect.ValueOf(web).Elem().FieldByName("client")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*http.Client]() {
		return errors.New("this version of Prometheus's library has another web client")
	}
	client := (*http.Client)(field.UnsafePointer())
	client.Transport = &boundedClient{client.Transport, b}
	return nil
}

type boundedClient struct {
	http.RoundTripper
	budget *memory.Budget
}

// RoundTrip implements http.RoundTripper.
func (c *boundedClient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &answer{ReadCloser: resp.Body, budget: c.budget, release: func() {}}
	}
	return resp, err
}

// An answer is one that is being read. The library closes it once it has made targets
// of it.
type answer struct {
	io.ReadCloser
	budget  *memory.Budget
	release func()
	cost    int64
	most    int64 // set aside
	err     error

	quoted, escaped bool
	depth           int
	targets         bool // inside an array of strings of a group
}

// Read implements io.Reader.
func (a *answer) Read(b []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.ReadCloser.Read(b)
	for _, c := range b[:n] {
		a.count(c)
	}
	if a.cost > a.most {
		a.release()
		a.most = a.cost + atOnce
		release, err := a.budget.Reserve(a.most)
		if err != nil {
			a.release, a.err = func() {}, fmt.Errorf("the answer is too large: %w", err)
			return 0, a.err
		}
		a.release = release
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	a.release()
	return a.ReadCloser.Close()
}

// count adds what an octet of the JSON will take: [{"targets": ["a:1"], "labels": {"k": "v"}}].
func (a *answer) count(c byte) {
	a.cost += perOctet
	switch {
	case a.escaped:
		a.escaped = false
	case a.quoted:
		a.escaped = c == '\\'
		a.quoted = c != '"'
	case c == '"':
		a.quoted = true
	case c == '[', c == '{':
		a.depth++
		if a.depth == 3 {
			a.targets = c == '['
		}
		a.element()
	case c == ']', c == '}':
		a.depth--
	case c == ',':
		a.element()
	}
}

// element counts what begins now.
func (a *answer) element() {
	switch {
	case a.depth == 1:
		a.cost += perGroup
	case a.depth == 3 && a.targets:
		a.cost += perTarget
	case a.depth == 3:
		a.cost += perLabel
	}
}
