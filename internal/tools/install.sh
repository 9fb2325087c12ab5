#!/usr/bin/env bash
# install.sh TOOL...: makes each tool available, through apt-get where it isn't.
# Asks apt for nothing, and needs no rights, when all are there.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps nft, ip and setcap, but not in a user's PATH

package_of() {
  case $1 in
    chromium | tcpdump | tshark | gcc | nginx | haproxy | nsd | mmdebstrap | lintian | rpm | rpmlint | mandoc | runc | strace) echo "$1" ;;
    zmap | masscan | hping3 | scamper | prometheus-blackbox-exporter | prometheus-smokeping-prober) echo "$1" ;;
    nping) echo nmap ;;
    perf) echo linux-perf ;;
    ping) echo iputils-ping ;;
    ca-certificates) echo "$1" ;;
    nspawn) echo systemd-container ;;
    nft) echo nftables ;;
    ip | ss) echo iproute2 ;;
    setcap) echo libcap2-bin ;;
    sysctl) echo procps ;;
    libc-headers) echo libc6-dev ;; # what cgo, and so the race detector, compiles against
    lwip) echo liblwip-dev ;;
    fonts) echo fonts-noto-core ;; # chromium brings none
    fonts-cjk) echo fonts-wqy-zenhei ;;
    *) echo "install.sh: no package known for $1" >&2; return 1 ;;
  esac
}

present() {
  case $1 in
    libc-headers) [ -e /usr/include/stdlib.h ] ;;
    lwip) [ -e /usr/include/lwip/lwipopts.h ] ;;
    fonts) [ -e /usr/share/fonts/truetype/noto/NotoSans-Regular.ttf ] ;;
    fonts-cjk) [ -e /usr/share/fonts/truetype/wqy/wqy-zenhei.ttc ] ;;
    ca-certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
    nspawn) command -v systemd-nspawn >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for tool in "$@"; do
  present "$tool" || missing+=("$(package_of "$tool")")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install.sh: ${missing[*]} missing, and neither root nor sudo to install with" >&2
    exit 1
  fi
  as_root=(sudo)
fi
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 "$@"
}

# The servers are for the tests to run. Debian's packages would start them,
# now and at every boot: a policy says no to the first (invoke-rc.d(8)).
servers=()
for package in "${missing[@]}"; do
  case $package in nginx | haproxy | nsd | prometheus-*) servers+=("$package") ;; esac
done
policy=/usr/sbin/policy-rc.d
if [ ${#servers[@]} -gt 0 ] && [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  trap '"${as_root[@]}" rm -f $policy' EXIT
  "${as_root[@]}" chmod 755 $policy
fi

echo "installing ${missing[*]}"
apt update
apt install -y --no-install-recommends "${missing[@]}"
if [ ${#servers[@]} -gt 0 ] && command -v systemctl >/dev/null; then
  "${as_root[@]}" systemctl disable --quiet "${servers[@]}"
fi

for tool in "$@"; do
  present "$tool" || { echo "install.sh: $tool is still not there" >&2; exit 1; }
done
