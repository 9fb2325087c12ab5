#!/usr/bin/env bash
# vulncheck.sh GOVULNCHECK PROBED: known vulnerabilities in our code, by what it calls,
# and in the binary, by what is linked into it: one with its symbols, for without them
# whatever a module has counts, called or not. GOVULNDB names another database than
# Go's own: file:///path of a folder laid out as that is.
set -euo pipefail
govulncheck=$1 probed=$2
db=()
[ -z "${GOVULNDB:-}" ] || db=(-db "$GOVULNDB")

found=0
look() {
  local status=0
  echo "==> govulncheck $*"
  "$govulncheck" "${db[@]}" "$@" || status=$?
  case $status in
  0) ;;
  3) found=1 ;; # as govulncheck says it
  *)
    echo "vulncheck.sh: nothing is known: govulncheck could not look. It needs its database: the network, or GOVULNDB" >&2
    exit "$status"
    ;;
  esac
}
look -test ./...
look -mode binary "$probed"
exit "$found"
