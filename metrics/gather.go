package metrics

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
)

var _ prometheus.Gatherer = (*Metrics)(nil)

// Gather implements prometheus.Gatherer. It builds every message, which Handler
// does not: for large numbers of targets use that.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	var b bytes.Buffer
	if err := m.WriteProtobuf(&b); err != nil {
		return nil, err
	}
	var families []*dto.MetricFamily
	// A family of 100,000 targets is larger than the decoder's default allows.
	decoder := protodelim.UnmarshalOptions{MaxSize: -1}
	for r := bufio.NewReader(&b); ; {
		f := new(dto.MetricFamily)
		switch err := decoder.UnmarshalFrom(r, f); {
		case errors.Is(err, io.EOF):
			return families, nil
		case err != nil:
			return nil, fmt.Errorf("decoding our own exposition: %w", err)
		}
		families = append(families, f)
	}
}

// WriteText writes every series in the Prometheus text format 0.0.4, with
// classic buckets only.
func (m *Metrics) WriteText(w io.Writer) error {
	x, _ := m.text.Get().(*exposition)
	if x == nil {
		x = &exposition{w: new(textWriter)}
	}
	defer m.text.Put(x)
	return x.write(m, w)
}

// WriteProtobuf writes every series as delimited protobuf messages, with
// classic and native buckets.
func (m *Metrics) WriteProtobuf(w io.Writer) error {
	x, _ := m.proto.Get().(*exposition)
	if x == nil {
		x = &exposition{w: new(protoWriter)}
	}
	defer m.proto.Put(x)
	return x.write(m, w)
}
