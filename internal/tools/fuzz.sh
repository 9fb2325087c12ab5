#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the tree for TIME, one after the other.
set -euo pipefail
fuzztime=$1
GO=${GO:-go}

found=0
while read -r dir; do
  while read -r target; do
    found=$((found + 1))
    printf '==> %s in %s\n' "$target" "$dir"
    "$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$dir"
  done < <("$GO" test -list '^Fuzz' "$dir" | grep '^Fuzz')
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u)

if [ "$found" -eq 0 ]; then
  echo "fuzz.sh: no fuzz target found" >&2
  exit 1
fi
