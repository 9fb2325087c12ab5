// Package booted holds the tests of what is installed: the packages, in a Debian
// that boots under systemd-nspawn, and the container image's files. They need root,
// dist/ (make packages) and .cache/debian-bookworm.tar, which make test makes first.
//
// Each test boots a machine of its own, within a second: a memory overlay over one
// unpacked Debian, with a network namespace that has a loopback device and no way
// out.
package booted
