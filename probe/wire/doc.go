// Package wire turns packets into probe.Segments and back. Its parsers are
// total: any bytes give a packet or one of the package's errors, unknown flags
// and options are kept, and nothing outside the given bytes is read. Its
// encoders append to the caller's memory. Neither allocates.
package wire
