package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// usualWidth is that of a terminal that does not say, and of what is none.
const usualWidth = 80

// A terminal is where a person reads, or what is there instead.
type terminal struct {
	width int // columns
	color bool
}

// terminalOf asks what w is. Colour is for a terminal that has it, unless its user
// wants none (https://no-color.org).
func terminalOf(w io.Writer, getenv func(string) string) terminal {
	t := terminal{width: usualWidth}
	f, ok := w.(*os.File)
	if !ok {
		return t
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return t
	}
	t.color = getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		t.width = int(size.Col)
	}
	return t
}
