#!/usr/bin/env bash
# fuzz.sh TIME [blind]: runs every fuzz target of the tree for TIME, one after the other:
# 10m, or 500x for as many inputs. blind: without looking at what they reach. A moment is
# too short to learn from that, and all would be built once more for it.
set -euo pipefail
fuzztime=$1 how=${2:-guided}
GO=${GO:-go}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { # DIR BINARY TARGET
  local log=$work/$3.log
  # An input that is new is not made smaller for long: that is time not spent on others.
  # And a target whose time is up while its workers are busy fails before Go 1.27 with no
  # input to show for it (go.dev/issue/75804).
  if (cd "$1" && "$2" -test.run '^$' -test.fuzz "^$3\$" -test.fuzztime "$fuzztime" -test.fuzzminimizetime 1s \
    -test.fuzzcachedir "$cache/$1/$3" -test.parallel 2 >"$log" 2>&1) ||
    { grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; }; then
    printf '==> %s in %s: %s\n' "$3" "$1" "$(grep -o 'execs: [0-9]*.*' "$log" | tail -n 1)"
  else
    printf '==> %s in %s failed\n' "$3" "$1" >&2
    cat "$log" >&2
    return 1
  fi
}

cache=$work/corpus
instrument=()
if [ "$how" = guided ]; then
  instrument=(-fuzz .)
  cache=$("$GO" env GOCACHE)/fuzz/probed # what is found is the next run's start
fi
found=0
while read -r dir; do
  binary=$work/$(tr / _ <<<"$dir").test
  "$GO" test -c "${instrument[@]}" -o "$binary" "$dir"
  while read -r target; do
    found=$((found + 1))
    run "$dir" "$binary" "$target"
  done < <(grep -rhoP --include='*_test.go' '^func \KFuzz\w+' "$dir"/*_test.go)
done < <(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u)

if [ "$found" -eq 0 ]; then
  echo "fuzz.sh: no fuzz target found" >&2
  exit 1
fi
