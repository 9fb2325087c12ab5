package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// codec reads a value from YAML and writes it back.
type codec[V any] struct {
	allowed string
	read    func(d *decoder, n *node) (V, bool)
	write   func(V) *yaml.Node // nil: nothing to write
}

// scalar makes a codec of a value that is one word. parse returns the value or
// what is wrong; text returns an empty string for nothing to write.
func scalar[V any](allowed string, parse func(string) (V, string), text func(V) string) codec[V] {
	return codec[V]{
		allowed: allowed,
		read: func(d *decoder, n *node) (v V, ok bool) {
			s, ok := d.text(n, allowed)
			if !ok {
				return v, false
			}
			v, wrong := parse(s)
			if wrong != "" {
				d.fail(n, "%s", wrong)
			}
			return v, wrong == ""
		},
		write: func(v V) *yaml.Node {
			if s := text(v); s != "" {
				return word(s)
			}
			return nil
		},
	}
}

// duration is a duration in Prometheus's grammar within bounds.
func duration(least, most time.Duration) codec[time.Duration] {
	allowed := Brief(least) + " to " + Brief(most)
	return scalar(allowed+", such as 500ms, 10s or 1m30s",
		func(s string) (time.Duration, string) { return parseDuration(s, least, most) },
		func(v time.Duration) string { return model.Duration(v).String() })
}

// parseDuration reads a duration within bounds, or says what is wrong.
func parseDuration(s string, least, most time.Duration) (time.Duration, string) {
	d, err := model.ParseDuration(s)
	v, allowed := time.Duration(d), Brief(least)+" to "+Brief(most)
	switch {
	case isNumber(s) && s != "0":
		return 0, fmt.Sprintf("%s has no unit; write %ss or %sms", clip(s), clip(s), clip(s))
	case err != nil:
		return 0, quote(s) + " is not a duration; allowed: whole numbers with the units w, d, h, m, s, ms, large to small, such as 1m30s"
	case v < least:
		return 0, s + " is too short; allowed: " + allowed
	case v > most:
		return 0, s + " is too long; allowed: " + allowed
	}
	return v, ""
}

// Brief writes a duration as people do: 24h, not 1d or 24h0m0s.
func Brief(d time.Duration) string {
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

type integer interface {
	~int | ~int8 | ~uint8 | ~uint16
}

// number is a whole number within bounds.
func number[V integer](least, most int) codec[V] {
	allowed := fmt.Sprintf("%d to %d", least, most)
	return scalar(allowed, func(s string) (V, string) {
		n, wrong := parseNumber(s, least, most)
		if wrong != "" {
			return 0, wrong + "; allowed: " + allowed
		}
		return V(n), ""
	}, func(v V) string { return strconv.Itoa(int(v)) })
}

// numberOrOff is a whole number within bounds, or off, which is kept as none.
func numberOrOff[V integer](least, most int, none V) codec[V] {
	allowed := fmt.Sprintf("%d to %d, or off", least, most)
	return scalar(allowed, func(s string) (V, string) {
		if s == "off" {
			return none, ""
		}
		n, wrong := parseNumber(s, least, most)
		if wrong != "" {
			return 0, wrong + "; allowed: " + allowed
		}
		return V(n), ""
	}, func(v V) string {
		if v == none {
			return "off"
		}
		return strconv.Itoa(int(v))
	})
}

// unlessZero makes a codec leave its key out where the value is the zero value.
func unlessZero[V comparable](c codec[V]) codec[V] {
	write := c.write
	c.write = func(v V) *yaml.Node {
		var zero V
		if v == zero {
			return nil
		}
		return write(v)
	}
	return c
}

func parseNumber(s string, least, most int) (int, string) {
	n, err := strconv.Atoi(s)
	switch {
	case isNumber(s) && (err != nil || n > most):
		return 0, clip(s) + " is too large"
	case err != nil || s[0] == '+':
		return 0, quote(s) + " is not a whole number in plain digits"
	case n < least:
		return 0, clip(s) + " is too small"
	}
	return n, ""
}

// boolean is true or false.
var boolean = scalar("true, false", func(s string) (bool, string) {
	switch s {
	case "true":
		return true, ""
	case "false":
		return false, ""
	}
	return false, quote(s) + " is neither true nor false"
}, strconv.FormatBool)

// oneOf is a choice among names; the value is the index.
func oneOf[V ~uint8](names []string) codec[V] {
	allowed := strings.Join(names, ", ")
	return scalar(allowed, func(s string) (V, string) {
		if i := slices.Index(names, s); i >= 0 {
			return V(i), ""
		}
		return 0, quote(s) + " is not known; allowed: " + allowed
	}, func(v V) string { return names[v] })
}

// either is a choice between two names; the value is whether it is the second.
func either(no, yes string) codec[bool] {
	allowed := no + ", " + yes
	return scalar(allowed, func(s string) (bool, string) {
		if s != no && s != yes {
			return false, quote(s) + " is not known; allowed: " + allowed
		}
		return s == yes, ""
	}, func(v bool) string {
		if v {
			return yes
		}
		return no
	})
}

// address is the IP address of an interface of this host.
var address = scalar("an IP address of this host", func(s string) (netip.Addr, string) {
	ip, wrong := parseUnicast(s)
	if wrong == "" && ip.Zone() != "" {
		wrong = "an address to send from has no zone; write " + ip.WithZone("").String() + " and the key interface"
	}
	return ip, wrong
}, func(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
})

// device is the name of a network interface, as the kernel allows it
// (dev_valid_name in net/core/dev.c).
var device = scalar("the name of a network interface, such as eth0", func(s string) (string, string) {
	bad := s == "" || s == "." || s == ".." || len(s) > 15 ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r >= 0x7f })
	if bad {
		return "", quote(s) + " is not an interface's name; allowed: 1 to 15 characters without blanks, / and :"
	}
	return s, ""
}, func(s string) string { return s })

// portRange is FIRST-LAST.
var portRange = scalar("FIRST-LAST within 1024-65535, at least 2 ports", parsePortRange,
	func(r PortRange) string { return fmt.Sprintf("%d-%d", r.First, r.Last) })

// parsePortRange reads FIRST-LAST, or says what is wrong.
func parsePortRange(s string) (r PortRange, wrong string) {
	first, last, ok := strings.Cut(s, "-")
	a, errA := strconv.Atoi(strings.TrimSpace(first))
	b, errB := strconv.Atoi(strings.TrimSpace(last))
	switch {
	case !ok || errA != nil || errB != nil:
		return r, quote(s) + " is not a range of ports; write FIRST-LAST, such as 61000-61255"
	case a < 1024 || b > 65535 || a > 65535 || b < 1024:
		return r, s + " leaves the ports that probed may use; allowed: within 1024-65535"
	case a > b:
		return r, fmt.Sprintf("%s runs backwards; write %d-%d", s, b, a)
	case a == b:
		return r, s + " is one port; at least 2 are needed, half for half_open, half for the other kinds"
	}
	return PortRange{uint16(a), uint16(b)}, ""
}

// buckets is an ascending list of seconds.
var buckets = codec[[]float64]{
	allowed: "a list of seconds, ascending; [] for none",
	read: func(d *decoder, n *node) ([]float64, bool) {
		items, ok := d.list(n, "a list of seconds, ascending; [] for none")
		var bs []float64
		for _, item := range items {
			s, is := d.text(item, "a number of seconds")
			if !is {
				ok = false
				continue
			}
			v, wrong := parseSeconds(s)
			if wrong == "" && len(bs) > 0 && v <= bs[len(bs)-1] {
				wrong = fmt.Sprintf("%s is not above the one before it; buckets ascend", s)
			}
			if wrong != "" {
				d.fail(item, "%s", wrong)
				ok = false
				continue
			}
			bs = append(bs, v)
		}
		return bs, ok
	},
	write: func(bs []float64) *yaml.Node {
		y := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, b := range bs {
			y.Content = append(y.Content, word(strconv.FormatFloat(b, 'g', -1, 64)))
		}
		return y
	},
}

func parseSeconds(s string) (float64, string) {
	if d, err := model.ParseDuration(s); err == nil && !isNumber(s) {
		return 0, fmt.Sprintf("a bucket is a plain number of seconds; write %g", time.Duration(d).Seconds())
	}
	v, err := strconv.ParseFloat(s, 64)
	switch {
	case strings.EqualFold(strings.TrimLeft(s, "+."), "inf"):
		return 0, "the bucket +Inf is always there; leave it out"
	case err != nil || v != v || strings.ContainsAny(s, "xXpP_"):
		return 0, quote(s) + " is not a number of seconds"
	case v <= 0:
		return 0, clip(s) + " is not above 0"
	}
	return v, ""
}

// labels are those of all targets of a job, groupLabels those of some, which may
// say how they are probed as well.
var (
	labels      = labelsWith(checkLabelName)
	groupLabels = labelsWith(checkGroupLabelName)
)

// labelsWith is a mapping of label names to values.
func labelsWith(check func(name string) (wrong string)) codec[Labels] {
	return codec[Labels]{
		allowed: "a mapping of label names to values",
		read:    func(d *decoder, n *node) (Labels, bool) { return d.labels(n, check) },
		write:   printLabels,
	}
}

func (d *decoder) labels(n *node, check func(name string) (wrong string)) (ls Labels, ok bool) {
	entries, ok := d.mapping(n, "a mapping of label names to values")
	for _, e := range entries {
		if wrong := check(e.name); wrong != "" {
			d.failAt(e.key, e.value.path(), wrong)
			ok = false
		}
		v, is := d.text(e.value, "a text")
		if wrong := checkLabelValue(v); is && wrong != "" {
			d.fail(e.value, "%s", wrong)
			is = false
		}
		ok = ok && is
		ls = append(ls, Label{e.name, v})
	}
	slices.SortFunc(ls, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	return ls, ok
}

func printLabels(ls Labels) *yaml.Node {
	if len(ls) == 0 {
		return nil
	}
	y := &yaml.Node{Kind: yaml.MappingNode}
	for _, l := range ls {
		y.Content = append(y.Content, word(l.Name), word(l.Value))
	}
	return y
}
