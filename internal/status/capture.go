package status

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/probed/probed/internal/show"
	"github.com/probed/probed/probe"
)

// maxName bounds what of a target's address goes into the name of a file, octets.
const maxName = 64

// apiCapture serves /api/v1/targets/{id}/capture.pcapng: the conversations that are
// remembered, each once and in the order of their beginnings.
func (s *server) apiCapture(w http.ResponseWriter, r *http.Request, t *Target) {
	failed, err := flag(r, "failed")
	if err != nil {
		failJSON(w, r, http.StatusBadRequest, err.Error())
		return
	}
	kept := t.Recorder.Failed()
	if !failed {
		kept = append(t.Recorder.Last(), kept...)
	}
	all := inOrder(kept)
	if text := r.URL.Query().Get("number"); text != "" {
		number, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			failJSON(w, r, http.StatusBadRequest, fmt.Sprintf("number: %q is no number of a conversation", text))
			return
		}
		all = slices.DeleteFunc(all, func(c *show.Conversation) bool { return c.Number != number })
	}
	if len(all) == 0 {
		failJSON(w, r, http.StatusNotFound, "no such conversation is remembered")
		return
	}
	var b bytes.Buffer
	if err := writeCapture(&b, s.Version, all); err != nil {
		failJSON(w, r, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+captureName(t.Address, all[len(all)-1].Zero)+`"`)
	send(w, r, http.StatusOK, "application/x-pcapng", b.Bytes())
}

// inOrder lays out each conversation once, the oldest first.
func inOrder(kept []probe.Transcript) []*show.Conversation {
	seen := make(map[uint64]bool, len(kept))
	all := make([]*show.Conversation, 0, len(kept))
	for i := range kept {
		if t := &kept[i]; !seen[t.Number] {
			seen[t.Number] = true
			all = append(all, show.Of(t))
		}
	}
	slices.SortStableFunc(all, func(a, b *show.Conversation) int { return cmp.Compare(a.Zero, b.Zero) })
	return all
}

func writeCapture(b *bytes.Buffer, version string, all []*show.Conversation) error {
	capture, err := show.NewCapture(b, version)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := capture.Write(c); err != nil {
			return err
		}
	}
	return nil
}

// captureName names the file by the target and by when its last conversation began.
// Only letters, digits, points and hyphens of ASCII stay as they are: what a host is
// called must not decide where a browser puts the file.
func captureName(address string, at int64) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '_'
	}, address)
	safe = safe[:min(len(safe), maxName)]
	return "probed-" + safe + "-" + time.Unix(0, at).UTC().Format("20060102T150405Z") + ".pcapng"
}
