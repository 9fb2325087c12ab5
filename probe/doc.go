// Package probe is the TCP conversation as a pure value: RFC 9293's states and
// events, seen from the side that measures. It has no clock, socket,
// goroutine, log or global: the same events give the same result, so a
// conversation can be replayed, fuzzed and simulated.
package probe
