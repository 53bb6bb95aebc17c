#!/usr/bin/env bash
# acceptance.sh [c] [python] [node] [rust]: are Kiln's images accepted by others? For each example: skopeo copy, umoci
# unpack, podman load and run, docker load and run, every output checked. Prints one line a program; as root.
# KILN names the program; otherwise it is built.
set -euo pipefail
. "$(dirname "$0")/../examples/set-up.sh"
"$top/tests/packages.sh" skopeo umoci podman runc conmon
out=$work/acceptance
rm -rf "$out"
mkdir -p "$out"
"$top/tests/peers/docker.sh" start "$work/docker"
# shellcheck source=/dev/null
. "$work/docker/env"
# Without docker.sh's settings, which podman would read too.
podman=(env -u DOCKER_CONFIG -u DOCKER_HOST podman --root "$out/podman" --runroot "$out/podman-run" --cgroup-manager=cgroupfs --runtime runc)
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --network host)
ended() {
  "$top/tests/peers/docker.sh" stop "$work/docker"
  "${podman[@]}" rmi -af > /dev/null 2>&1 || true
  stop_registry
}
trap ended EXIT

passed=0 failed=0
accept() {
  local what=$1
  shift
  if "$@" > "$out/log" 2>&1; then
    echo "accepted: $what"
    passed=$((passed + 1))
  else
    tail -n 20 "$out/log"
    echo "REFUSED: $what"
    failed=$((failed + 1))
  fi
}
cd "$top/examples"
[ $# -gt 0 ] || set -- c python node rust
program() { case $1 in c) echo usr/local/bin/tally ;; python) echo opt/venv/bin/python ;; node) echo app/src/main.js ;; rust) echo usr/local/bin/fold-text ;; esac; }
unpacked() { umoci unpack --image "$1" "$2" && [ -e "$2/rootfs/$3" ]; }

for name; do
  oci=$out/$name.oci.tar docker=$out/$name.docker.tar
  "$KILN" build --progress quiet -t "accepted-$name:1" -o "type=oci,dest=$oci" "${secret[@]}" "$name" > "$out/log" 2>&1 &&
    "$KILN" build --progress quiet -t "accepted-$name:1" -o "type=docker,dest=$docker" "${secret[@]}" "$name" >> "$out/log" 2>&1 || {
    tail -n 20 "$out/log"
    echo "$name does not build"
    failed=$((failed + 1))
    continue
  }
  accept "$name, skopeo copy" skopeo copy "oci-archive:$oci" "oci:$out/$name.layout:1"
  accept "$name, skopeo copy of the Docker archive" skopeo copy "docker-archive:$docker" "dir:$out/$name.dir"
  accept "$name, umoci unpack" unpacked "$out/$name.layout:1" "$out/$name.bundle" "$(program "$name")"
  accept "$name, podman load of the OCI archive" "${podman[@]}" load -q -i "$oci"
  loaded=$(sed -n 's/^Loaded image: //p' "$out/log")
  accept "$name, podman run" "$name/check.sh" "${podman[@]}" run --rm "${limits[@]}" "$loaded"
  accept "$name, docker load" docker load -q -i "$docker"
  accept "$name, docker run" "$name/check.sh" docker run --rm --network host "accepted-$name:1"
  accept "$name, docker load of the OCI archive" docker load -q -i "$oci"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
