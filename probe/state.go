package probe

// State is a connection's state, RFC 9293 §3.3.2.
type State uint8

// The states in the RFC's order. Unknown is for a peer that has not spoken.
const (
	Unknown State = iota
	Closed
	Listen
	SynSent
	SynReceived
	Established
	FinWait1
	FinWait2
	CloseWait
	Closing
	LastAck
	TimeWait
)

var stateNames = [...]string{"-", "CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED",
	"FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"}

// String spells the state as RFC 9293 does.
func (s State) String() string { return name(stateNames[:], int(s)) }

// name is the bounds-checked look-up behind every String of this package.
func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "?"
}
