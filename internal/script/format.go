package script

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/probed/probed/probe"
)

// FormatSegment writes a segment as scripts do, its sequence number relative
// to seq and its acknowledgement relative to ack.
func FormatSegment(s *probe.Segment, seq, ack probe.Seq) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", formatFlags(s.Flags), s.Seq.Sub(seq))
	if s.Flags.Has(probe.ACK) {
		fmt.Fprintf(&b, " ack %d", s.Ack.Sub(ack))
	} else if s.Ack != 0 {
		fmt.Fprintf(&b, " ack =%d", s.Ack)
	}
	for _, f := range []struct {
		name string
		n    uint32
	}{{"len", s.Len}, {"win", uint32(s.Window)}, {"urg", uint32(s.Urgent)}, {"ttl", uint32(s.TTL)}, {"tos", uint32(s.TOS)}} {
		if f.n != 0 {
			fmt.Fprintf(&b, " %s %d", f.name, f.n)
		}
	}
	if s.Options.Set != 0 {
		fmt.Fprintf(&b, " %s", formatOptions(&s.Options, ack))
	}
	return b.String()
}

func formatFlags(f probe.Flags) string {
	if f == 0 {
		return "none"
	}
	var b strings.Builder
	for i := range flagLetters {
		if f&(1<<i) != 0 {
			b.WriteByte(flagLetters[i])
		}
	}
	return b.String()
}

// formatOptions names the known options in Linux's order; the rest is shown as
// octets.
func formatOptions(o *probe.Options, ack probe.Seq) string {
	var list []string
	if o.Has(probe.OptMSS) {
		list = append(list, fmt.Sprintf("mss %d", o.MSS))
	}
	if o.Has(probe.OptSACKPermitted) {
		list = append(list, "sackOK")
	}
	if o.Has(probe.OptTimestamps) {
		list = append(list, fmt.Sprintf("TS val %d ecr %d", o.TSVal, o.TSEcr))
	}
	sack, ok := formatSACK(o, ack)
	if ok {
		list = append(list, sack)
	}
	if o.Has(probe.OptWindowScale) {
		list = append(list, fmt.Sprintf("wscale %d", o.WindowScale))
	}
	if o.Has(probe.OptFastOpen) {
		list = append(list, strings.TrimSpace("tfo "+hex.EncodeToString(o.Cookie[:min(int(o.CookieLen), len(o.Cookie))])))
	}
	if !ok && o.Set&(probe.OptUnknown|probe.OptMalformed|probe.OptSACK) != 0 {
		list = append(list, "octets "+hex.EncodeToString(o.Raw[:min(int(o.RawLen), len(o.Raw))]))
	}
	return "<" + strings.Join(list, ",") + ">"
}

// FormatObservation writes an observation as scripts do.
func FormatObservation(o *probe.Observation) string {
	switch o.Kind {
	case probe.Verdict:
		return fmt.Sprintf("%s %s", o.Kind, o.Reason)
	case probe.Discarded:
		return fmt.Sprintf("%s %s", o.Kind, o.Discard)
	case probe.Rejected:
		return fmt.Sprintf("%s %s", o.Kind, o.Reject)
	case probe.HandshakeRTT, probe.Reaction, probe.FINACKRTT, probe.CloseWaitTime, probe.PeerCloseTime, probe.LastACKRTT:
		return fmt.Sprintf("%s %s", o.Kind, o.Duration)
	case probe.Teardown:
		return fmt.Sprintf("%s %s %s", o.Kind, o.Form, formatDuration(o.Duration))
	case probe.HalfCloseOctets:
		return fmt.Sprintf("%s %d", o.Kind, o.Octets)
	case probe.FINRetransmit:
		return fmt.Sprintf("%s %s", o.Kind, o.Side)
	case probe.TimeWaitReuse:
		return fmt.Sprintf("%s %s %s", o.Kind, o.Answer, formatDuration(o.Duration))
	case probe.TimeWaitLasted:
		return fmt.Sprintf("%s %s %s", o.Kind, o.Least, o.Duration)
	case probe.PeerSeen:
		return fmt.Sprintf("%s %s", o.Kind, formatPeer(&o.Peer))
	}
	return o.Kind.String()
}

// formatDuration writes a duration that may not be known.
func formatDuration(d time.Duration) string {
	if d < 0 {
		return "unknown"
	}
	return d.String()
}

func formatPeer(f *probe.Fingerprint) string {
	list := []string{fmt.Sprintf("ttl %d win %d", f.TTL, f.Window)}
	if f.MSS != 0 {
		list = append(list, fmt.Sprintf("mss %d", f.MSS))
	}
	if f.WindowScale >= 0 {
		list = append(list, fmt.Sprintf("wscale %d", f.WindowScale))
	}
	for _, b := range []struct {
		name string
		is   bool
	}{{"sack", f.SACK}, {"timestamps", f.Timestamps}, {"ecn", f.ECN}} {
		if b.is {
			list = append(list, b.name)
		}
	}
	if f.SYNCookies != probe.NotKnown {
		list = append(list, "cookies "+f.SYNCookies.String())
	}
	return strings.Join(list, " ")
}
