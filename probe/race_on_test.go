//go:build race

package probe_test

// raceEnabled says that the race detector slows everything down.
const raceEnabled = true
