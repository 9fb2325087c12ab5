package probe

// SendSequence returns SND.UNA and SND.NXT of a connection for the invariants'
// test, and whether there is one.
func (c *Conversation) SendSequence() (una, nxt Seq, established bool) {
	return c.conn.sndUna, c.sndNxt, c.established
}

// ReceiveNext returns RCV.NXT for the invariants' test.
func (c *Conversation) ReceiveNext() Seq { return c.rcvNxt }

// Scribble leaves marks of a connection everywhere that a Compact does not say.
func (c *Conversation) Scribble() {
	*c = Conversation{established: true, sndNxt: 1, rcvNxt: 2, stale: 3, answered: true, settled: true}
	c.cookies = cookieCheck{stage: cookiesAsked, irs: 4}
	c.conn = connection{prompts: true, tornDown: true, finished: true, sndUna: 5, ackAt: 6, closeAt: 7, retransmitAt: 8}
	c.tw = timeWait{next: 9, out: true, touches: 10}
}
