#!/usr/bin/env bash
# debian-root.sh FILE.tar: a Debian 12 that boots, and no more than that: what a
# package finds on the smallest of machines. As a tar file, so that whoever has no
# root's rights can remove it; unpacked, it is 170 MB.
set -euo pipefail
file=$1

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
trap '"${as_root[@]}" rm -f "$file.new"' EXIT
mkdir -p "$(dirname "$file")"
# From where apt has this release here; without it, from where mmdebstrap says.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | sed -n 1p)
# iproute2 is for what the tests look at.
"${as_root[@]}" mmdebstrap --quiet --mode=root --variant=essential --format=tar \
  --include=apt,systemd,systemd-sysv,init-system-helpers,iproute2 \
  bookworm "$file.new" ${mirror:+"$mirror"}
[ ${#as_root[@]} -eq 0 ] || "${as_root[@]}" chown "$(id -u):$(id -g)" "$file.new"
mv "$file.new" "$file"
