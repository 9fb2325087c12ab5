package config

import "net/netip"

// Options are what a configuration depends on besides its file. They stay with
// the Config.
type Options struct {
	Shard Shard
	// Own reports whether an address is this host's, which is how it finds itself
	// in a mesh; nil: none is.
	Own func(netip.Addr) bool
	// Readable says what keeps us from reading the files that a pattern of
	// file_sd_configs may fit, such as a folder that is not ours to enter; nil: nothing
	// does. That there is none is nothing wrong.
	Readable func(pattern string) error
	// Reserve sets memory aside for reading a file until release is called, or says that
	// there is none left; nil: there is enough.
	Reserve func(octets int64) (release func(), err error)
}
