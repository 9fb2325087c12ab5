package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// good reads a configuration that is right.
func good(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// group is what a discovery finds: some labels, and targets that are an address and
// what follows it in pairs.
func group(source string, labels model.LabelSet, targets ...[]string) *targetgroup.Group {
	g := &targetgroup.Group{Source: source, Labels: labels}
	for _, pairs := range targets {
		set := model.LabelSet{"__address__": model.LabelValue(pairs[0])}
		for i := 1; i < len(pairs); i += 2 {
			set[model.LabelName(pairs[i])] = model.LabelValue(pairs[i+1])
		}
		g.Targets = append(g.Targets, set)
	}
	return g
}

func found(gs ...*targetgroup.Group) map[string][]*targetgroup.Group {
	return map[string][]*targetgroup.Group{"j": gs}
}

// brief writes a target in a line.
func brief(x Target) string {
	return fmt.Sprintf("%s %s %s/%s/%s %q", x.Address, x.Module.Name, x.Interval, x.Timeout, x.Jitter, x.Labels)
}

func briefs(ts []Target) (lines []string) {
	for _, x := range ts {
		lines = append(lines, brief(x))
	}
	return lines
}

// TestLabelsBeforeRelabelling asserts what the rules see, and who wins.
func TestLabelsBeforeRelabelling(t *testing.T) {
	c := good(t, `
jobs:
- name: j
  module: active_close
  interval: 7s
  labels: {team: core, site: job, room: job, gone: job}
  static_configs:
  - targets: [a:1]
    labels: {site: group, gone: "", __meta_x: m}
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {action: labelmap, regex: "__(address|module|interval|timeout|meta_.+|tmp)__?", replacement: was_$1}
  - {action: labelmap, regex: "__(meta_.+)", replacement: was_$1}
  - {target_label: __tmp, replacement: x}
`)
	x := c.Expand(found(group("s", model.LabelSet{"site": "group", "room": "group", "__meta_x": "group", "gone": ""}, []string{"b:2", "room", "own"})))
	want := []string{
		`a:1 active_close 7s/5s/0s [{"room" "job"} {"site" "group"} {"team" "core"} {"was_address" "a:1"} {"was_interval" "7s"} {"was_meta_x" "m"} {"was_module" "active_close"} {"was_timeout" "5s"}]`,
		`b:2 active_close 7s/5s/0s [{"room" "own"} {"site" "group"} {"team" "core"} {"was_address" "b:2"} {"was_interval" "7s"} {"was_meta_x" "group"} {"was_module" "active_close"} {"was_timeout" "5s"}]`,
	}
	if got := briefs(x.Targets); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := (Tally{Job: "j", Discovered: 1}); x.Jobs[0] != want {
		t.Errorf("%+v", x.Jobs[0])
	}
}

// TestOverrides asserts how a target is probed that its labels say something of.
func TestOverrides(t *testing.T) {
	c := good(t, `
global: {interval: 1s, timeout: 900ms}
modules:
  slow: {probe: passive_close, interval: 20s, timeout: 3s, jitter: 1s}
jobs:
- {name: inherits, file_sd_configs: [{files: [x.yml]}]}
- {name: states, interval: 4s, jitter: 100ms, file_sd_configs: [{files: [x.yml]}]}
- {name: j, module: slow, timeout: 2s, file_sd_configs: [{files: [x.yml]}]}
`)
	for _, o := range []struct {
		labels                 []string
		inherits, states, slow string
	}{
		{nil, "half_open 1s/900ms/0s", "half_open 4s/900ms/100ms", "slow 20s/2s/1s"},
		{[]string{"__module__", "slow"}, "slow 20s/3s/1s", "slow 4s/3s/100ms", "slow 20s/2s/1s"},
		{[]string{"__module__", "half_open"}, "half_open 1s/900ms/0s", "half_open 4s/900ms/100ms", "half_open 1s/2s/0s"},
		{[]string{"__module__", "active_close", "__interval__", "10s"}, "active_close 10s/5s/0s", "active_close 10s/5s/100ms", "active_close 10s/2s/0s"},
		{[]string{"__interval__", "1m30s", "__timeout__", "50ms"}, "half_open 1m30s/50ms/0s", "half_open 1m30s/50ms/100ms", "slow 1m30s/50ms/1s"},
		{[]string{"__module__", "", "__interval__", ""}, "half_open 1s/900ms/0s", "half_open 4s/900ms/100ms", "slow 20s/2s/1s"},
	} {
		g := group("s", nil, append([]string{"a:1"}, o.labels...))
		x := c.Expand(map[string][]*targetgroup.Group{"inherits": {g}, "states": {g}, "j": {g}})
		want := []string{"a:1 " + o.inherits + " []", "a:1 " + o.states + " []", "a:1 " + o.slow + " []"}
		if got := briefs(x.Targets); !slices.Equal(got, want) {
			t.Errorf("%q:\n%s\nwant\n%s\n%v", o.labels, strings.Join(got, "\n"), strings.Join(want, "\n"), x.Problems)
		}
		for _, y := range x.Targets {
			check(t, &y)
		}
	}
}

// TestProblems asserts what is said of targets that cannot be probed, and that the
// others are.
func TestProblems(t *testing.T) {
	c := good(t, `
modules:
  from4: {probe: half_open, source_address: 192.0.2.1}
  only6: {probe: half_open, ip_protocol: ip6}
  flows: {probe: active_close, flows: 4}
jobs:
- {name: j, jitter: 500ms, file_sd_configs: [{files: [x.yml]}]}
`)
	for _, p := range []struct {
		labels []string
		says   string
	}{
		{[]string{"web1"}, `job j: s: "web1" has no port; write web1:443, say`},
		{[]string{""}, "job j: s: empty; write host:port"},
		{[]string{"http://web1/"}, `job j: s: "http://web1/" is a URL; write host:port`},
		{[]string{"224.0.0.1:1"}, "job j: s: 224.0.0.1:1: 224.0.0.1 is a multicast address; only unicast addresses can be probed"},
		{[]string{"fe80::1:1"}, `job j: s: "fe80::1:1" needs brackets around the address; write [fe80::1]:1`},
		{[]string{"[fe80::1]:1"}, "job j: s: [fe80::1]:1: a link-local address needs its interface; write [fe80::1%eth0]:1, say"},
		{[]string{"a:1", "__module__", "half-open"}, `job j: s: a:1: __module__: there is no module "half-open"; did you mean half_open?`},
		{[]string{"a:1", "__interval__", "5"}, "job j: s: a:1: __interval__: 5 has no unit; write 5s or 5ms"},
		{[]string{"a:1", "__interval__", "1ms"}, "job j: s: a:1: __interval__: 1ms is too short; allowed: 10ms to 24h"},
		{[]string{"a:1", "__interval__", "2d"}, "job j: s: a:1: __interval__: 2d is too long; allowed: 10ms to 24h"},
		{[]string{"a:1", "__timeout__", "soon"}, `job j: s: a:1: __timeout__: "soon" is not a duration; allowed: whole numbers with the units w, d, h, m, s, ms, large to small, such as 1m30s`},
		{[]string{"a:1", "__timeout__", "6m"}, "job j: s: a:1: a timeout of 6m is too long for half_open; allowed: up to 5m, and for passive_close, time_wait up to 30m"},
		{[]string{"a:1", "__interval__", "100ms"}, "job j: s: a:1: the jitter of 500ms exceeds the interval of 100ms"},
		{[]string{"a:1", "__module__", "flows"}, "job j: s: a:1: timeout 5s and jitter 500ms every 1s: 6 conversations with a target may be open at once, and it has 4 flows; allow more, lengthen the interval, or shorten the timeout"},
		{[]string{"[2001:db8::1]:1", "__module__", "from4"}, "job j: s: [2001:db8::1]:1 cannot be probed from modules.from4.source_address 192.0.2.1, which is of the other IP protocol"},
		{[]string{"198.18.0.1:1", "__module__", "only6"}, "job j: s: 198.18.0.1:1 contradicts ip_protocol ip6 of module only6; allowed there: host names and ip6 addresses"},
		{[]string{"a:1", "my.label", "x"}, `job j: s: a:1: "my.label" is not a label name; allowed: letters, digits and _, not starting with a digit`},
		{[]string{"a:1", "l", "x\xff"}, "job j: s: a:1: label l: a label's value must be UTF-8"},
		{[]string{"a:1", "l", strings.Repeat("x", 2049)}, "job j: s: a:1: the value of label l is too long; allowed: 2,048 octets"},
		{slices.Concat([]string{"a:1"}, numbered(65)), "job j: s: a:1: it has more than 64 labels"},
		{[]string{"a\x1b[31m\n:1"}, `job j: s: a\x1b[31m\n:1: "a\x1b[31m\n" is not a host name: '\x1b' is not allowed; allowed: letters, digits, - and _`},
	} {
		x := c.Expand(found(group("s", nil, []string{"good:1"}, p.labels, []string{"[2001:db8::2]:1"})))
		if len(x.Targets) != 2 || x.Targets[0].Address != "good:1" || x.Targets[1].Address != "[2001:db8::2]:1" {
			t.Errorf("%q: the others are not probed: %q", p.labels, briefs(x.Targets))
		}
		if len(x.Problems) != 1 || x.Problems[0].String() != p.says || x.Jobs[0].Invalid != 1 || x.Jobs[0].Discovered != 3 {
			t.Errorf("%.200q:\n%v\nwant\n%s", p.labels, x.Problems, p.says)
		}
	}
	if x := c.Expand(found(group("s", nil, slices.Concat([]string{"a:1"}, numbered(64))))); len(x.Targets) != 1 || len(x.Targets[0].Labels) != 64 {
		t.Errorf("64 labels are too many: %v", x.Problems)
	}
}

// numbered are n labels.
func numbered(n int) (pairs []string) {
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("l%02d", i), "x")
	}
	return pairs
}

// TestProblemsAreBounded asserts that however much is wrong, little is said of it,
// and nothing that a terminal obeys.
func TestProblemsAreBounded(t *testing.T) {
	c := good(t, "jobs: [{name: j, file_sd_configs: [{files: [x.yml]}]}]")
	random := rand.New(rand.NewPCG(1, 2))
	wild := func() string {
		b := make([]byte, random.IntN(2000))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	for range 2 {
		g := &targetgroup.Group{Source: wild()}
		for range 200 {
			g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(wild() + "/"), "__module__": model.LabelValue(wild()), model.LabelName(wild()): "x"})
		}
		x := c.Expand(found(g, nil, &targetgroup.Group{Source: "empty"}))
		if len(x.Targets) != 0 || x.Jobs[0].Invalid != 200 || len(x.Problems) != problemsPerJob+1 {
			t.Fatalf("%+v, %d problems", x.Jobs[0], len(x.Problems))
		}
		if last := x.Problems[problemsPerJob].String(); last != "job j: and 190 more that cannot be probed" {
			t.Error(last)
		}
		for _, p := range x.Problems {
			for _, s := range []string{p.Source, p.Address, p.Reason} {
				if utf8.RuneCountInString(s) > 10*problemMostText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(s) {
					t.Fatalf("%q", s)
				}
			}
		}
	}
}

func TestProblemHidesPassword(t *testing.T) {
	c := good(t, "jobs: [{name: j, file_sd_configs: [{files: [x.yml]}]}]")
	x := c.Expand(found(group("http://probed:hunter2@inventory/targets:0", nil, []string{"web1"})))
	if s := x.Problems[0].String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "inventory/targets") {
		t.Error(s)
	}
}

// TestDuplicates asserts that one of several that are the same after relabelling
// stays, whatever the order in which they were found.
func TestDuplicates(t *testing.T) {
	c := good(t, `
jobs:
- name: j
  targets: [a:1]
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {action: labeldrop, regex: site}
  - {action: drop, source_labels: [skip], regex: "yes"}
`)
	gs := []*targetgroup.Group{
		group("f:0", model.LabelSet{"site": "ams"}, []string{"a:1"}, []string{"A.:1", "__interval__", "5s"}, []string{"b:2", "__interval__", "2s"}),
		group("f:1", model.LabelSet{"site": "fra"}, []string{"b:2", "__interval__", "3s"}, []string{"b:2", "rack", "1"}, []string{"b:2", "__module__", "active_close"}),
		group("f:2", model.LabelSet{"skip": "yes"}, []string{"c:3"}, []string{"not an address"}),
	}
	want := []string{"a:1 half_open 1s/900ms/0s []", "b:2 half_open 2s/900ms/0s []",
		`b:2 half_open 1s/900ms/0s [{"rack" "1"}]`, "b:2 active_close 1s/5s/0s []"}
	for range 6 {
		x := c.Expand(found(gs...))
		if got := briefs(x.Targets); !slices.Equal(got, want) {
			t.Fatalf("%q\nwant %q", got, want)
		}
		if want := (Tally{Job: "j", Discovered: 8, Duplicates: 3, Dropped: 2}); x.Jobs[0] != want || len(x.Problems) != 0 {
			t.Fatalf("%+v %v", x.Jobs[0], x.Problems)
		}
		rand.Shuffle(len(gs), func(i, j int) { gs[i], gs[j] = gs[j], gs[i] })
	}
}

// TestRelabelling is a tour of what people do with rules.
func TestRelabelling(t *testing.T) {
	c := good(t, `
modules: {web_close: {probe: passive_close, interval: 10s}}
jobs:
- name: j
  file_sd_configs: [{files: [x.yml]}]
  static_configs: [{targets: [web7, web8], labels: {__module__: web_close, __interval__: 1m}}]
  relabel_configs:
  - {source_labels: [__address__], regex: "([^:]+)", target_label: __address__, replacement: "$1:80"}
  - {source_labels: [__meta_kind], regex: "web", target_label: __module__, replacement: web_close}
  - {source_labels: [__meta_every], regex: "(.+)", target_label: __interval__}
  - {source_labels: [__meta_kind], target_label: kind}
  - {source_labels: [__address__], modulus: 2, target_label: __tmp_half, action: hashmod}
  - {source_labels: [__tmp_half], target_label: half}
  - {source_labels: [__address__], regex: "web8:80", action: drop}
  - {target_label: target, replacement: mine}
`)
	got := briefs(c.Expand(found(group("s", nil,
		[]string{"web1", "__meta_kind", "web"}, []string{"db1:5432", "__meta_every", "30s"}))).Targets)
	want := []string{
		`web7:80 web_close 1m0s/5s/0s [{"exported_target" "mine"} {"half" "H"}]`,
		`web1:80 web_close 10s/5s/0s [{"exported_target" "mine"} {"half" "H"} {"kind" "web"}]`,
		`db1:5432 half_open 30s/900ms/0s [{"exported_target" "mine"} {"half" "H"}]`,
	}
	for i, address := range []string{"web7:80", "web1:80", "db1:5432"} {
		want[i] = strings.Replace(want[i], "H", fmt.Sprint(hash(address)%2), 1)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLabelmapIsTheSameAlways asserts that of two labels that become one the same
// wins every time: a target must not come and go by chance.
func TestLabelmapIsTheSameAlways(t *testing.T) {
	c := good(t, `
jobs: [{name: j, file_sd_configs: [{files: [x.yml]}], relabel_configs: [{action: labelmap, regex: "__meta_.*(one)", replacement: $1}]}]`)
	seen := make(map[string]bool)
	for range 50 {
		g := group("s", model.LabelSet{"__meta_a_one": "a", "__meta_b_one": "b", "__meta_c_one": "c"}, []string{"a:1", "__meta_d_one", "d"})
		seen[brief(c.Expand(found(g)).Targets[0])] = true
	}
	if len(seen) != 1 {
		t.Error(slices.Collect(maps.Keys(seen)))
	}
}

// TestTooMany asserts that discovery cannot make more targets than there may be.
func TestTooMany(t *testing.T) {
	c := good(t, "jobs: [{name: i, targets: [a:1]}, {name: j, file_sd_configs: [{files: [x.yml]}]}]")
	g := &targetgroup.Group{Source: "s"}
	for i := range 15 {
		g.Targets = append(g.Targets, model.LabelSet{"__address__": model.LabelValue(fmt.Sprintf("h%d:1", i))})
	}
	x, _ := c.expand(found(g), 10)
	if len(x.Targets) != 10 || x.Jobs[1].Invalid != 6 || x.Problems[0].Reason != "there are 10 targets, and that is the most" {
		t.Errorf("%d targets, %+v, %v", len(x.Targets), x.Jobs[1], x.Problems)
	}
}

// TestExceeded asserts that an expanded list is held against the limits as the file is.
func TestExceeded(t *testing.T) {
	c := good(t, "global: {limits: {packets_per_second: 100, packets_per_second_per_address: 10}}\njobs: [{name: j, file_sd_configs: [{files: [x.yml]}]}]")
	few, many := group("s", nil), group("s", nil)
	for i := range 60 {
		many.Targets = append(many.Targets, model.LabelSet{"__address__": model.LabelValue(fmt.Sprintf("h%d:%d", i/6, i+1))})
	}
	few.Targets = many.Targets[:5]
	if lines := c.Global.Limits.Exceeded(c.Expand(found(few)).Targets); lines != nil {
		t.Error(lines)
	}
	want := []string{
		"60 targets × 2 packets every 1s make 120 packets per second, the limit is 100; raise it, or lengthen the interval",
		"6 targets × 2 packets every 1s to h0 make 12 packets per second, global.limits.packets_per_second_per_address is 10; raise it, or lengthen the interval (and so for 9 more addresses)",
	}
	if lines := c.Global.Limits.Exceeded(c.Expand(found(many)).Targets); !reflect.DeepEqual(lines, want) {
		t.Errorf("%q", lines)
	}
}

// FuzzExpand asserts that whatever a server answers, what is probed can be, and
// what is said stays short.
func FuzzExpand(f *testing.F) {
	c := good(f, `
global: {source_ports: 61000-61063}
modules: {slow: {probe: passive_close, flows: 2}, six: {probe: half_open, source_address: "2001:db8::1"}}
jobs:
- name: j
  labels: {site: ams}
  static_configs: [{targets: ["a:1"], labels: {__meta_x: y}}]
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {action: labelmap, regex: "__meta_(.+)"}
  - {source_labels: [move], regex: "(.+)=(.+)", target_label: $1, replacement: $2}
  - {action: drop, source_labels: [drop], regex: ".+"}
- {name: nodes, mesh: {peers: 1}, file_sd_configs: [{files: [x.yml]}]}
`)
	c.options.Own = func(a netip.Addr) bool { return a == netip.AddrFrom4([4]byte{198, 18, 0, 1}) }
	for _, seed := range []string{
		`[{"targets": ["a:1", "198.18.0.1:80", "[2001:db8::2]:443"], "labels": {"site": "fra"}}]`,
		`[{"targets": ["a:1"], "labels": {"move": "__interval__=5s", "__module__": "slow", "__timeout__": "7s"}}]`,
		`[{"targets": ["198.18.0.1:1", "198.18.0.2:1", "b", "", "fe80::1"], "labels": {"__meta___": "x", "__meta_a-b": "\u0000\u202e"}}]`,
		`[{"labels": {"drop": "1", "__address__": "c:3"}, "targets": ["x"]}, {}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var gs []*targetgroup.Group
		if json.Unmarshal(data, &gs) != nil {
			return
		}
		x := c.Expand(map[string][]*targetgroup.Group{"j": gs, "nodes": gs})
		seen := make(map[string]bool)
		for _, y := range x.Targets {
			check(t, &y)
			id := fmt.Sprintf("%s %s %d %s %q", y.Job, y.bareHost(), y.Port, y.Module.Name, y.Labels)
			if seen[id] || y.Job == "nodes" && !y.IP.IsValid() {
				t.Fatalf("%s", id)
			}
			seen[id] = true
		}
		for i, j := range x.Jobs {
			all := j.Invalid + j.Dropped + j.Duplicates + j.Elsewhere
			for _, y := range x.Targets {
				if y.Job == j.Job {
					all++
				}
			}
			if all != j.Discovered+1-i {
				t.Fatalf("%+v: %d targets", j, all)
			}
		}
		for _, p := range x.Problems {
			if s := p.String(); len(s) > 20_000 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
				t.Fatalf("%q", s)
			}
		}
	})
}

// discovered10000 are ten thousand targets with ten labels each, in groups of 100.
func discovered10000() map[string][]*targetgroup.Group {
	var gs []*targetgroup.Group
	for i := range 100 {
		g := group(fmt.Sprintf("f:%02d", i), model.LabelSet{"site": "ams", "room": "a1", "__meta_filepath": "f", "__meta_kind": "web"})
		for k := range 100 {
			g.Targets = append(g.Targets, model.LabelSet{
				"__address__": model.LabelValue(fmt.Sprintf("198.18.%d.%d:443", i, k)), "rack": "r", "unit": "u", "__meta_a": "a", "__meta_b": "b", "__meta_c": "c"})
		}
		gs = append(gs, g)
	}
	return found(gs...)
}

const rules10000 = `
jobs:
- name: j
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {source_labels: [__meta_kind], regex: "(.+)", target_label: kind}
  - {source_labels: [__address__], regex: "(.+):443", target_label: host}
  - {action: labelmap, regex: "__meta_(a|b)"}
  - {source_labels: [site], regex: "ams|fra", action: keep}
`

// TestExpandIsQuick bounds by far what BenchmarkExpand10000 measures.
func TestExpandIsQuick(t *testing.T) {
	c, gs := good(t, rules10000), discovered10000()
	least := time.Hour
	for range 2 {
		start := time.Now()
		if x := c.Expand(gs); len(x.Targets) != 10_000 {
			t.Fatalf("%+v", x.Jobs)
		}
		least = min(least, time.Since(start))
	}
	t.Logf("10,000 discovered targets through 4 rules: %v", least)
	if least > 3*time.Second { // the race detector, on a busy machine, takes half of that
		t.Errorf("10,000 targets take %v", least)
	}
}

func BenchmarkExpand10000(b *testing.B) {
	gs := discovered10000()
	for name, text := range map[string]string{"4 rules": rules10000, "no rules": "jobs: [{name: j, file_sd_configs: [{files: [x.yml]}]}]"} {
		b.Run(name, func(b *testing.B) {
			c := good(b, text)
			b.ReportAllocs()
			for b.Loop() {
				if x := c.Expand(gs); len(x.Targets) != 10_000 {
					b.Fatal(x.Jobs)
				}
			}
		})
	}
}

// TestSaysWhatTheJobHas asserts that an interval or a timeout which is said, by a
// target, its group or a rule, is in force with another module, though the job has the
// same; and that one which only passes through the rules is not said.
func TestSaysWhatTheJobHas(t *testing.T) {
	c := good(t, `
modules: {slow: {probe: passive_close, interval: 20s, timeout: 3s}}
jobs:
- name: j
  module: active_close
  static_configs:
  - {targets: ["s:1"], labels: {__module__: slow, __interval__: 1s}}
  - {targets: ["s:2"], labels: {__module__: slow}}
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {source_labels: [__meta_module], regex: "(.+)", target_label: __module__}
  - {source_labels: [__meta_every], regex: "(.+)", target_label: __interval__}
  - {source_labels: [__meta_limit], regex: "(.+)=(.+)", target_label: "__${1}__", replacement: $2}
  - {source_labels: [__interval__], target_label: __interval__}
  - {source_labels: [__meta_drop_unless], regex: "yes", target_label: __tmp, replacement: x}
`)
	x := c.Expand(found(
		group("1", nil, []string{"a:1", "__module__", "slow"}, []string{"a:2", "__module__", "slow", "__interval__", "1s"}, []string{"a:3", "__module__", "slow", "__timeout__", "5s"},
			[]string{"a:4", "__meta_module", "slow"}, []string{"a:5", "__meta_module", "slow", "__meta_every", "1s"}, []string{"a:6", "__meta_module", "slow", "__meta_limit", "timeout=5s"},
			[]string{"a:7", "__module__", "slow", "__interval__", ""}, []string{"a:8", "__interval__", "1s", "__timeout__", "5s"}),
		group("2", model.LabelSet{"__interval__": "1s", "__module__": "slow"}, []string{"b:1"}, []string{"b:2", "__interval__", ""}),
	))
	want := []string{"s:1 slow 1s/3s", "s:2 slow 20s/3s",
		"a:1 slow 20s/3s", "a:2 slow 1s/3s", "a:3 slow 20s/5s", "a:4 slow 20s/3s", "a:5 slow 1s/3s", "a:6 slow 20s/5s", "a:7 slow 20s/3s", "a:8 active_close 1s/5s",
		"b:1 slow 1s/3s", "b:2 slow 20s/3s"}
	for i := range want {
		want[i] += "/0s []"
	}
	if got := briefs(x.Targets); !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), x.Problems)
	}
}

// TestProblemNamesItsAddress discovers every address that cannot be read, and
// asserts that what is said of it says which one it is.
func TestProblemNamesItsAddress(t *testing.T) {
	c := good(t, oneFile)
	for address, says := range map[string]string{
		"web1:99999":                          `web1:99999: "99999" is not a port; allowed: 1 to 65535`,
		"web1:0":                              `web1:0: "0" is not a port; allowed: 1 to 65535`,
		"web1:080":                            `web1:080: "080" is not a port; allowed: 1 to 65535`,
		"web1:http":                           `web1:http: "http" is not a port; allowed: 1 to 65535`,
		"[web1]:80":                           `[web1]:80: only an IPv6 address goes in brackets; write web1:80`,
		"we b:80":                             `we b:80: "we b" is not a host name: ' ' is not allowed; allowed: letters, digits, - and _`,
		"a..b:80":                             `a..b:80: "a..b" is not a host name: two dots in a row, or one at the start`,
		"-a:80":                               `-a:80: "-a" is not a host name: a part between dots may not start or end with -`,
		"198.18.0.256:80":                     `198.18.0.256:80: "198.18.0.256" is not an IP address`,
		"[::ffff:198.18.0.1]:9":               `[::ffff:198.18.0.1]:9: ::ffff:198.18.0.1 is an IPv4 address written as IPv6; write 198.18.0.1`,
		"0.0.0.0:80":                          `0.0.0.0:80: 0.0.0.0 is the unspecified address; only unicast addresses can be probed`,
		"0.1.2.3:80":                          `0.1.2.3:80: 0.1.2.3 is an address of 0.0.0.0/8, which no host can have; only unicast addresses can be probed`,
		"255.255.255.255:80":                  `255.255.255.255:80: 255.255.255.255 is the broadcast address; only unicast addresses can be probed`,
		"240.1.1.1:80":                        `240.1.1.1:80: 240.1.1.1 is a reserved address (240.0.0.0/4); only unicast addresses can be probed`,
		"[198.18.0.1]:80":                     `[198.18.0.1]:80: only an IPv6 address goes in brackets; write 198.18.0.1:80`,
		"[2001:db8::1%eth0]:80":               `[2001:db8::1%eth0]:80: only a link-local address (fe80::/10) has a zone; write [2001:db8::1]:80`,
		"[2001:db8::1:80":                     `"[2001:db8::1:80" has no closing bracket; write [address]:port`,
		"[2001:db8::1]":                       `"[2001:db8::1]" has no port; write [2001:db8::1]:443, say`,
		"[2001:db8::1]80":                     `"[2001:db8::1]80": a :port must follow the bracket`,
		"2001:db8::1":                         `"2001:db8::1" has no port; write [2001:db8::1]:443, say`,
		"2001:db8::1:80:":                     `"2001:db8::1:80:" has too many colons; write host:port, and an IPv6 address in brackets: [2001:db8::1]:443`,
		"web1":                                `"web1" has no port; write web1:443, say`,
		"web1:":                               `"web1:" has no port; write web1:443, say`,
		":80":                                 `":80" has no host; write host:port`,
		"http://web1:80/":                     `"http://web1:80/" is a URL; write host:port`,
		"":                                    "empty; write host:port",
		strings.Repeat("x", 64) + ":80":       strings.Repeat("x", 64) + `:80: "` + strings.Repeat("x", 60) + `…" is not a host name: a part between dots has at most 63 characters`,
		strings.Repeat("x.", 127) + "x:80":    strings.Repeat("x.", 127) + "x:80: a host name has at most 253 characters, this one has 255",
		"http://user:secretpw@198.18.0.9:80/": `"http://user:xxxxx@198.18.0.9:80/" is a URL; write host:port`,
		"http://user:secretpw/2@198.18.0.9/":  `"http://user:xxxxx@198.18.0.9/" is a URL; write host:port`,
		"http://u:" + strings.Repeat("secretpw", 9) + "@h/": `"http://u:xxxxx@h/" is a URL; write host:port`,
		"user:secretpw@198.18.0.9:80":                       `"user:xxxxx@198.18.0.9:80" has too many colons; write host:port, and an IPv6 address in brackets: [2001:db8::1]:443`,
		"user:secretpw@web":                                 `user:xxxxx@web: "xxxxx@web" is not a port; allowed: 1 to 65535`,
		"user@web:80":                                       `user@web:80: "user@web" is not a host name: '@' is not allowed; allowed: letters, digits, - and _`,
	} {
		for _, more := range [][]string{nil, {"rack", "1"}} {
			x := c.Expand(found(group("s", nil, append([]string{address}, more...))))
			if len(x.Problems) != 1 || x.Problems[0].String() != "job j: s: "+says {
				t.Errorf("%s: %v\nwant %s", address, x.Problems, says)
			}
			if s := fmt.Sprintf("%+v", x.Problems); strings.Contains(s, "secret") {
				t.Error(s)
			}
		}
		_, err := Parse("f", []byte(fmt.Sprintf("jobs: [{name: j, targets: [%q]}]", address)))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
	// Nor is one in what is said of the way that such a target is probed.
	x := c.Expand(found(group("s", nil, []string{"http://user:secretpw@h/", "__module__", "x"})))
	if s := x.Problems[0].String(); !strings.HasPrefix(s, "job j: s: http://user:xxxxx@h/: __module__: ") {
		t.Error(s)
	}
}

// TestLabelsForRelabelling asserts that what Prometheus's own labels say is taken from
// the file and from discovery alike, is there for the rules, and then goes.
func TestLabelsForRelabelling(t *testing.T) {
	own := model.LabelSet{"__scheme__": "https", "__metrics_path__": "/m", "__param_module": "http", "__scrape_interval__": "5s", "__scrape_timeout__": "4s", "__x__": "y"}
	var text strings.Builder
	for name, value := range own {
		fmt.Fprintf(&text, "%s: %s, ", name, value)
	}
	c := good(t, `
jobs:
- name: j
  static_configs: [{targets: ["a:1"], labels: {`+text.String()+`}}]
  file_sd_configs: [{files: [x.yml]}]
  relabel_configs:
  - {source_labels: [__scheme__, __metrics_path__, __param_module, __scrape_interval__, __scrape_timeout__, __x__], target_label: was}
`)
	x := c.Expand(found(group("s", own, []string{"b:1"})))
	const rest = ` half_open 1s/900ms/0s [{"was" "https;/m;http;5s;4s;y"}]`
	if got := briefs(x.Targets); !slices.Equal(got, []string{"a:1" + rest, "b:1" + rest}) {
		t.Errorf("%q %v", got, x.Problems)
	}
}

// TestDottedLabels asserts what the docs say of names that only Prometheus 3 has, and
// what they advise.
func TestDottedLabels(t *testing.T) {
	const job = "jobs:\n- name: j\n  file_sd_configs: [{files: [x.yml]}]\n"
	const drop = `  - {regex: ".*[.].*", action: labeldrop}` + "\n"
	for rules, want := range map[string][]string{
		"":                            nil,
		"  relabel_configs:\n" + drop: {"a:1 half_open 1s/900ms/0s []"},
		"  relabel_configs:\n" + `  - {regex: "(.+)[.](.+)", replacement: "${1}_$2", action: labelmap}` + "\n" + drop:                  {`a:1 half_open 1s/900ms/0s [{"dotted_name" "x"}]`},
		"  relabel_configs:\n" + `  - {source_labels: [__scrape_interval__], regex: "(.+)", target_label: __interval__}` + "\n" + drop: {"a:1 half_open 7s/900ms/0s []"},
	} {
		x := good(t, job+rules).Expand(found(group("s", nil, []string{"a:1", "dotted.name", "x", "__scrape_interval__", "7s"})))
		if got := briefs(x.Targets); !slices.Equal(got, want) || len(x.Problems) != 1-len(want) {
			t.Errorf("%s: %q %v", rules, got, x.Problems)
		}
	}
}
