#!/usr/bin/env bash
# package.sh PROBED VERSION DIR: makes DIR/probed_*.deb, DIR/probed-*.rpm and
# DIR/rootfs.tar, which a container is made of, of a binary for any processor. The same
# commit and binary give the same bytes: every time stamp is SOURCE_DATE_EPOCH's. NFPM
# names the packager, GO the Go whose modules it was built from.
set -euo pipefail
probed=$(realpath "$1") version=$2
mkdir -p "$3"
dir=$(realpath "$3")
cd "$(dirname "$0")/../.."
: "${NFPM:?is to be the path of nfpm: run make packages}"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

STAGE=$(mktemp -d)
trap 'rm -rf "$STAGE"' EXIT
ARCH=$(${GO:-go} version -m "$probed" | sed -n 's/.*GOARCH=//p')
export STAGE ARCH PACKAGE_VERSION=$version

cp "$probed" "$STAGE/probed"
# What runs here, whatever it is made for.
here() { env GOOS= GOARCH= "${GO:-go}" "$@"; }
# A binary for another processor cannot tell its completions; they are the same for all.
teller=$probed
if [ "$ARCH" != "$(here env GOHOSTARCH)" ]; then
  teller=$STAGE/teller
  CGO_ENABLED=0 here build -trimpath -o "$teller" ./cmd/probed
fi
# To Go armel and armhf are one.
if [ "$ARCH" = arm ]; then
  ARCH+=$(${GO:-go} version -m "$probed" | sed -n 's/.*GOARM=\([0-9]\).*/\1/p')
fi
"$teller" --completion-script-bash >"$STAGE/probed.bash"
"$teller" --completion-script-zsh >"$STAGE/_probed"
gzip -9n <deploy/package/probed.1 >"$STAGE/probed.1.gz"
gzip -9n <deploy/package/probed.yml.5 >"$STAGE/probed.yml.5.gz"
gzip -9n <CHANGELOG.md >"$STAGE/changelog.gz"
internal/tools/third-party.sh "$probed" | gzip -9n >"$STAGE/third-party.gz"
gzip -9n >"$STAGE/changelog.Debian.gz" <<TEXT
probed ($version-1) unstable; urgency=medium

  * What is new is in changelog.gz.

 -- The probed authors <probed@users.noreply.github.com>  $(LC_ALL=C date -uR -d "@$SOURCE_DATE_EPOCH")
TEXT
# A file's own time would be the checkout's: nfpm takes it for what has none given.
find "$STAGE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

rm -f "$dir"/probed[_-]*.deb "$dir"/probed[_-]*.rpm
for packager in deb rpm; do
  said=$("$NFPM" package --config deploy/package/nfpm.yaml --packager $packager --target "$dir/" 2>&1) || { echo "$said" >&2; exit 1; }
done
CGO_ENABLED=0 here run -trimpath ./internal/tools/rootfs "$probed" "$STAGE/third-party.gz" "$dir/rootfs.tar"
ls "$dir/rootfs.tar" "$dir"/probed[_-]*.deb "$dir"/probed[_-]*.rpm
