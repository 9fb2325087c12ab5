// Package arch holds no code: its test is the architecture. It fails when a room
// of the house imports one that it must not know of, when the conversation
// learns what time it is, or when the laboratory gets into the daemon.
package arch
