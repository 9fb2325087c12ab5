// Package confine takes from this process, on every thread, what it does not need:
// capabilities ([Keep]), the right to gain others (no_new_privs), to be looked into
// ([Undumpable]), files to write ([ReadOnly]), and system calls ([Filter]). None of it can be taken back, and it
// needs nobody's help: it holds under systemd, in a container and from a shell alike.
//
// # What a filter refuses
//
// What a filter does not list gives EPERM, and a line in the kernel's log or audit
// trail. Considered: to end the process instead. A monitor that dies of a call that a
// later version of Go makes once a week is the outage; to somebody who has taken it
// over, an error is as much of a wall as an end after which he may try again.
//
// # Alternatives considered
//
// A library for the filter: a table and 60 lines that assemble it are less than what
// would be depended on. Landlock for what is read, too: see docs/threat-model.md.
package confine

import "errors"

// ErrNoList is why [Filter] does nothing on an architecture whose system calls nobody has
// listed. No setting would mend it.
var ErrNoList = errors.New("no list of system calls")
