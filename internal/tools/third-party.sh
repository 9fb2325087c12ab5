#!/usr/bin/env bash
# third-party.sh PROBED: writes the notices and licences of all that is linked into a
# binary: Go's own and its modules', which all ask for that.
set -euo pipefail
go=${GO:-go}

text() { # TITLE FOLDER
  local found=
  for file in "$2"/{LICENSE,LICENCE,COPYING,NOTICE}*; do
    [ -f "$file" ] || continue
    case $file in *.go) continue ;; esac
    printf '\n======== %s: %s\n\n' "$1" "${file##*/}"
    cat "$file"
    found=yes
  done
  [ -n "$found" ] || { echo "third-party.sh: $1 has no licence in $2" >&2; return 1; }
}

echo "probed is linked with the following, each under its own licence."
text "Go $($go version "$1" | sed 's/.*: go//')" "$($go env GOROOT)"
$go version -m "$1" | awk '$1 == "dep" { print $2 "@" $3 }' | while read -r module; do
  text "$module" "$($go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')"
done
