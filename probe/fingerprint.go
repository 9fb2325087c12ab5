package probe

// A Fingerprint is what a SYN-ACK tells about the peer's TCP and the path.
type Fingerprint struct {
	TTL         uint8    // as received
	WindowScale int8     // shift count; -1 without the option
	SACK        bool     // SACK permitted
	Timestamps  bool     // RFC 7323 timestamps
	ECN         bool     // RFC 3168 §6.1.1: ECE without CWR in answer to our ECN-setup SYN
	SYNCookies  Tristate // whether the SYN-ACK was made from a cookie
	MSS         uint16   // octets; 0 without the option
	Window      uint16   // SEG.WND
}

// A Trait is one property of a peer's fingerprint that stays the same as long as
// the peer and the path do. The TTL itself and the window are not: the one differs
// between equal paths of a different initial value, the other between sockets.
// Hops stands for the first.
type Trait uint8

// The traits.
const (
	TraitHops Trait = iota
	TraitMSS
	TraitWindowScale
	TraitSACK
	TraitTimestamps
	TraitECN
	TraitSYNCookies
	NumTraits = int(TraitSYNCookies) + 1
)

var traitNames = [...]string{"hops", "mss", "window_scale", "sack", "timestamps", "ecn", "syn_cookies"}

// String is the trait's label value.
func (t Trait) String() string { return name(traitNames[:], int(t)) }

// After returns the fingerprint, seen after old, and which traits have changed.
// Whether SYN cookies are in use is not known from every SYN-ACK: what was known
// last stays.
func (f Fingerprint) After(old Fingerprint) (now Fingerprint, changed [NumTraits]bool) {
	if f.SYNCookies == NotKnown {
		f.SYNCookies = old.SYNCookies
	}
	return f, [NumTraits]bool{
		TraitHops:        Hops(f.TTL) != Hops(old.TTL),
		TraitMSS:         f.MSS != old.MSS,
		TraitWindowScale: f.WindowScale != old.WindowScale,
		TraitSACK:        f.SACK != old.SACK,
		TraitTimestamps:  f.Timestamps != old.Timestamps,
		TraitECN:         f.ECN != old.ECN,
		TraitSYNCookies:  f.SYNCookies != old.SYNCookies && old.SYNCookies != NotKnown,
	}
}

// Tristate is a yes, a no, or not known.
type Tristate uint8

// The three.
const (
	NotKnown Tristate = iota
	No
	Yes
)

var tristateNames = [...]string{"unknown", "no", "yes"}

// String is the label value.
func (t Tristate) String() string { return name(tristateNames[:], int(t)) }

// Hops estimates how many routers a segment crossed from the TTL that it
// arrived with: the next of 32, 64, 128, 255 above it, minus it.
func Hops(ttl uint8) int {
	for _, initial := range [...]int{32, 64, 128, 255} {
		if int(ttl) <= initial {
			return initial - int(ttl)
		}
	}
	return 0
}
