package show

import (
	"fmt"
	"io"
)

// TextOptions says how WriteLadder draws.
type TextOptions struct {
	Width int  // of the terminal, columns; 60 at least, 0 is 80
	Color bool // SGR sequences
}

// WriteLadder draws the time-sequence ladder as text.
func (c *Conversation) WriteLadder(w io.Writer, o TextOptions) error {
	for i := range c.Steps {
		s := &c.Steps[i]
		if _, err := fmt.Fprintf(w, "%11s %-12s %s %-12s %s\n", FormatDuration(s.At), s.Local, c.AppendSegment(nil, i, SegmentOptions{}), s.Peer, s.Note); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "verdict", c.Verdict())
	return err
}
