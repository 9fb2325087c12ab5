// Package script is a small language for what can happen to a conversation, in
// the spirit of packetdrill: what we send, what arrives, when, and what is
// concluded. A script is read by anyone who knows TCP, and played by Run
// against probe.Step, with nothing else around.
//
//	# a comment
//	half_open timeout 900ms linger 5s grace 50ms
//
//	+0      open
//	        > S 0 win 64240 <mss 1460,sackOK>
//	+10us   sent S 0
//	+20ms   < S. 0 ack 1 win 65160 ttl 57 <mss 1460,sackOK>
//	        ! handshake_rtt 20ms
//	        ! peer ttl 57 win 65160 mss 1460 sack
//	        ! verdict ok
//	        = SYN-SENT SYN-RECEIVED
//	+12us   sent R 1
//	        ! reaction 12us
//	        = CLOSED LISTEN
//	+5s     TIME-WAIT TIMEOUT
//	        done
//
// The first line that is not a comment says how the conversation is held; for
// half_open it may end in "cookies", to detect them, and for each kind in "ipv6",
// for a peer that is reached by that. The kinds that go past the SYN-ACK have no
// grace, and may have more:
//
//	active_close timeout 5s linger 4s send 100 hold 50ms fin_with_data
//	active_close timeout 5s linger 4s prompt
//	passive_close timeout 5s linger 4s send 100 combined
//	time_wait timeout 5s linger 4s reuse 1s lower
//	time_wait timeout 5s linger 4s duration 90s
//
// Each event begins with the time since the event before it:
//
//	open                      the OPEN call; the segment expected below it is the SYN
//	reopen                    a further SYN on the four-tuple: to detect cookies, or to TIME-WAIT
//	reopen SEGMENT            the same, where the SYN given is not the one expected below it
//	sent SEGMENT              the kernel's stamp of a segment of ours that left
//	< SEGMENT                 a segment arrives
//	< icmp 3/1 seq 0          an ICMP error that quotes a segment of ours; icmp6 likewise
//	USER TIMEOUT              a timer goes off: at its deadline exactly, unless "late"
//	                          follows; RETRANSMISSION TIMEOUT, TIME-WAIT TIMEOUT, ACK TIMEOUT
//	                          and CLOSE (the CLOSE call, after hold) likewise
//	open narrow               the path is known to take small segments only; RETRANSMISSION
//	                          TIMEOUT likewise
//	send failed               our host refused a segment
//	no room SEGMENT           the limits leave none for it, and it was not sent
//	no room                   the limits leave none for what a timer is to send
//	spoiled tap_drop          our own observation failed, and how
//	abort shutdown            the ABORT call, and why
//	clock +3s                 the packet clock steps, and it is noticed; "unseen": it is not
//
// "sent" and "<" may end in "stamped 3ms ago" (handled that much later than
// stamped), "unstamped" (no stamp, or one from an unknown stretch of the
// clock), and "overdue" (handled although the timer's deadline has passed).
//
// What an event leads to stands below it, in order and without gaps; what is
// not listed must not happen. "> SEGMENT" is a segment to send, "! KIND …" an
// observation, "done" the end. "= LOCAL PEER" (both states) and a note in
// double quotes are checked where they stand.
//
// A segment is FLAGS SEQ [ack N] [len N] [win N] [urg N] [ttl N] [tos N]
// [<OPTIONS>], flags as tcpdump writes them. Our numbers are relative to our
// ISS, the peer's to its IRS; "=N" is absolute. SACK blocks are written as in
// <TS val 5 ecr 6,sack 101:201 301:401>.
//
// "each NAME VALUE …" above the first event plays the script once for every
// value, which stands for $NAME in the lines; a value with blanks in it is
// quoted.
package script
