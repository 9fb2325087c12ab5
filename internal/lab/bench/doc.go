// Package bench measures probed beside the tools that a user would pick instead:
// the same targets, the same run, in network namespaces, each bounded in packets
// and in time. docs/performance.md says what is measured and how, and has the table.
//
// The measuring is done by tests, because the laboratory is theirs: 'make bench'
// runs them with as many rounds as the figures want, 'make test' with one short
// round, which holds no figure against a bound but fails where a tool, a parser of
// its output or an account doesn't work any more. The environment says how:
//
//	BENCH_ROUNDS   paired rounds, 1 if unset: A B C, A B C, …
//	BENCH_WINDOW   how long each is measured for, 300ms if unset
//	BENCH_OUT      the file that a line for each is appended to, in Go's benchmark
//	               format, so that benchstat reads it; unset: a temporary one
//	BENCH_PAGE     a page to put the tables of BENCH_OUT into
//	PROBED         the daemon, as 'make build' left it; ./probed of this checkout if unset
//
// What is not a test turns those lines into tables, and is the net.Dialer loop.
package bench
