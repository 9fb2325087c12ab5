package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Handler serves every series, and after them those that others gathers (the
// Go runtime's and the process's, say), unless it is nil. A client that accepts
// protobuf gets native histograms. The text format is 0.0.4; OpenMetrics, which
// would add nothing here (no exemplars, no native buckets), is not offered.
//
// It does what promhttp.HandlerFor does, but streams: promhttp would build and
// sort a tree of messages of several kilobytes a target first.
func (m *Metrics) Handler(others prometheus.Gatherer) http.Handler {
	return http.HandlerFunc(func(rsp http.ResponseWriter, req *http.Request) {
		m.turn.Lock()
		defer m.turn.Unlock()
		if req.Context().Err() != nil {
			return // nobody waits for it any more
		}
		var more []*dto.MetricFamily
		if others != nil {
			var err error
			if more, err = others.Gather(); err != nil {
				http.Error(rsp, fmt.Sprintf("gathering metrics: %v", err), http.StatusInternalServerError)
				return
			}
		}
		format := expfmt.NegotiateAccept(req.Header, expfmt.FmtText, expfmt.FmtProtoDelim)
		head := rsp.Header()
		head.Set("Content-Type", string(format))
		head.Add("Vary", "Accept, Accept-Encoding")
		var w io.Writer = &inTurn{rsp, req.Context(), http.NewResponseController(rsp), &m.turn}
		if acceptsGzip(req.Header) {
			head.Set("Content-Encoding", "gzip")
			z := m.gzipWriter(w)
			defer m.gzip.Put(z)
			defer func() { _ = z.Close() }() // fails only if the client is gone
			w = z
		}
		// After the first octet an error can only be a client that is gone.
		_ = m.writeAll(w, format, more)
	})
}

// inTurn has scrapes that run at once take turns: together they keep one processor
// busy at most, so that the probes have another. While what was written is on its way to
// a client, which may be slow, it is the next one's turn.
type inTurn struct {
	io.Writer
	asked context.Context // ends when nobody waits for the scrape any more
	limit *http.ResponseController
	turn  *sync.Mutex
}

// patience is how long a client may take for what was written. A scrape holds some of
// every target's figures, so that one that stands still must end. The deadline stays in
// force for what the server has yet to send when we are done; its next request brings
// its own.
const patience = 30 * time.Second

// Write implements io.Writer.
func (w *inTurn) Write(b []byte) (int, error) {
	w.turn.Unlock()
	defer w.turn.Lock()
	if err := w.asked.Err(); err != nil {
		return 0, err
	}
	_ = w.limit.SetWriteDeadline(time.Now().Add(patience)) // a writer without a connection has none
	return w.Writer.Write(b)
}

// writeAll writes our series and then the other families.
func (m *Metrics) writeAll(w io.Writer, format expfmt.Format, more []*dto.MetricFamily) error {
	write := m.WriteText
	if format.FormatType() == expfmt.TypeProtoDelim {
		write = m.WriteProtobuf
	}
	if err := write(w); err != nil {
		return err
	}
	enc := expfmt.NewEncoder(w, format)
	for _, f := range more {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// gzipWriter returns a compressor from the pool. The series of many targets
// are so alike that the fastest level already leaves a twentieth, and time
// counts while Prometheus waits. It takes half of what the standard library's
// takes.
func (m *Metrics) gzipWriter(w io.Writer) *gzip.Writer {
	z, _ := m.gzip.Get().(*gzip.Writer)
	if z == nil {
		z, _ = gzip.NewWriterLevel(w, gzip.BestSpeed) // fails only for an unknown level
		return z
	}
	z.Reset(w)
	return z
}

// acceptsGzip reads Accept-Encoding, RFC 9110 §12.5.3: a coding with the
// quality 0 is not acceptable.
func acceptsGzip(h http.Header) bool {
	for _, coding := range strings.Split(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, quality, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		value, weighted := strings.CutPrefix(strings.ToLower(strings.TrimSpace(quality)), "q=")
		if !weighted {
			return true
		}
		q, err := strconv.ParseFloat(value, 64)
		return err == nil && q > 0
	}
	return false
}
