// Package trust attacks probed and breaks what it stands on, and says what came of it:
// the daemon as it is installed, with CAP_NET_RAW alone, between network namespaces,
// against forged segments, floods, faults of the host, crashes and web clients.
//
// The tests do the work, because the laboratory is theirs: 'make trust' runs them at full length,
// 'make test' a short form of each, which holds the same promises. Each test books a
// [Row] for each fault or attack. The environment says how:
//
//	TRUST_FULL     not empty: as often and as long as docs/trust.md says
//	TRUST_OUT      the file that rows are appended to, a JSON object a line; unset: none
//	TRUST_PAGE     a page to put the table of TRUST_OUT into
//	PROBED         the daemon, as 'make build' left it; ./probed of this checkout if unset
//
// What is not a test turns rows into the table.
package trust
