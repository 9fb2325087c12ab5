#!/usr/bin/env bash
# reproducible.sh: builds HEAD twice, in two clones at paths of different length,
# the second time from an empty build cache, and compares the binaries and the
# packages. NFPM is the packager of both. The work
# tree doesn't matter: only what is committed can be reproduced by somebody else.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
commit=$(git -C "$root" rev-parse HEAD) # somebody may commit meanwhile
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # FOLDER
  git clone -q "$root" "$work/$1"
  git -C "$work/$1" reset -q --hard "$commit"
  make -s -C "$work/$1" packages >/dev/null
}
build one
GOCACHE=$work/cache build a/second/clone/elsewhere

first=$work/one/probed
second=$work/a/second/clone/elsewhere/probed
sha256sum "$first" "$second"
if ! cmp "$first" "$second"; then
  echo "reproducible.sh: the same commit gave two binaries; compare what 'go version -m' says of them" >&2
  exit 1
fi
if ldd "$first" >/dev/null 2>&1; then
  echo "reproducible.sh: probed is not static: $(ldd "$first")" >&2
  exit 1
fi
cd "$work/one/dist"
for package in *; do
  cmp "$package" "$work/a/second/clone/elsewhere/dist/$package" || {
    echo "reproducible.sh: the same commit gave two $package" >&2
    exit 1
  }
  sha256sum "$package"
done
echo "reproducible: both builds gave the same static binary and the same packages"
