package bench

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/lab"
)

// client makes requests from inside a host, over connections that it keeps, as
// Prometheus does. It asks for what Prometheus asks for, compressed.
func (w *world) client(h *lab.Host, connections int) *http.Client {
	w.t.Helper()
	transport := &http.Transport{
		DisableCompression:  true, // whoever wants to read it uncompresses it
		MaxIdleConnsPerHost: connections,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return h.Dial(network, addr, 5*time.Second)
		},
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: time.Minute, Transport: transport}
}

// accept is what Debian's Prometheus sends: OpenMetrics, or the text before it.
const accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75," +
	"text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

// get reads a URL and hands its uncompressed body to read; nil reads it compressed
// and throws it away.
func get(ctx context.Context, client *http.Client, url string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	var body io.Reader = resp.Body
	if read == nil {
		_, err = io.Copy(io.Discard, body)
		return err
	}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	return read(body)
}

// A sample is a line of an exposition.
type sample struct {
	name, labels string // labels without their braces
	value        float64
}

// samples reads an exposition's samples, without their times and exemplars.
func samples(r io.Reader, each func(sample)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		s, ok, err := parseSample(lines.Text())
		if err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if ok {
			each(s)
		}
	}
	return lines.Err()
}

func parseSample(line string) (s sample, ok bool, err error) {
	if line == "" || line[0] == '#' {
		return sample{}, false, nil
	}
	end := strings.IndexAny(line, "{ ")
	if end < 0 {
		return sample{}, false, fmt.Errorf("no value")
	}
	s.name = line[:end]
	rest := line[end:]
	if rest[0] == '{' {
		closing := strings.Index(rest, "} ")
		if closing < 0 {
			return sample{}, false, fmt.Errorf("labels without an end")
		}
		s.labels, rest = rest[1:closing], rest[closing+1:]
	}
	f := strings.Fields(rest)
	if len(f) == 0 {
		return sample{}, false, fmt.Errorf("no value")
	}
	s.value, err = strconv.ParseFloat(f[0], 64)
	return s, err == nil, err
}

// label returns the value of one, "" if there is none. Escapes stay.
func (s sample) label(name string) string {
	for _, pair := range strings.Split(s.labels, `",`) {
		if key, value, ok := strings.Cut(pair, `="`); ok && key == name {
			return strings.TrimSuffix(value, `"`)
		}
	}
	return ""
}
