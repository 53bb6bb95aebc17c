#!/usr/bin/env bash
# foreign.sh ARCHITECTURE FILE: writes Debian's busybox of another architecture (arm64, s390x, …) to FILE.
# The system's own package lists and architectures stay as they are.
set -euo pipefail
architecture=$1
file=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/lists/partial "$dir"/cache/archives/partial
apt_get() {
  apt-get -q -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root \
    -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" "$@"
}
if ! (cd "$dir" && apt_get update && apt_get download busybox-static) > "$dir/log" 2>&1; then
  tail -n 20 "$dir/log" >&2
  echo "foreign.sh: no busybox-static for $architecture" >&2
  exit 1
fi
dpkg-deb -x "$dir"/busybox-static_*.deb "$dir/root"
mkdir -p "$(dirname "$file")"
cp "$dir"/root/bin/busybox "$file.$$"
mv "$file.$$" "$file"
