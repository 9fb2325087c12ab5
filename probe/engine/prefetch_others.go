//go:build !amd64 && !arm64

package engine

// prefetch does nothing where we don't know how.
func prefetch([]uintptr) {}
