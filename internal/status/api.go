package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/probed/probed/internal/recorder"
	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// The API's answers. docs/api.md says what each field means; fields are added to,
// not changed.

type targetsJSON struct {
	Total   int          `json:"total"`
	Page    int          `json:"page"`
	Pages   int          `json:"pages"`
	Limit   int          `json:"limit"`
	States  tally        `json:"states"`
	Targets []targetJSON `json:"targets"`
}

type targetJSON struct {
	ID       string            `json:"id"`
	Job      string            `json:"job"`
	Target   string            `json:"target"`
	Module   string            `json:"module"`
	Probe    string            `json:"probe"`
	IP       string            `json:"ip,omitempty"`
	Remote   string            `json:"remote,omitempty"`
	Interval show.Seconds      `json:"interval_seconds"`
	Flows    int               `json:"flows,omitempty"`
	Labels   map[string]string `json:"labels"`

	State       state       `json:"state"`
	Probes      int         `json:"probes"`
	Failed      int         `json:"failed"`
	Discarded   int         `json:"discarded"`
	Loss        *float64    `json:"loss_ratio,omitempty"`
	P50         *float32    `json:"p50_seconds,omitempty"`
	P99         *float32    `json:"p99_seconds,omitempty"`
	LastProbe   *sampleJSON `json:"last_probe,omitempty"`
	LastFailure *sampleJSON `json:"last_failure,omitempty"`
}

// A detailJSON is a target's own.
type detailJSON struct {
	targetJSON
	Totals totalsJSON `json:"totals"`
	Peer   *peerJSON  `json:"peer,omitempty"`
	ByFlow []flowJSON `json:"by_flow,omitempty"`
}

type flowJSON struct {
	Port    uint16       `json:"port"`
	Probes  int          `json:"probes"`
	Failed  int          `json:"failed"`
	Failing bool         `json:"failing"`
	SRTT    show.Seconds `json:"srtt_seconds,omitempty"`
	RTTVar  show.Seconds `json:"rttvar_seconds,omitempty"`
}

type totalsJSON struct {
	Probes           uint64            `json:"probes"`
	Failures         map[string]uint64 `json:"failures"`
	Discarded        map[string]uint64 `json:"discarded"`
	Rejected         map[string]uint64 `json:"rejected"`
	SYNACKDuplicates uint64            `json:"synack_duplicates"`
	SYNACKLate       uint64            `json:"synack_late"`
}

type peerJSON struct {
	Fingerprint *show.FingerprintJSON `json:"fingerprint"`
	Changes     []peerChangeJSON      `json:"changes"`
}

type peerChangeJSON struct {
	At     string                `json:"at"`
	Before *show.FingerprintJSON `json:"before"`
	After  *show.FingerprintJSON `json:"after"`
}

type sampleJSON struct {
	Started   string  `json:"started"`
	Verdict   string  `json:"verdict"`
	Reason    string  `json:"reason,omitempty"`
	Discarded string  `json:"discarded,omitempty"`
	RTT       float32 `json:"handshake_rtt_seconds,omitempty"`
	Port      uint16  `json:"source_port,omitempty"`
}

type samplesJSON struct {
	ID      string       `json:"id"`
	Samples []sampleJSON `json:"samples"`
}

type transcriptsJSON struct {
	ID          string                  `json:"id"`
	Transcripts []show.ConversationJSON `json:"transcripts"`
}

func newTargetJSON(e *entry) targetJSON {
	t := &e.target
	p50, p99 := e.quantiles()
	j := targetJSON{
		ID: t.ID, Job: t.Job, Target: t.Address, Module: t.Module, Probe: t.Kind.String(), IP: t.IP,
		Interval: show.Seconds(t.Interval), Labels: make(map[string]string, len(t.Labels)),
		State: e.state, Probes: e.verdicts, Failed: e.failed, Discarded: e.discarded,
		P50: float(p50), P99: float(p99),
	}
	if t.Remote.IsValid() {
		j.Remote = t.Remote.String()
	}
	if t.Flows > 1 {
		j.Flows = t.Flows
	}
	for _, l := range t.Labels {
		j.Labels[l.Name] = l.Value
	}
	if loss := e.loss(); !math.IsNaN(loss) {
		j.Loss = &loss
	}
	if e.settled {
		j.LastProbe = newSampleJSON(&e.last)
	}
	if e.everFailed {
		j.LastFailure = newSampleJSON(&e.lastFailure)
	}
	return j
}

// float is a figure that JSON can hold: NaN it can't.
func float(v float64) *float32 {
	if math.IsNaN(v) {
		return nil
	}
	f := float32(v)
	return &f
}

func newSampleJSON(s *recorder.Sample) *sampleJSON {
	j := &sampleJSON{Started: stamp(s.At), Verdict: "ok", RTT: s.RTT, Port: s.Port}
	switch {
	case s.Discard != 0:
		j.Verdict, j.Discarded = "discarded", s.Discard.String()
	case s.Failed():
		j.Verdict, j.Reason = "failed", s.Reason.String()
	}
	return j
}

// stamp is a time as RFC 3339, UTC, nine decimals.
func stamp(ns int64) string {
	return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
}

func newDetailJSON(e *entry) detailJSON {
	t := &e.target
	sum := t.Metrics.Summary()
	d := detailJSON{targetJSON: newTargetJSON(e), Totals: totalsJSON{
		Probes: sum.Probes, Failures: make(map[string]uint64), Discarded: make(map[string]uint64), Rejected: make(map[string]uint64),
		SYNACKDuplicates: sum.Duplicates, SYNACKLate: sum.Late,
	}}
	for i, n := range sum.Failures {
		noteCount(d.Totals.Failures, probe.Reason(i), n)
	}
	for i, n := range sum.Discarded {
		noteCount(d.Totals.Discarded, probe.DiscardReason(i), n)
	}
	for i, n := range sum.Rejected {
		noteCount(d.Totals.Rejected, probe.RejectReason(i), n)
	}
	if f, changes, ok := t.Recorder.Peer(); ok {
		d.Peer = &peerJSON{Fingerprint: show.Fingerprint(&f), Changes: []peerChangeJSON{}}
		for i := range changes {
			c := &changes[i]
			d.Peer.Changes = append(d.Peer.Changes, peerChangeJSON{stamp(c.At), show.Fingerprint(&c.Before), show.Fingerprint(&c.After)})
		}
	}
	for _, f := range t.Metrics.Flows() {
		d.ByFlow = append(d.ByFlow, flowJSON{f.Port, f.Verdicts, f.Failed, f.Failing, show.Seconds(f.SRTT), show.Seconds(f.RTTVar)})
	}
	return d
}

// noteCount notes what has happened at all.
func noteCount(to map[string]uint64, reason fmt.Stringer, n uint64) {
	if n > 0 {
		to[reason.String()] = n
	}
}

// sendJSON answers with a value as JSON.
func sendJSON(w http.ResponseWriter, r *http.Request, code int, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		failJSON(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	send(w, r, code, "application/json", b.Bytes())
}

// failJSON answers with an error as JSON.
func failJSON(w http.ResponseWriter, r *http.Request, code int, text string) {
	body, _ := json.Marshal(map[string]string{"error": text}) // a map of strings always works
	send(w, r, code, "application/json", append(body, '\n'))
}

// apiTargets serves /api/v1/targets.
func (s *server) apiTargets(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), mostAtOnce)
	if err != nil {
		failJSON(w, r, http.StatusBadRequest, err.Error())
		return
	}
	sel := s.snapshots.get().find(q)
	from, to, page, pages := q.slice(len(sel.rows))
	answer := targetsJSON{
		Total: len(sel.rows), Page: page, Pages: pages, Limit: q.limit, States: sel.tally,
		Targets: make([]targetJSON, 0, to-from),
	}
	for _, e := range sel.rows[from:to] {
		answer.Targets = append(answer.Targets, newTargetJSON(e))
	}
	sendJSON(w, r, http.StatusOK, answer)
}

// withTarget finds the target that a path names.
func (s *server) withTarget(serve func(w http.ResponseWriter, r *http.Request, t *Target)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, ok := s.target(r)
		if !ok {
			failJSON(w, r, http.StatusNotFound, "there is no such target")
			return
		}
		serve(w, r, &t)
	}
}

// target is the one that a request's path names.
func (s *server) target(r *http.Request) (Target, bool) {
	id := r.PathValue("id")
	if len(id) != 16 {
		return Target{}, false
	}
	return s.Source.Target(id)
}

// apiTarget serves /api/v1/targets/{id}.
func (s *server) apiTarget(w http.ResponseWriter, r *http.Request, t *Target) {
	sendJSON(w, r, http.StatusOK, newDetailJSON(newEntry(t, nil)))
}

// apiSamples serves /api/v1/targets/{id}/samples.
func (s *server) apiSamples(w http.ResponseWriter, r *http.Request, t *Target) {
	samples := t.Recorder.AppendSamples(nil)
	answer := samplesJSON{ID: t.ID, Samples: make([]sampleJSON, len(samples))}
	for i := range samples {
		answer.Samples[i] = *newSampleJSON(&samples[i])
	}
	sendJSON(w, r, http.StatusOK, answer)
}

// apiTranscripts serves /api/v1/targets/{id}/transcripts.
func (s *server) apiTranscripts(w http.ResponseWriter, r *http.Request, t *Target) {
	failed, err := flag(r, "failed")
	if err != nil {
		failJSON(w, r, http.StatusBadRequest, err.Error())
		return
	}
	kept := t.Recorder.Last()
	if failed {
		kept = t.Recorder.Failed()
	}
	answer := transcriptsJSON{ID: t.ID, Transcripts: make([]show.ConversationJSON, len(kept))}
	for i := range kept {
		answer.Transcripts[i] = show.Of(&kept[i]).JSON()
	}
	sendJSON(w, r, http.StatusOK, answer)
}

// flag reads a parameter that is true or false, which is also what it is without.
func flag(r *http.Request, name string) (bool, error) {
	switch v := r.URL.Query().Get(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fmt.Errorf("%s: %q is neither true nor false", name, v)
	}
}

// apiElse answers what the API does not have.
func apiElse(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		failJSON(w, r, http.StatusMethodNotAllowed, "the API is only read from: use GET")
		return
	}
	failJSON(w, r, http.StatusNotFound, "there is no such thing: docs/api.md lists what there is")
}
