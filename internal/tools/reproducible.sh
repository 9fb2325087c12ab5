#!/usr/bin/env bash
# reproducible.sh: builds HEAD twice and compares the binaries and the packages. The
# second time from an empty build cache, at a longer path, on a branch, on a host of
# another name, with another umask, time zone and language. NFPM is the packager of
# both. The work tree doesn't matter: only what is committed can be reproduced by
# somebody else.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
commit=$(git -C "$root" rev-parse HEAD) # somebody may commit meanwhile
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

clone() { # FOLDER
  git clone -q --no-checkout "$root" "$work/$1"
  git -C "$work/$1" checkout -q --detach "$commit"
}
clone one
umask 022
make -s -C "$work/one" packages >/dev/null

# A user may give a host a name of its own by being root in a namespace of its own.
elsewhere=(unshare --uts)
[ "$(id -u)" -eq 0 ] || elsewhere+=(--map-root-user)
clone a/second/clone/elsewhere
git -C "$work/a/second/clone/elsewhere" checkout -q -B elsewhere
(
  umask 077
  GOCACHE=$work/cache TZ=Asia/Kathmandu LC_ALL=C.UTF-8 "${elsewhere[@]}" \
    bash -ec 'hostname elsewhere; exec "$@"' - make -s -C "$work/a/second/clone/elsewhere" packages >/dev/null
)

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
