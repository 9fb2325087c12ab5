package probe

// Seq is a TCP sequence number. Its order is modular: RFC 9293 §3.4 requires
// that "all arithmetic dealing with sequence numbers must be performed modulo
// 2^32".
type Seq uint32

// Add returns s+n modulo 2³².
func (s Seq) Add(n uint32) Seq { return s + Seq(n) }

// Sub returns how many octets s is ahead of t, modulo 2³²; negative if behind.
func (s Seq) Sub(t Seq) int32 { return int32(s - t) }

// Less reports whether s comes before t.
func (s Seq) Less(t Seq) bool { return int32(s-t) < 0 }

// LessEq reports whether s comes before t or is t.
func (s Seq) LessEq(t Seq) bool { return s == t || s.Less(t) }
