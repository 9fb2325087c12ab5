package ping_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/probed/probed/internal/ping"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// made is a transcript with nothing but figures.
func made(port uint16, figures ...probe.Observation) *probe.Transcript {
	t := new(probe.Transcript)
	t.Tuple.Local = netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port)
	for i := range figures {
		t.NotOpened(0, &figures[i])
	}
	return t
}

func verdict(r probe.Reason) probe.Observation {
	return probe.Observation{Kind: probe.Verdict, Reason: r}
}

func took(k probe.ObservationKind, d time.Duration) probe.Observation {
	return probe.Observation{Kind: k, Duration: d}
}

// halfOpen is a thousand half_open probes with everything that can happen.
func halfOpen(flows int) *ping.Tally {
	r := rand.New(rand.NewPCG(1, 2))
	var t ping.Tally
	for i := range 1000 {
		port := uint16(61300 + i%flows)
		rtt := time.Duration(100e3 + 15e3*r.ExpFloat64())
		switch {
		case i%250 == 0:
			t.Settle(made(port, verdict(probe.Timeout)), flows > 1)
		case i == 77:
			t.Settle(made(port, verdict(probe.Refused)), flows > 1)
		case i%400 == 2:
			t.Settle(made(port, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardTapDrop}), flows > 1)
		case i%199 == 0:
			t.Settle(made(port, took(probe.HandshakeRTT, 20*rtt), verdict(probe.OK)), flows > 1)
		default:
			t.Settle(made(port, took(probe.HandshakeRTT, rtt), verdict(probe.OK)), flows > 1)
		}
	}
	for _, reason := range []string{"late", "late", "rate_limit", "no_port", "unsent"} {
		t.NotSent(reason)
	}
	for _, o := range []probe.Observation{
		{Kind: probe.SYNACKLate}, {Kind: probe.SYNACKDuplicate}, {Kind: probe.SYNACKDuplicate},
		{Kind: probe.Rejected, Reject: probe.RejectBadACK}, {Kind: probe.Rejected, Reject: probe.RejectBadSequence},
		{Kind: probe.Rejected, Reject: probe.RejectBadChecksum}, {Kind: probe.Rejected, Reject: probe.RejectUnexpected},
		{Kind: probe.Rejected, Reject: probe.RejectBadQuote}, {Kind: probe.Rejected, Reject: probe.RejectNoACK},
	} {
		t.Observe(&o)
	}
	return &t
}

// closing is some active_close probes.
func closing() *ping.Tally {
	r := rand.New(rand.NewPCG(3, 4))
	var t ping.Tally
	for i := range 60 {
		wait := time.Duration(250e6 * r.Float64())
		switch {
		case i%20 == 3:
			t.Settle(made(1, took(probe.HandshakeRTT, 100*time.Microsecond), verdict(probe.FINMissing)), false)
		case i%7 == 0:
			t.Settle(made(1, took(probe.HandshakeRTT, time.Duration(i)*time.Microsecond), took(probe.FINACKRTT, 52*time.Microsecond), took(probe.CloseWaitTime, 0),
				probe.Observation{Kind: probe.Teardown, Form: probe.ThreeWay, Duration: 60 * time.Microsecond}, verdict(probe.OK)), false)
		default:
			t.Settle(made(1, took(probe.HandshakeRTT, time.Duration(90+i)*time.Microsecond), took(probe.FINACKRTT, 52*time.Microsecond), took(probe.CloseWaitTime, wait),
				probe.Observation{Kind: probe.Teardown, Form: probe.FourWay, Duration: wait + 60*time.Microsecond}, verdict(probe.OK)), false)
		}
	}
	t.Observe(&probe.Observation{Kind: probe.FINRetransmit, Side: probe.Local})
	t.Observe(&probe.Observation{Kind: probe.FINRetransmit, Side: probe.Peer})
	return &t
}

// reusing is some time_wait probes.
func reusing() *ping.Tally {
	var t ping.Tally
	for i := range 4 {
		answer, rtt := probe.AnswerAccepted, time.Duration(55+i)*time.Microsecond
		if i == 3 {
			answer, rtt = probe.AnswerSilence, -1
		}
		t.Settle(made(1, took(probe.HandshakeRTT, 100*time.Microsecond), took(probe.PeerCloseTime, 3*time.Millisecond), took(probe.LastACKRTT, 52*time.Microsecond),
			probe.Observation{Kind: probe.Teardown, Form: probe.FourWay, Duration: -1},
			probe.Observation{Kind: probe.TimeWaitReuse, Answer: answer, Duration: rtt}, verdict(probe.OK)), false)
	}
	t.Settle(made(1, probe.Observation{Kind: probe.TimeWaitLasted, Least: 60 * time.Second, Duration: 61 * time.Second}, verdict(probe.OK)), false)
	return &t
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	discarded := new(ping.Tally)
	discarded.Settle(made(1, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardSendError}), true)
	for _, tt := range []struct {
		file  string
		of    *ping.Target
		tally *ping.Tally
	}{
		{"half_open", target("", remote4, probe.HalfOpen), halfOpen(1)},
		{"flows", target("db.example.net:443", remote6, probe.HalfOpen), halfOpen(8)},
		{"many_flows", target("例え.テスト:443", remote6, probe.HalfOpen), halfOpen(100)},
		{"active_close", target("\x1b[31m\u202e.test:80", remote4, probe.ActiveClose), closing()},
		{"time_wait", target(strings.Repeat("long-", 40)+".test:443", remote4, probe.TimeWaitProbe), reusing()},
		{"nothing", target("", remote4, probe.HalfOpen), new(ping.Tally)},
		{"discarded", target("", remote4, probe.HalfOpen), discarded},
	} {
		for _, width := range []int{80, 120} {
			plain := tt.tally.Summary(tt.of, 1234567890*time.Microsecond, ping.Options{Width: width})
			golden(t, fmt.Sprintf("summary_%s_%d.txt", tt.file, width), plain)
			safe(t, plain)
			for i, line := range strings.Split(plain, "\n") {
				if show.Width(line) > width && i > 0 { // the first has the name
					t.Errorf("%s: %d columns, there are %d: %s", tt.file, show.Width(line), width, line)
				}
			}
			coloured := tt.tally.Summary(tt.of, 1234567890*time.Microsecond, ping.Options{Width: width, Paint: true})
			golden(t, fmt.Sprintf("summary_%s_%d_coloured.txt", tt.file, width), coloured)
			if uncoloured(coloured) != plain {
				t.Errorf("%s: colour changes more than the colour", tt.file)
			}
		}
	}
}

// uncoloured takes the colours out.
func uncoloured(s string) string {
	for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
		s = strings.ReplaceAll(s, "\x1b["+code+"m", "")
	}
	return s
}

// TestNarrow: a chart has bars on any terminal.
func TestNarrow(t *testing.T) {
	t.Parallel()
	s := halfOpen(1).Figure(probe.HandshakeRTT).Chart("x", 1, false)
	if !strings.Contains(s, strings.Repeat("█", 10)+" ") {
		t.Errorf("no bar of ten columns in\n%s", s)
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	tally := halfOpen(1)
	if tally.Probes != 997 || tally.Failed() != 5 || tally.Lost() != 3 || tally.Loss() != 5.0/997 {
		t.Errorf("%d probes, %d failed, %d lost by us, loss %v", tally.Probes, tally.Failed(), tally.Lost(), tally.Loss())
	}
	stopped := new(ping.Tally)
	stopped.Settle(made(1, probe.Observation{Kind: probe.Discarded, Discard: probe.DiscardShutdown}), false)
	if stopped.Lost() != 0 || stopped.Loss() != 0 || stopped.Probes != 0 {
		t.Errorf("stopped: %+v", stopped)
	}
}

// TestSummaryJSON: it has what the text has, under the names of the metrics.
func TestSummaryJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file  string
		of    *ping.Target
		tally *ping.Tally
	}{
		{"flows", target("db.example.net:443", remote6, probe.HalfOpen), halfOpen(8)},
		{"active_close", target("", remote4, probe.ActiveClose), closing()},
		{"time_wait", target("", remote4, probe.TimeWaitProbe), reusing()},
		{"nothing", target("", remote4, probe.HalfOpen), new(ping.Tally)},
	} {
		j := tt.tally.JSON(tt.of, 2*time.Second)
		text, err := json.MarshalIndent(j, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "summary_"+tt.file+".json", string(text)+"\n")
		var back ping.SummaryJSON
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, j) {
			t.Errorf("%s: not the same after encoding and decoding: %v\n%+v\n%+v", tt.file, err, back, j)
		}
	}
	// Every figure of a conversation has its summary under the same name.
	has := func(v any) map[string]bool {
		all := make(map[string]bool)
		for i, typ := 0, reflect.TypeOf(v); i < typ.NumField(); i++ {
			if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); strings.HasSuffix(name, "_seconds") {
				all[name] = true
			}
		}
		return all
	}
	summary, one := has(ping.SummaryJSON{}), has(show.ConversationJSON{})
	for _, without := range []string{"reaction_seconds", "time_wait_min_seconds"} {
		delete(one, without)
	}
	delete(summary, "duration_seconds")
	if !maps.Equal(summary, one) {
		t.Errorf("the summary has %v, a conversation %v", slices.Sorted(maps.Keys(summary)), slices.Sorted(maps.Keys(one)))
	}
}
