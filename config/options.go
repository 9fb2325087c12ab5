package config

import "net/netip"

// Options are what a configuration depends on besides its file. They stay with
// the Config.
type Options struct {
	Shard Shard
	// Own reports whether an address is this host's, which is how it finds itself
	// in a mesh; nil: none is.
	Own func(netip.Addr) bool
}
