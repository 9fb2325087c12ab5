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

measured() { # the number of handshakes in the text on standard input
  awk '/^probed_handshake_rtt_seconds_count/ { n += $NF } END { print n + 0 }'
}
handshakes=0
for _ in $(seq 100); do
  if ! kill -0 "$pid" 2>/dev/null; then
    wait "$pid" || status=$?
    fail "probed ended with status $status; why is said above"
  fi
  handshakes=$( (get /metrics || true) | measured)
  [ "$handshakes" -lt 6 ] || break
  sleep 0.1
done
if [ "$handshakes" -eq 0 ]; then
  kill -TERM "$pid"
  fail "no handshake measured within 10 seconds"
fi

cat <<TEXT

probed is measuring itself: SYN, SYN-ACK and RST with this machine's own kernel.
Look at    http://localhost:$port/
           http://localhost:$port/metrics
Among them now:

TEXT
get /metrics | awk '
  /^probed_(probes_total|probe_failures_total|handshake_rtt_seconds_(sum|count))[{ ]/ { print "  " $0 }
  /^probed_handshake_rtt_seconds_sum/   { key = $0; sub(/ [^ ]*$/, "", key); sub(/_sum/, "", key); sum[key] = $NF }
  /^probed_handshake_rtt_seconds_count/ { key = $0; sub(/ [^ ]*$/, "", key); sub(/_count/, "", key); count[key] = $NF }
  END {
    print ""
    for (key in count) if (count[key] > 0) {
      target = key; sub(/.*[{,]target="/, "", target); sub(/".*/, "", target)
      module = key; sub(/.*[{,]module="/, "", module); sub(/".*/, "", module)
      printf "  %s (%s): handshakes %d, mean round trip %.1f microseconds\n", target, module, count[key], 1e6 * sum[key] / count[key]
    }
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
