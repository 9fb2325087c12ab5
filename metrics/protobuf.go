package metrics

import (
	"io"
	"math"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of client_model's metrics.proto.
const (
	familyName, familyHelp, familyType, familyMetric = 1, 2, 3, 4

	metricLabel, metricGauge, metricCounter, metricHistogram = 1, 2, 3, 7

	labelName, labelValue = 1, 2

	valueValue = 1 // of Gauge and Counter

	histogramCount, histogramSum, histogramBucket    = 1, 2, 3
	histogramSchema, histogramZeroThreshold          = 5, 6
	histogramZeroCount                               = 7
	histogramPositiveSpan, histogramPositiveDelta    = 12, 13
	bucketCount, bucketUpper, spanOffset, spanLength = 1, 2, 1, 2
)

// A protoWriter writes delimited protobuf messages of client_model's
// MetricFamily, the only exposition with native buckets. It writes the wire
// format itself: no tree of messages is built, so a scrape needs the memory of
// its largest family's bytes and no more.
type protoWriter struct {
	w      io.Writer
	fam    *family
	family []byte // the MetricFamily
	metric []byte // one Metric
	inner  []byte // its Histogram
	part   []byte // a Bucket or BucketSpan of that
	prefix []byte // the family's length
	native spans
}

func (p *protoWriter) reset(w io.Writer) { p.w = w }

func (p *protoWriter) begin(f *family) {
	p.fam = f
	b := protowire.AppendTag(p.family[:0], familyName, protowire.BytesType)
	b = protowire.AppendString(b, f.name)
	b = protowire.AppendTag(b, familyHelp, protowire.BytesType)
	b = protowire.AppendString(b, f.help)
	b = protowire.AppendTag(b, familyType, protowire.VarintType)
	p.family = protowire.AppendVarint(b, uint64(f.kind))
}

func (p *protoWriter) value(ls *labelSet, extra []label, v float64) error {
	p.metric = appendWireLabels(p.metric[:0], ls.text)
	for _, l := range extra {
		p.metric = appendWireLabel(p.metric, l)
	}
	field := protowire.Number(metricCounter)
	if p.fam.kind == gauge {
		field = metricGauge
	}
	p.inner = appendDouble(p.inner[:0], valueValue, v)
	p.metric = appendMessage(p.metric, field, p.inner)
	p.family = appendMessage(p.family, familyMetric, p.metric)
	return nil
}

func (p *protoWriter) histogram(ls *labelSet, h *histogram) error {
	b := appendUint(p.inner[:0], histogramCount, h.count)
	b = appendDouble(b, histogramSum, h.sum)
	var sum uint64
	for i, upper := range h.bounds.upper {
		sum += h.at(i)
		p.part = appendUint(p.part[:0], bucketCount, sum)
		p.part = appendDouble(p.part, bucketUpper, upper)
		b = appendMessage(b, histogramBucket, p.part)
	}
	b = appendInt(b, histogramSchema, int64(h.schema))
	b = appendDouble(b, histogramZeroThreshold, zeroThreshold)
	b = appendUint(b, histogramZeroCount, h.zero)
	p.native.set(h.native())
	for i, offset := range p.native.offsets {
		p.part = appendInt(p.part[:0], spanOffset, int64(offset))
		p.part = appendUint(p.part, spanLength, uint64(p.native.lengths[i]))
		b = appendMessage(b, histogramPositiveSpan, p.part)
	}
	for _, d := range p.native.deltas {
		b = appendInt(b, histogramPositiveDelta, d)
	}
	p.inner = b
	p.metric = appendMessage(appendWireLabels(p.metric[:0], ls.text), metricHistogram, b)
	p.family = appendMessage(p.family, familyMetric, p.metric)
	return nil
}

func (p *protoWriter) end() error {
	p.prefix = protowire.AppendVarint(p.prefix[:0], uint64(len(p.family)))
	if _, err := p.w.Write(p.prefix); err != nil {
		return err
	}
	_, err := p.w.Write(p.family)
	return err
}

func (p *protoWriter) flush(int) error { return nil }

// appendWireLabel writes a Metric's label field.
func appendWireLabel(b []byte, p label) []byte {
	size := protowire.SizeTag(labelName) + protowire.SizeBytes(len(p.name)) +
		protowire.SizeTag(labelValue) + protowire.SizeBytes(len(p.value))
	b = protowire.AppendTag(b, metricLabel, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, labelName, protowire.BytesType)
	b = protowire.AppendString(b, p.name)
	b = protowire.AppendTag(b, labelValue, protowire.BytesType)
	return protowire.AppendString(b, p.value)
}

// appendWireLabels writes the label fields of what appendTextLabel has written, with
// commas between.
func appendWireLabels(b []byte, text string) []byte {
	for len(text) > 0 {
		name := strings.IndexByte(text, '=')
		value := text[name+2:]
		end, escapes := 0, 0
		for ; value[end] != '"'; end++ {
			if value[end] == '\\' {
				escapes++
				end++
			}
		}
		size := protowire.SizeTag(labelName) + protowire.SizeBytes(name) + protowire.SizeTag(labelValue) + protowire.SizeBytes(end-escapes)
		b = protowire.AppendTag(b, metricLabel, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		b = protowire.AppendTag(b, labelName, protowire.BytesType)
		b = protowire.AppendString(b, text[:name])
		b = protowire.AppendTag(b, labelValue, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(end-escapes))
		b = appendUnescaped(b, value[:end], escapes)
		text = strings.TrimPrefix(value[end+1:], ",")
	}
	return b
}

// appendUnescaped writes a label's value as it was before so many escapes.
func appendUnescaped(b []byte, value string, escapes int) []byte {
	if escapes == 0 {
		return append(b, value...)
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '\\' {
			i++
			if c = value[i]; c == 'n' {
				c = '\n'
			}
		}
		b = append(b, c)
	}
	return b
}

func appendMessage(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func appendDouble(b []byte, field protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendInt writes an sint32 or sint64.
func appendInt(b []byte, field protowire.Number, v int64) []byte {
	return appendUint(b, field, protowire.EncodeZigZag(v))
}

// A kind is a family's type, numbered as in metrics.proto.
type kind dto.MetricType

const (
	counter       = kind(dto.MetricType_COUNTER)
	gauge         = kind(dto.MetricType_GAUGE)
	histogramKind = kind(dto.MetricType_HISTOGRAM)
)

// String is the type's name in the text format.
func (k kind) String() string {
	switch k {
	case counter:
		return "counter"
	case gauge:
		return "gauge"
	default:
		return "histogram"
	}
}
