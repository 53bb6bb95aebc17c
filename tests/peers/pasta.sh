#!/usr/bin/env bash
# pasta.sh DIR: writes DIR/pasta, the program of Debian 13's package passt, where the one on the PATH is missing or older than
#               August 2024. The packages are unpacked into DIR, not installed; the C library is that of the same release.
#               Where that cannot be had, the last line says why, and it fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -x "$dir/pasta" ] || exit 0
# A reader that stops early would be a failure of the program here.
if [[ $(pasta --help 2>&1 || true) == *--map-host-loopback* ]]; then exit 0; fi

"$here/../packages.sh" ca-certificates debian-archive-keyring
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 || true)
mkdir -p "$dir"/apt/{etc/apt.conf.d,etc/preferences.d,etc/sources.list.d,lists/partial,cache/archives/partial} "$dir/root"
cat > "$dir/apt/etc/sources.list.d/pasta.sources" <<E2
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
E2
apt_get() {
  apt-get -q -o Dir::Etc="$dir/apt/etc" -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache" \
    -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@"
}
# Where the release cannot be reached, that is the reason, and not what was therefore not found.
(cd "$dir" && apt_get -o APT::Update::Error-Mode=any update && apt_get download passt libc6) > "$dir/fetch.log" 2>&1 || {
  echo "cannot fetch passt of Debian 13: $(grep -m 1 '^E: ' "$dir/fetch.log" || tail -n 1 "$dir/fetch.log")" >&2
  exit 1
}
for package in "$dir"/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
rm -rf "$dir"/*.deb "$dir/apt"
loader=$(find "$dir/root" -name 'ld-linux-*.so.*' | head -n 1)
# By its name it knows what it is to do.
cat > "$dir/pasta.new" <<E2
#!/bin/sh
exec $loader --library-path $(dirname "$loader") --argv0 pasta $dir/root/usr/bin/passt "\$@"
E2
chmod 755 "$dir/pasta.new"
mv "$dir/pasta.new" "$dir/pasta"
