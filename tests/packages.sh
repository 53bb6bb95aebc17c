#!/usr/bin/env bash
# packages.sh NAME…: installs those of Debian's packages that are not there yet. Says nothing unless it fails.
set -euo pipefail
missing=()
for name; do
  dpkg-query -W -f='${Status}\n' "$name" 2>/dev/null | grep -q ' installed$' || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "packages.sh: cannot install ${missing[*]}" >&2
  exit 1
fi
