#!/usr/bin/env bash
# demo.sh PROBED: runs it on its embedded default, shows the first figures from
# /metrics, and stays until Ctrl-C, or for DEMO_SECONDS. Fails when probed ends by
# itself, or when no handshake was measured.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
probed=$1
port=${DEMO_PORT:-10965}
seconds=${DEMO_SECONDS:-}

fail() { echo "demo: $*" >&2; exit 1; }

# bash's own TCP, so that a fresh machine needs no HTTP client.
get() {
  exec 3<>"/dev/tcp/127.0.0.1/$port" || return
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  cat <&3
} 2>/dev/null

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  fail "port $port is taken (see: ss -ltnp 'sport = :$port'); choose another: make demo DEMO_PORT=10966"
fi

# Raw sockets are all the rights that probed needs.
if [ "$(id -u)" -ne 0 ]; then
  echo "demo: giving $probed the right to open raw sockets: sudo setcap cap_net_raw+ep"
  sudo env "PATH=$PATH" setcap cap_net_raw+ep "$probed" || fail "setcap failed: run 'make demo' as root instead"
fi

# In a process group of its own, so that one signal reaches it when the demo is
# interrupted: ours, below.
set -m
"$probed" --web.listen-address=":$port" </dev/null &
pid=$!
set +m

status=0
stop() {
  trap '' INT TERM
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || status=$?
  [ "$status" -eq 0 ] || fail "probed ended with status $status"
  echo "demo: stopped"
  exit 0
}
trap stop INT TERM

measured() { # the numbers of handshakes and of teardowns in the text on standard input
  awk '/^probed_handshake_rtt_seconds_count/ { n += $NF }
       /^probed_teardown_seconds_count/ { m += $NF } END { print n + 0, m + 0 }'
}
handshakes=0 teardowns=0
for _ in $(seq 100); do
  if ! kill -0 "$pid" 2>/dev/null; then
    wait "$pid" || status=$?
    fail "probed ended with status $status; why is said above"
  fi
  read -r handshakes teardowns < <( (get /metrics || true) | measured)
  [ "$handshakes" -lt 6 ] || [ "$teardowns" -lt 4 ] || break
  sleep 0.1
done
if [ "$handshakes" -eq 0 ] || [ "$teardowns" -eq 0 ]; then
  kill -TERM "$pid"
  fail "$handshakes handshakes and $teardowns teardowns measured within 10 seconds"
fi

cat <<TEXT

probed is measuring itself: it opens connections to its own web page and closes
them in every way, with this machine's own kernel at the other end.
Look at    http://localhost:$port/
           http://localhost:$port/metrics
Among them now:

TEXT
get /metrics | awk '
  function label(line, name) { sub(".*[{,]" name "=\"", "", line); sub(/".*/, "", line); return line }
  /^probed_(probes_total|probe_failures_total|teardowns_total|time_wait_reuse_total)[{ ]/ && $NF > 0 { print "  " $0 }
  /^probed_[a-z_]*_seconds_(sum|count)\{job_name/ {
    name = $0; sub(/\{.*/, "", name); sub(/^probed_/, "", name)
    kind = name; sub(/.*_/, "", kind); sub(/_seconds_(sum|count)$/, "", name)
    key = label($0, "module") " " label($0, "target") ": " name
    if (kind == "sum") sum[key] = $NF; else count[key] = $NF
  }
  END {
    print ""
    for (key in count) if (count[key] > 0)
      printf "  %s %.1f µs, the mean of %d\n", key, 1e6 * sum[key] / count[key], count[key] | "sort"
  }'
echo

if [ -n "$seconds" ]; then
  sleep "$seconds" &
  wait $! || true
  kill -0 "$pid" 2>/dev/null || fail "probed ended by itself"
  stop
fi
echo "Ctrl-C stops it."
wait "$pid" || status=$?
fail "probed ended by itself with status $status"
