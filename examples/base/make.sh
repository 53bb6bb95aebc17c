#!/usr/bin/env bash
# make.sh DIR: makes the examples' base image in the OCI layout DIR/layout, if it is not there: a Debian 12 made by
# debootstrap (a minute; root), in the role of docker.io/library/debian:bookworm-slim.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
[ ! -e "$1/layout/index.json" ] || exit 0
"$top/tests/packages.sh" busybox-static debootstrap python3 ca-certificates
mkdir -p "$1"
rm -rf "$1/layout.new"
"$top/tests/conformance/base/make.sh" "$1/layout.new" debian > "$1/make.log" 2>&1 || { tail -n 20 "$1/make.log" >&2; exit 1; }
mv "$1/layout.new" "$1/layout"
