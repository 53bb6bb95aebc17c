#!/usr/bin/env bash
# system.sh DIR: unpacks two kernels into DIR/6.1 and DIR/6.12 and a small Debian 13 for them into DIR/root, as far as tests need it. Nothing
# is installed here. Where something cannot be had, the last line says why, and it fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
mkdir -p "$dir"/apt/{etc/apt.conf.d,etc/preferences.d,etc/sources.list.d,lists/partial,cache/archives/partial} "$dir/root"
: > "$dir/apt/status"
"$here/../packages.sh" ca-certificates debian-archive-keyring
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 || true)
cat > "$dir/apt/etc/sources.list.d/vm.sources" <<E2
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
E2
# As if nothing were installed, so that a package is fetched with all that it needs.
options=(-q -o Dir::Etc="$dir/apt/etc" -o Dir::State::lists="$dir/apt/lists" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache"
  -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o APT::Update::Error-Mode=any)
newest() { sort -V | tail -n 1 | cut -d ' ' -f 1; }
fetch() {
  local new old
  old=$(apt-cache search --names-only '^linux-image-6\.1\..*-cloud-amd64$' | newest)
  [ -n "$old" ] || { echo "E: no kernel 6.1 in the package lists"; return 1; }
  apt-get "${options[@]}" update || return
  new=$(apt-cache "${options[@]}" search --names-only '^linux-image-6\.12\..*-cloud-amd64$' | newest)
  [ -n "$new" ] || { echo "E: no kernel 6.12 in the package lists of Debian 13"; return 1; }
  (cd "$dir" && mkdir old new && cd old && apt-get -q -o APT::Sandbox::User=root download "$old" && cd ../new && apt-get "${options[@]}" download "$new") || return
  apt-get "${options[@]}" install -y --no-install-recommends --download-only bash coreutils findutils gawk grep sed tar procps util-linux mount passwd uidmap \
    kmod iproute2 python3 passt apparmor nfs-kernel-server nfs-common rpcbind btrfs-progs xfsprogs dosfstools busybox-static
}
fetch > "$dir/fetch.log" 2>&1 || {
  echo "a Debian 13 for the machine cannot be fetched: $(grep -m 1 '^E: ' "$dir/fetch.log" || tail -n 1 "$dir/fetch.log")" >&2
  exit 1
}
dpkg-deb -x "$dir"/old/*.deb "$dir/6.1"
dpkg-deb -x "$dir"/new/*.deb "$dir/6.12"
for package in "$dir"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
rm -rf "$dir/apt" "$dir/old" "$dir/new" "$dir"/root/usr/share/{doc,locale,man,info,i18n,zoneinfo}
ln -sf bash "$dir/root/usr/bin/sh"
ln -sf gawk "$dir/root/usr/bin/awk"
for kernel in 6.1 6.12; do
  modules=$(find "$dir/$kernel" -path '*lib/modules' -type d)
  mkdir -p "$dir/root/usr/lib/modules"
  mv "$modules"/* "$dir/root/usr/lib/modules/"
done
for release in "$dir"/root/usr/lib/modules/*; do chroot "$dir/root" depmod "${release##*/}"; done
