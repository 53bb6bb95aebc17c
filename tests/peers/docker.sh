#!/usr/bin/env bash
# docker.sh start DIR: starts Docker (with buildx and its BuildKit) from Debian 13's packages, and writes DIR/env,
#                      the variables to use it with. SUITE=forky takes those of Debian's next release.
# docker.sh stop DIR:  ends it.
#
# The packages are unpacked into DIR, not installed: nothing of this system changes or is upgraded. Containers have the
# host's network or none, so no firewall rule is made. CONTAINERD_STORE=false lets Docker keep its images itself, layer by
# layer, as it did before containerd could. CGROUP_PARENT names the cgroup its containers are put below,
# REGISTRY_MIRROR a mirror of docker.io.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

fetch() {
  [ ! -e "$dir/fetched" ] || return 0
  "$here/../packages.sh" ca-certificates debian-archive-keyring runc libseccomp2 libsystemd0
  mkdir -p "$dir"/apt/{etc/apt.conf.d,etc/preferences.d,etc/sources.list.d,lists/partial,cache/archives/partial} "$dir/root"
  cat > "$dir/apt/etc/sources.list.d/docker.sources" <<E2
Types: deb
URIs: $(mirror)
Suites: ${SUITE:-trixie}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
E2
  apt_get() {
    apt-get -q -o Dir::Etc="$dir/apt/etc" -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache" \
      -o APT::Sandbox::User=root "$@"
  }
  (cd "$dir" && apt_get update && apt_get download docker.io docker-cli docker-buildx containerd) > "$dir/fetch.log" 2>&1 || {
    cat "$dir/fetch.log" >&2
    exit 1
  }
  for package in "$dir"/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
  rm -rf "$dir"/*.deb "$dir/apt"
  touch "$dir/fetched"
}

# The mirror that this system's own packages come from.
mirror() {
  local found
  found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1)
  echo "${found:-http://deb.debian.org/debian}"
}

start() {
  mkdir -p "$dir"/{data,run,config/cli-plugins}
  ln -sf "$dir/root/usr/libexec/docker/cli-plugins/docker-buildx" "$dir/config/cli-plugins/docker-buildx"
  cat > "$dir/daemon.json" <<E2
{
  "features": { "containerd-snapshotter": ${CONTAINERD_STORE:-true} },
  "iptables": false, "ip6tables": false, "bridge": "none",
  "cgroup-parent": "${CGROUP_PARENT:-}",
  "data-root": "$dir/data", "exec-root": "$dir/run/exec", "pidfile": "$dir/run/pid",
  "hosts": ["unix://$dir/run/docker.sock"],
  "registry-mirrors": [${REGISTRY_MIRROR:+"\"$REGISTRY_MIRROR\""}],
  "exec-opts": ["native.cgroupdriver=cgroupfs"]
}
E2
  cat > "$dir/env" <<E2
export PATH=$dir/root/usr/bin:$dir/root/usr/sbin:$PATH
export DOCKER_HOST=unix://$dir/run/docker.sock
export DOCKER_CONFIG=$dir/config
E2
  . "$dir/env"
  setsid dockerd --config-file "$dir/daemon.json" > "$dir/dockerd.log" 2>&1 < /dev/null &
  for _ in $(seq 150); do
    if docker version > /dev/null 2>&1; then return; fi
    sleep 0.2
  done
  tail -n 20 "$dir/dockerd.log" >&2
  echo "docker.sh: dockerd does not start" >&2
  exit 1
}

stop() {
  [ -e "$dir/run/pid" ] || return 0
  local pid
  pid=$(cat "$dir/run/pid")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 100); do
    if [ ! -e "/proc/$pid" ]; then
      # The network namespace of containers on the host's network, which dockerd leaves mounted.
      umount "$dir/run/exec/netns/default" 2> /dev/null || true
      return 0
    fi
    sleep 0.1
  done
  echo "docker.sh: dockerd ($pid) does not end" >&2
  exit 1
}

case $what in
  start) fetch; start ;;
  stop) stop ;;
  *) echo "docker.sh: start or stop, not $what" >&2; exit 2 ;;
esac
