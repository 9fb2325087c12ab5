package show_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// The model of a few conversations, as testdata/json has it.
func TestJSON(t *testing.T) {
	for _, name := range []string{"four_way", "timeout", "icmp6", "duration", "discarded", "answered"} {
		b, err := json.MarshalIndent(drawn(t)[name].JSON(), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/json/"+name+".json", string(b)+"\n")
	}
}

// Of every conversation: it is one line, comes back as it was, and has what was
// measured.
func TestJSONOfEveryConversation(t *testing.T) {
	list := all(t)
	list["lost"] = flood(t)
	for name, c := range list {
		j := c.JSON()
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.Contains(string(b), "\n") {
			t.Errorf("%s: more than a line", name)
		}
		var back show.ConversationJSON
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, j) {
			t.Errorf("%s: %v: came back as\n%+v\nwas\n%+v", name, err, back, j)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Marks {
			if got, want := fields[m.Name+"_seconds"], float64(m.Duration)/1e9; got != want { // the nearest number: Seconds adds two
				t.Errorf("%s: %s_seconds is %v, want %v", name, m.Name, got, want)
			}
		}
		if c.OK() != (j.Verdict == "ok") || (j.Verdict == "failed") != (j.Reason != "") || (j.Verdict == "discarded") != (j.Discarded != "") {
			t.Errorf("%s: verdict %q, reason %q, discarded %q", name, j.Verdict, j.Reason, j.Discarded)
		}
		if len(j.Steps) != len(c.Steps) || j.Lost != c.Lost || (j.LostAt != nil) != (c.Lost > 0) {
			t.Errorf("%s: %d steps and %d lost, want %d and %d", name, len(j.Steps), j.Lost, len(c.Steps), c.Lost)
		}
		for i, s := range j.Steps {
			started, err1 := time.Parse(time.RFC3339Nano, j.Started)
			wall, err2 := time.Parse(time.RFC3339Nano, s.Wall)
			if err1 != nil || err2 != nil || wall.Sub(started) != time.Duration(s.Time) {
				t.Errorf("%s: step %d at %v is at %s, and zero is %s", name, i, time.Duration(s.Time), s.Wall, j.Started)
			}
			if way := c.Steps[i].Way; (s.Segment != nil) != (way == show.Out || way == show.In) || (s.ICMP != nil) != (way == show.Error) {
				t.Errorf("%s: step %d, %s, has segment %v and ICMP %v", name, i, s.Direction, s.Segment, s.ICMP)
			}
		}
	}
}

// A conversation that has no verdict yet, and one that was never opened.
func TestJSONUnsettled(t *testing.T) {
	var tr probe.Transcript
	tr.Reset(tuple4, probe.TimeWaitProbe)
	if j := show.Of(&tr).JSON(); j.Verdict != "unsettled" || j.Probe != "time_wait" || j.Steps == nil {
		t.Errorf("%+v", j)
	}
	tr.Reset(probe.FourTuple{}, probe.HalfOpen)
	tr.NotOpened(0, &probe.Observation{Kind: probe.Verdict, Reason: probe.NotResolved})
	if j := show.Of(&tr).JSON(); j.Verdict != "failed" || j.Reason != "not_resolved" || j.Local != "" || j.Remote != "" {
		t.Errorf("%+v", j)
	}
}

// Seconds are exact to the nanosecond, as short as they can be, and come back.
func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 1: "0.000000001", -1: "-0.000000001", 20 * time.Millisecond: "0.02", time.Second: "1",
		1234567891: "1.234567891", -10 * time.Microsecond: "-0.00001", time.Hour: "3600",
		math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808",
	} {
		b, err := json.Marshal(show.Seconds(d))
		if err != nil || string(b) != want {
			t.Errorf("%d: %s, %v; want %s", d, b, err, want)
		}
		var back show.Seconds
		if err := json.Unmarshal(b, &back); err != nil || time.Duration(back) != d {
			t.Errorf("%s came back as %d, %v", b, back, err)
		}
	}
	var s show.Seconds
	if err := json.Unmarshal([]byte(`"soon"`), &s); err == nil {
		t.Error("a word is a number of seconds")
	}
	if err := json.Unmarshal([]byte(`null`), &s); err != nil {
		t.Error(err)
	}
}
