// Package ping is what `probed ping` says: a line a probe, and what all of them
// together were. It computes and formats; whoever probes feeds it conversations,
// and knows the time and the terminal.
package ping
