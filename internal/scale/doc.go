// Package scale holds what is said of many targets: the engine with a million of them
// through a day of virtual time, and the octets and allocations that a target and a
// probe may take. It has tests alone.
package scale
