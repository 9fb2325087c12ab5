#!/usr/bin/env bash
# promtool.sh DIR: puts Debian's promtool, prometheus and amtool into DIR/usr/bin.
# The packages are unpacked, not installed: installing them would start servers.
set -euo pipefail
dir=$1
present() {
  for program in promtool prometheus amtool; do
    [ -x "$dir/usr/bin/$program" ] || return
  done
}
if present; then
  exit 0
fi

rm -rf "$dir.new"
mkdir -p "$dir.new"
cd "$dir.new"

download() {
  local sandbox=()
  # apt's own user can't write here; root needs no other to fetch for it.
  [ "$(id -u)" -ne 0 ] || sandbox=(-o APT::Sandbox::User=root)
  apt-get -q -o Acquire::Retries=3 "${sandbox[@]}" download prometheus prometheus-alertmanager
}
if ! download 2>/dev/null; then
  # A new machine has no package lists yet.
  if [ "$(id -u)" -eq 0 ]; then apt-get -q update; else sudo apt-get -q update; fi
  download
fi
for package in prometheus_*.deb prometheus-alertmanager_*.deb; do
  dpkg-deb -x "$package" .
  rm "$package"
done
usr/bin/promtool --version
usr/bin/amtool --version
rm -rf "$dir"
mv "$dir.new" "$dir"
