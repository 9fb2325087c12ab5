#!/usr/bin/env bash
# reproducible.sh: builds HEAD twice and compares the binaries, the packages and the
# SBOMs. The second time from an empty build cache and another module cache, at a longer
# path, on a branch, on a host of another name, by another user (if we are root), with
# another umask, time zone and language. NFPM is the packager of both, CHECK reads both's
# SBOMs. The work tree doesn't matter: only what is committed can be reproduced by
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

# The other's modules come from what has been fetched; go.sum says whether they are right.
clone a/second/clone/elsewhere
second=$work/a/second/clone/elsewhere
git -C "$second" checkout -q -B elsewhere
go=${GO:-go}
modules=$work/modules
fetch=$(cd / && "$go" mod download -json "$SCHEMAS" | sed -n 's/.*"GoMod": "\(.*\)\/cache\/download\/.*/\1/p')/cache/download
(
  export GOMODCACHE=$modules GOPROXY=file://$fetch GOFLAGS=-modcacherw GONOSUMDB=*
  cd "$second"
  "$go" list -deps ./cmd/probed
  "$go" mod graph
  cd /
  "$go" mod download "$SCHEMAS"
) >/dev/null

# A user may give a host a name of its own by being root in a namespace of its own.
elsewhere=(unshare --uts)
user=()
mkdir "$work/home" "$work/cache"
if [ "$(id -u)" -eq 0 ]; then
  tools=$work/tools # ours may lie where others can't look
  mkdir "$tools"
  cp "$NFPM" "$CHECK" "$tools/"
  export NFPM=$tools/${NFPM##*/} CHECK=$tools/${CHECK##*/}
  chmod 755 "$work" "$tools"/*
  chown -R 65534:65534 "$work/a" "$work/home" "$work/cache" "$modules"
  user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
else
  elsewhere+=(--map-root-user)
fi
(
  umask 077
  cd "$second"
  HOME=$work/home GOCACHE=$work/cache GOMODCACHE=$modules GOPROXY=file://$fetch GONOSUMDB=* TZ=Asia/Kathmandu LC_ALL=C.UTF-8 "${elsewhere[@]}" \
    bash -ec 'hostname elsewhere; exec "$@"' - "${user[@]}" make -s packages >/dev/null
)

first=$work/one/probed
second=$second/probed
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
  cmp "$package" "${second%/probed}/dist/$package" || {
    echo "reproducible.sh: the same commit gave two $package" >&2
    exit 1
  }
  sha256sum "$package"
done
ls probed_*.cdx.json >/dev/null
echo "reproducible: both builds gave the same static binary, the same packages and the same SBOM"
