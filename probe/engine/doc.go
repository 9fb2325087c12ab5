// Package engine holds everything of probing that has state: the schedule, the
// source ports, the timers, the demultiplexing by four-tuple, the rate limits,
// and the loop that owns them. It decides when; package probe decides what. It
// reaches the network and both clocks through one small interface, Network, so
// that the whole of it runs against a simulated network in virtual time.
//
// A Shard is one loop with its own range of source ports. Nothing is shared
// between shards, and only the loop's goroutine touches a shard's state: others
// hand it commands.
package engine
