#!/usr/bin/env bash
# promtool.sh DIR: puts Debian's promtool at DIR/usr/bin/promtool.
# The package is unpacked, not installed: installing it would start a Prometheus.
set -euo pipefail
dir=$1
promtool=$dir/usr/bin/promtool
if [ -x "$promtool" ]; then
  exit 0
fi

rm -rf "$dir" "$dir.new"
mkdir -p "$dir.new"
cd "$dir.new"

download() {
  local sandbox=()
  # apt's own user can't write here; root needs no other to fetch for it.
  [ "$(id -u)" -ne 0 ] || sandbox=(-o APT::Sandbox::User=root)
  apt-get -q -o Acquire::Retries=3 "${sandbox[@]}" download prometheus
}
if ! download 2>/dev/null; then
  # A new machine has no package lists yet.
  if [ "$(id -u)" -eq 0 ]; then apt-get -q update; else sudo apt-get -q update; fi
  download
fi
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb
usr/bin/promtool --version
mv "$dir.new" "$dir"
