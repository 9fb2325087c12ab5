#!/usr/bin/env bash
# syscalls.sh TESTS: runs those tests of cmd/probed with each probed that they start under
# strace, and compares what it called after its start with the list of internal/confine.
# It fails if the filter refused something. Tests may fail, since strace slows probed down:
# what they had it do counts.
set -euo pipefail
cd "$(dirname "$0")/../.."
GO=${GO:-go}

dir=$(mktemp -d /tmp/probed-syscalls-XXXXXX)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/traces"
chmod 755 "$dir"
chmod 1777 "$dir/traces" # some of them run as another user
CGO_ENABLED=0 "$GO" test -c -o "$dir/probed.test" ./cmd/probed
(cd cmd/probed && PROBED_TEST_TRACE=$dir/traces "$dir/probed.test" -test.run "$1" -test.timeout 40m >"$dir/log" 2>&1) ||
  echo "$(grep -c '^--- FAIL' "$dir/log" || true) tests failed under strace"

# Of each process what follows the filter's installation: "name refused|made".
find "$dir/traces" -name '*.strace' -print0 | xargs -0 -r -n1 awk '
  !on { on = /seccomp\(SECCOMP_SET_MODE_FILTER/; next }
  / = \?$/ { next } # cut off by the end of the process
  match($0, /^[0-9]+ +[a-z0-9_]+\(/) {
    name = substr($0, RSTART, RLENGTH - 1); sub(/^[0-9]+ +/, "", name)
    print name, (/ = -1 EPERM/ ? "refused" : "made")
    if (/ = -1 EPERM/) print > "/dev/stderr"
  }' 2>"$dir/refused" | sort | uniq -c | sort -rn >"$dir/calls"
processes=$(find "$dir/traces" -name '*.strace' | wc -l)
echo "==> system calls of $processes processes after their start, but for those that the loop makes all the time"
cat "$dir/calls"
sed -nE 's/^\t\t\{"([a-z0-9_]+)", unix\.SYS_.*/\1/p' internal/confine/calls.go | sort >"$dir/list"
awk '$3 == "made" { print $2 }' "$dir/calls" | sort -u >"$dir/made"
echo "==> listed, and not seen"
comm -23 "$dir/list" "$dir/made" | grep -vxE 'ppoll|sendmmsg|futex|nanosleep|getpid|tgkill|rt_sigreturn' || true # which are not traced
[ "$processes" -gt 0 ] || { echo "syscalls.sh: nothing was traced" >&2; exit 1; }
unlisted=$(comm -13 "$dir/list" "$dir/made")
[ -z "$unlisted" ] || { printf '==> made, and not listed\n%s\n' "$unlisted" >&2; exit 1; }
# A firewall of the tests refuses with EPERM too, and epoll with it what is no socket.
refused=$(grep -vE ' (sendto|sendmsg|connect|epoll_ctl)\(' "$dir/refused" | head -n 20 || true)
[ -z "$refused" ] || { printf '==> refused\n%s\n' "$refused" >&2; exit 1; }
