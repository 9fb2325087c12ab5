package ping

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// Line is what became of one probe, without the newline:
//
//	198.18.0.2:443 half_open seq=1 rtt=123.4 µs ttl=64 mss=1460
//	198.18.0.2:80 active_close seq=2 four_way: handshake 120.1 µs, fin_ack 45.2 µs, close_wait 250.3 ms
//	198.18.0.2:443 half_open seq=3 timeout after 900 ms
func (t *Target) Line(c *show.Conversation, p Paint) string {
	head := fmt.Sprintf("%s %s seq=%d ", t, c.Kind, c.Number)
	if t.Flows > 1 && c.Tuple.Local.IsValid() {
		head += fmt.Sprintf("port=%d ", c.Tuple.Local.Port())
	}
	switch {
	case !c.Settled:
		return head + "unsettled"
	case c.Discarded != probe.NotDiscarded:
		return head + p.Ours("discarded: "+discardText(c.Discarded))
	case c.Reason != probe.OK:
		return head + p.with(red, c.Reason.String()+t.after(c)) + parenthesised(strings.Join(measured(c, p), ", ")) + errorText(c)
	case c.Kind == probe.HalfOpen:
		return head + handshake(c, p)
	}
	form := "closed"
	if o, ok := figure(c, probe.Teardown); ok && o.Form != probe.NoForm {
		form = o.Form.String()
	}
	all := measured(c, p)
	if _, ok := figure(c, probe.FINACKRTT); !ok && c.Kind == probe.ActiveClose && noted(c, probe.NoteDelayedACK) {
		all = append(all, "fin_ack not known, the peer's kernel delayed it")
	}
	if _, ok := figure(c, probe.TimeWaitLasted); !ok && t.Limit > 0 {
		all = append(all, "time_wait not over after "+show.FormatDuration(t.Limit))
	}
	return head + form + ": " + strings.Join(all, ", ")
}

// LateLine is about an answer that came after the verdict, without the newline;
// empty if there was none.
func (t *Target) LateLine(c *show.Conversation, p Paint) string {
	i := slices.IndexFunc(c.Steps, func(s show.Step) bool { return s.Note == probe.NoteSYNACKLate.String() })
	if i < 0 || c.Discarded != probe.NotDiscarded {
		return ""
	}
	return fmt.Sprintf("%s %s seq=%d ", t, c.Kind, c.Number) +
		p.with(red, "answered too late, after "+show.FormatDuration(c.Steps[i].At))
}

// handshake says what a SYN-ACK told.
func handshake(c *show.Conversation, p Paint) string {
	var words []string
	if o, ok := figure(c, probe.HandshakeRTT); ok {
		words = append(words, "rtt="+p.with(bold, show.FormatDuration(o.Duration)))
	}
	if o, ok := figure(c, probe.PeerSeen); ok {
		words = append(words, fmt.Sprintf("ttl=%d", o.Peer.TTL))
		if o.Peer.MSS != 0 {
			words = append(words, fmt.Sprintf("mss=%d", o.Peer.MSS))
		}
		if o.Peer.SYNCookies == probe.Yes {
			words = append(words, "syn_cookies")
		}
	}
	return strings.Join(words, " ")
}

// measured are a conversation's figures, in the order in which they came; its
// reaction, which is ours, is left to the ladder.
func measured(c *show.Conversation, p Paint) []string {
	var all []string
	value := func(d time.Duration) string { return p.with(bold, show.FormatDuration(d)) }
	for i := range c.Figures {
		switch o := &c.Figures[i]; o.Kind {
		case probe.HandshakeRTT, probe.FINACKRTT, probe.CloseWaitTime, probe.PeerCloseTime, probe.LastACKRTT, probe.Teardown:
			if o.Duration >= 0 {
				name, _ := show.Interval(o.Kind)
				all = append(all, strings.TrimSuffix(name, "_rtt")+" "+value(o.Duration))
			}
		case probe.HalfCloseOctets:
			all = append(all, fmt.Sprintf("half_close %d octets", o.Octets))
		case probe.TimeWaitReuse:
			answer := "reuse " + o.Answer.String()
			if o.Duration >= 0 {
				answer += " " + value(o.Duration)
			}
			all = append(all, answer)
		case probe.TimeWaitLasted:
			all = append(all, "time_wait "+value(o.Least)+" to "+value(o.Duration))
		}
	}
	return all
}

// after says when a probe failed, from our SYN: of what failed because something
// did not come, its timeout.
func (t *Target) after(c *show.Conversation) string {
	at := t.Timeout
	if i := told(c); i >= 0 && !timedOut(c) {
		at = c.Steps[i].At
	}
	return " after " + show.FormatDuration(at)
}

// told returns the step that told of a failure, or -1 if there is none.
func told(c *show.Conversation) int {
	return slices.IndexFunc(c.Steps, func(s show.Step) bool {
		switch c.Reason {
		case probe.Refused:
			return s.Note == probe.NoteRefused.String()
		case probe.Reset:
			return s.Note == probe.NoteReset.String()
		case probe.Unreachable, probe.Prohibited:
			return s.Way == show.Error && s.ICMP.Failure() == c.Reason
		}
		return false
	})
}

// timedOut reports whether the verdict was the timer's, which an ICMP error from
// before may explain (RFC 5461 §2.2).
func timedOut(c *show.Conversation) bool {
	return slices.ContainsFunc(c.Steps, func(s show.Step) bool {
		return s.Event == probe.UserTimeout && s.Note == probe.NoteTimeout.String()
	})
}

// errorText says which ICMP error a failure was told by.
func errorText(c *show.Conversation) string {
	i := told(c)
	if i < 0 || c.Steps[i].Way != show.Error {
		return ""
	}
	return ": " + c.JSON().Steps[i].ICMP.Text
}

// discardText says of what is ours what happened to it.
func discardText(d probe.DiscardReason) string {
	what := map[probe.DiscardReason]string{
		probe.DiscardTapDrop:   "this host did not see all that came",
		probe.DiscardClockStep: "this host's clock was set",
		probe.DiscardSendError: "this host did not let it out",
		probe.DiscardStalled:   "this host answered too late",
		probe.DiscardShutdown:  "stopped before its end",
		probe.DiscardLinkDown:  "this host lost the interface or the address meanwhile",
	}[d]
	if what == "" {
		return d.String()
	}
	return d.String() + ", " + what
}

func parenthesised(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func noted(c *show.Conversation, n probe.Note) bool {
	return slices.ContainsFunc(c.Steps, func(s show.Step) bool { return s.Note == n.String() })
}

func figure(c *show.Conversation, k probe.ObservationKind) (probe.Observation, bool) {
	i := slices.IndexFunc(c.Figures, func(o probe.Observation) bool { return o.Kind == k })
	if i < 0 {
		return probe.Observation{}, false
	}
	return c.Figures[i], true
}
