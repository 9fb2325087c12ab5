package probe

// SendSequence returns SND.UNA and SND.NXT of a connection for the invariants'
// test, and whether there is one.
func (c *Conversation) SendSequence() (una, nxt Seq, established bool) {
	return c.conn.sndUna, c.sndNxt, c.established
}

// ReceiveNext returns RCV.NXT for the invariants' test.
func (c *Conversation) ReceiveNext() Seq { return c.rcvNxt }
