package status

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/metrics"
	"github.com/probed/probed/probe"
)

// targetPage serves /targets/{id}. With ?number=N it shows that conversation, else the
// last one. Whoever has the page already and says so (If-None-Match) is told when
// there is nothing new.
func (s *server) targetPage(w http.ResponseWriter, r *http.Request) {
	t, ok := s.target(r)
	if !ok {
		s.fail(w, r, http.StatusNotFound, "There is no such target. It may have gone with the last reload of the configuration.")
		return
	}
	version := t.Recorder.Version() // before what it is the version of
	number, err := askedNumber(r)
	if err != nil {
		s.failAt(w, r, http.StatusBadRequest, err.Error(), t.ID)
		return
	}
	sum := t.Metrics.Summary()
	samples := t.Recorder.AppendSamples(make([]recorder.Sample, 0, recorder.MaxSamples))
	var newest int64 // which tells the content from that of another run
	if n := len(samples); n > 0 {
		newest = samples[n-1].At
	}
	tag := fmt.Sprintf(`"%x-%d-%d-%s"`, newest, version, sum.Probes+counted(&sum), r.URL.Query().Get("number"))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.render(w, r, http.StatusOK, page{Title: t.Address, Name: "target", Body: newTargetView(&t, &sum, samples, number, tag)})
}

// counted sums up what a target's counters count beside verdicts.
func counted(sum *metrics.Summary) (n uint64) {
	n = sum.Duplicates + sum.Late
	for _, d := range sum.Discarded {
		n += d
	}
	for _, r := range sum.Rejected {
		n += r
	}
	return n
}

// askedNumber is the conversation that a request asks for; nil if for none.
func askedNumber(r *http.Request) (*uint64, error) {
	text := r.URL.Query().Get("number")
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("number=%q is no number of a conversation.", text) //nolint:staticcheck // a page shows it as a sentence
	}
	return &n, nil
}

// A targetView is what templates/target.html shows.
type targetView struct {
	Target
	Tag        string // of the page's content
	State      state
	Now        string // what became of the last probe
	Remembered remembered
	Totals     totals
	Failure    *moment

	Last, Failed []conversationTab
	Gone         *uint64 // the conversation that was asked for is not kept any more
	Pinned       bool    // one was asked for
	Shown        *conversationView

	Histogram, Heatmap, FlowStrip template.HTML
	Peer                          *peerView
}

// A moment is something that happened, and when.
type moment struct {
	What  string
	Stamp string // RFC 3339, for machines
	Text  string // for people, UTC
}

func momentOf(what string, ns int64) *moment {
	at := time.Unix(0, ns).UTC()
	return &moment{what, at.Format(time.RFC3339Nano), at.Format(time.DateTime)}
}

// remembered is what the remembered probes come to.
type remembered struct {
	Probes, Failed, Discarded int
	Loss, P50, P90, P99       string
}

// totals are a target's counters since it was added.
type totals struct {
	Probes, Failed              uint64
	Loss                        string
	P50, P90, P99               string // about: of a histogram; empty without
	Failures, Discarded, Others []occurrence
}

// An occurrence is how often something happened.
type occurrence struct {
	Name string
	N    uint64
}

// A conversationTab is the way to a conversation.
type conversationTab struct {
	Number  uint64
	State   state
	Verdict string
	At      string // UTC
	Stamp   string
	Current bool
}

// A conversationView is one being shown.
type conversationView struct {
	Number        uint64
	Kind, Verdict string
	Started       *moment
	Local, Remote string
	Wide, Narrow  template.HTML
	Caption       string
	Steps         []stepView
	Segments      string // as tcpdump prints them
}

// A stepView is a line of the table of steps.
type stepView struct {
	At, Wall, Way            string
	Flags, Seq, Ack, Len     string
	Window, Options          string
	Event                    string // in place of the segment
	Local, Peer, Note, Class string
	Missing                  int // steps that are missing before this one
}

// A peerView is the peer's fingerprint.
type peerView struct {
	Traits  []trait
	Changes []peerChange
}

// A trait is one property.
type trait struct{ Name, Value string }

// A peerChange is when which of them became what.
type peerChange struct {
	*moment
	Traits []trait
}

func newTargetView(t *Target, sum *metrics.Summary, samples []recorder.Sample, number *uint64, tag string) *targetView {
	v := &targetView{
		Target: *t, Tag: tag, State: unknown, Now: "no probe has a verdict yet",
		Remembered: rememberedOf(samples), Totals: totalsOf(sum), Heatmap: heatmapSVG(samples),
		Peer: peerOf(t.Recorder), Pinned: number != nil,
	}
	if buckets := t.Metrics.HandshakeRTTs(); len(buckets) > 0 {
		v.Histogram = histogramSVG(buckets)
		v.Totals.P50, v.Totals.P90, v.Totals.P99 = about(quantileOf(buckets, 0.5)), about(quantileOf(buckets, 0.9)), about(quantileOf(buckets, 0.99))
	}
	if t.Flows > 1 {
		v.FlowStrip = flowStrip(flowsOf(t.Metrics.Flows(), samples))
	}
	if n := len(samples); n > 0 {
		v.State, v.Now = stateOf(samples[n-1]), "last probe: "+verdictOf(&samples[n-1])
	}
	if f, ok := t.Recorder.LastFailure(); ok {
		v.Failure = momentOf(f.Reason.String(), f.At)
	}
	v.conversations(t.Recorder, number)
	return v
}

// conversations fills in the tabs, and shows the one that is asked for.
func (v *targetView) conversations(r *recorder.Recorder, number *uint64) {
	last, failed := r.Last(), r.Failed()
	var shown *probe.Transcript
	for _, list := range [][]probe.Transcript{last, failed} {
		for i := range list {
			if number != nil && list[i].Number == *number {
				shown = &list[i]
			}
		}
	}
	if shown == nil && len(last) > 0 {
		shown, v.Gone = &last[0], number
	}
	if shown == nil {
		v.Gone = number
		return
	}
	v.Shown = newConversationView(show.Of(shown))
	v.Last, v.Failed = tabsOf(last, shown.Number), tabsOf(failed, shown.Number)
}

func tabsOf(list []probe.Transcript, current uint64) []conversationTab {
	tabs := make([]conversationTab, 0, len(list))
	for i := range list {
		c := show.Of(&list[i])
		m := momentOf("", c.Zero)
		tab := conversationTab{Number: c.Number, State: down, Verdict: c.Verdict(), Stamp: m.Stamp, Current: c.Number == current}
		tab.At = time.Unix(0, c.Zero).UTC().Format(time.TimeOnly)
		switch {
		case !c.Settled:
			tab.State = unknown
		case c.Discarded != probe.NotDiscarded:
			tab.State = ours
		case c.OK():
			tab.State = up
		}
		tabs = append(tabs, tab)
	}
	return tabs
}

func newConversationView(c *show.Conversation) *conversationView {
	at := time.Unix(0, c.Zero).UTC()
	v := &conversationView{
		Number: c.Number, Kind: c.Kind.String(), Verdict: c.Verdict(),
		Started: &moment{Stamp: at.Format(time.RFC3339Nano), Text: at.Format("2006-01-02 15:04:05.000000000")},
		Wide:    ladderSVG(c), Narrow: narrowLadderSVG(c), Caption: ladderCaption(c),
	}
	if c.Tuple.Local.IsValid() {
		v.Local = c.Tuple.Local.String()
	}
	if c.Tuple.Remote.IsValid() {
		v.Remote = c.Tuple.Remote.String()
	}
	var segments []byte
	for i, s := range c.JSON().Steps {
		v.Steps = append(v.Steps, stepOf(c, i, &s))
		if line := c.AppendSegment(nil, i, show.SegmentOptions{Stamp: true}); len(line) > 0 {
			segments = append(append(segments, line...), '\n')
		}
	}
	v.Segments = string(segments)
	return v
}

// stepOf is a step as a line of a table.
func stepOf(c *show.Conversation, i int, s *show.StepJSON) stepView {
	v := stepView{
		At: stampText(c.Steps[i].At), Wall: s.Wall, Event: s.Event, Local: s.LocalState, Peer: s.PeerState, Note: s.Note,
	}
	if c.Lost > 0 && i == c.LostAt {
		v.Missing = c.Lost
	}
	switch {
	case s.ICMP != nil:
		v.Way, v.Class, v.Event = "← ICMP", "in", fmt.Sprintf("%s, quoting seq %d", s.ICMP.Text, s.ICMP.RelativeSeq)
	case s.Segment != nil:
		g := s.Segment
		v.Way, v.Class = "→ out", "out"
		if s.Direction == "in" {
			v.Way, v.Class = "← in", "in"
		}
		v.Event = ""
		v.Flags, v.Seq, v.Len = flagNames(c.Steps[i].Segment.Flags), fmt.Sprint(g.RelativeSeq), fmt.Sprint(g.Length)
		v.Window, v.Options = fmt.Sprint(g.Window), strings.ReplaceAll(g.Options, ",", ", ")
		if g.RelativeAck != nil {
			v.Ack = fmt.Sprint(*g.RelativeAck)
		}
	default:
		v.Way, v.Class = "here", "here"
	}
	return v
}

// verdictOf is what became of a probe.
func verdictOf(s *recorder.Sample) string {
	if s.Discard != 0 {
		return "discarded: " + s.Discard.String()
	}
	return s.Reason.String()
}

func rememberedOf(samples []recorder.Sample) remembered {
	r := remembered{Probes: len(samples), Loss: "–", P50: "–", P90: "–", P99: "–"}
	var rtts []float32
	for i := range samples {
		s := &samples[i]
		switch {
		case s.Discard != 0:
			r.Discarded++
		case s.Failed():
			r.Failed++
		}
		if s.RTT > 0 {
			rtts = append(rtts, s.RTT)
		}
	}
	if n := len(samples) - r.Discarded; n > 0 {
		r.Loss = percentText(r.Failed, n)
	}
	if len(rtts) == 0 {
		return r
	}
	slices.Sort(rtts)
	// By nearest rank: one that was measured.
	rank := func(percent int) string {
		return show.FormatDuration(durationOf(float64(rtts[(percent*len(rtts)+99)/100-1])).Round(time.Nanosecond))
	}
	r.P50, r.P90, r.P99 = rank(50), rank(90), rank(99)
	return r
}

func totalsOf(sum *metrics.Summary) totals {
	t := totals{Probes: sum.Probes, Failed: sum.Failed(), Loss: "–"}
	if sum.Probes > 0 {
		t.Loss = percentText(int(t.Failed), int(sum.Probes))
	}
	for i, n := range sum.Failures {
		if n > 0 {
			t.Failures = append(t.Failures, occurrence{probe.Reason(i).String(), n})
		}
	}
	for i, n := range sum.Discarded {
		if n > 0 {
			t.Discarded = append(t.Discarded, occurrence{probe.DiscardReason(i).String(), n})
		}
	}
	for i, n := range sum.Rejected {
		if n > 0 {
			t.Others = append(t.Others, occurrence{"segments not believed: " + probe.RejectReason(i).String(), n})
		}
	}
	if sum.Duplicates > 0 {
		t.Others = append(t.Others, occurrence{"duplicate SYN-ACKs", sum.Duplicates})
	}
	if sum.Late > 0 {
		t.Others = append(t.Others, occurrence{"late SYN-ACKs", sum.Late})
	}
	return t
}

// peerOf is the peer's fingerprint; nil if it never answered.
func peerOf(r *recorder.Recorder) *peerView {
	f, changes, ok := r.Peer()
	if !ok {
		return nil
	}
	v := &peerView{Traits: traitsOf(&f)}
	for i := range changes {
		before, after := traitsOf(&changes[i].Before), traitsOf(&changes[i].After)
		c := peerChange{moment: momentOf("", changes[i].At)}
		for j := range after {
			if before[j].Value != after[j].Value && after[j].Name != windowTrait {
				c.Traits = append(c.Traits, trait{after[j].Name, before[j].Value + " → " + after[j].Value})
			}
		}
		v.Changes = append(v.Changes, c)
	}
	return v
}

// windowTrait is shown, but is not one: it differs between sockets.
const windowTrait = "Window"

func traitsOf(f *probe.Fingerprint) []trait {
	scale := "not offered"
	if f.WindowScale >= 0 {
		scale = fmt.Sprintf("%d (× %d)", f.WindowScale, 1<<min(f.WindowScale, 14))
	}
	mss := "not offered"
	if f.MSS > 0 {
		mss = fmt.Sprintf("%d bytes", f.MSS)
	}
	return []trait{
		{"Hops", fmt.Sprintf("%d (TTL %d)", probe.Hops(f.TTL), f.TTL)},
		{"MSS", mss},
		{windowTrait, fmt.Sprintf("%d bytes", f.Window)},
		{"Window scale", scale},
		{"SACK", yesNo(f.SACK)},
		{"Timestamps", yesNo(f.Timestamps)},
		{"ECN", yesNo(f.ECN)},
		{"SYN cookies", f.SYNCookies.String()},
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
