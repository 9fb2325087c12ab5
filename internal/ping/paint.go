package ping

// A Paint colours what it writes, or not: it is true for a terminal that shows
// colours.
type Paint bool

// What colours say: the sixteen that every terminal has, and that its user chose.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (p Paint) with(code, s string) string {
	if !p || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Ours is the colour of what is this host's, and not the network's or the peer's.
func (p Paint) Ours(s string) string { return p.with(yellow, s) }
