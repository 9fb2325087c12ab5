package engine

// prefetch has the processor fetch what lies at some addresses, and does not wait.
//
//go:noescape
func prefetch(addresses []uintptr)
