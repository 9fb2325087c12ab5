#!/usr/bin/env bash
# package-version.sh: the version of packages made here, in Debian's and RPM's order:
# 1.2.3 at the tag v1.2.3, then 1.2.3+git20261121.131400.0123456789ab by the time of
# the commit; before any tag 0~git20261121.131400.0123456789ab.
set -euo pipefail

base=0~ exact=
if tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
  base=${tag#v} base=${base//-/\~}+ # a release candidate sorts before its release
  exact=$(git describe --tags --exact-match --match "$tag" 2>/dev/null || true)
fi
dirty=
git diff --quiet HEAD -- 2>/dev/null || dirty=.dirty
if [ -n "$exact" ] && [ -z "$dirty" ]; then
  echo "${base%+}"
elif commit=$(TZ=UTC git log -1 --abbrev=12 --date=format-local:%Y%m%d.%H%M%S --format=%cd.%h 2>/dev/null); then
  echo "${base}git$commit$dirty"
else
  echo 0~unknown # a copy without its history
fi
