#!/usr/bin/env bash
# sbom.sh PROBED VERSION DIR: writes DIR/probed_VERSION_ARCH.cdx.json, what the binary is
# made of, and holds it to CycloneDX's own schema. CHECK names the program that does, and
# SCHEMAS the module that has it.
set -euo pipefail
probed=$(realpath "$1")
mkdir -p "$3"
dir=$(realpath "$3")
cd "$(dirname "$0")/../.."
: "${CHECK:?is to be the path of the validator: run make sbom}"
arch=$(${GO:-go} version -m "$probed" | sed -n 's/.*GOARCH=//p')
file=$dir/probed_$2_$arch.cdx.json
rm -f "$dir"/probed_*.cdx.json
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
VERSION=$2 GOOS='' GOARCH='' CGO_ENABLED=0 ${GO:-go} run -trimpath ./internal/tools/sbom "$probed" "$file"
schemas=$(cd / && ${GO:-go} mod download -json "$SCHEMAS" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/schema
"$CHECK" "$schemas" "$file"
