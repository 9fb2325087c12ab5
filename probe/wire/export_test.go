package wire

// ParseAny is Parse without the way that plain packets take.
func ParseAny(b []byte, p *Packet) error { return p.parse(b) }
