#!/usr/bin/env bash
# pods.sh [docker] [podman]: the programs of examples/ are built by Kiln in a container of each, as that is by default (its list
# of system calls, its capabilities, nothing added), and by Kiln as root outside. The images must have the same files, with the
# same owners, modes and attributes; files whose content differs are listed. EXAMPLES names fewer programs, POD_WORK a folder.
set -uo pipefail
. "$(dirname "$0")/../examples/set-up.sh"
cd "$top" || exit
dir=${POD_WORK:-$top/target/pods}
rm -rf "$dir"
mkdir -p "$dir/image/bin" "$dir/image/tmp" "$dir/out"
[ $# -gt 0 ] || set -- docker podman
read -ra names <<< "${EXAMPLES:-c python node rust}"
passed=0
failed=0
started_docker=""

stop_all() {
  [ -z "$started_docker" ] || bash tests/peers/docker.sh stop "$dir/docker"
  stop_registry
}
trap stop_all EXIT

cp "$KILN" "$dir/image/kiln"
cp "$(command -v busybox)" "$dir/image/bin/busybox"
ln -sf busybox "$dir/image/bin/sh"
tar -C "$dir/image" -cf "$dir/image.tar" .

# Makes an engine ready, and sets `run`, the command that runs something in a container of it.
ready() {
  case $1 in
    docker)
      bash tests/peers/docker.sh start "$dir/docker" > "$dir/docker.log" 2>&1 || return
      started_docker=yes
      . "$dir/docker/env"
      docker import "$dir/image.tar" kiln-pod > /dev/null || return
      run=(docker run --rm --network=host)
      ;;
    podman)
      command -v podman > /dev/null || return
      env -u DOCKER_CONFIG podman import -q "$dir/image.tar" localhost/kiln-pod:latest > /dev/null 2>&1 || return
      # What is named here is what this machine needs, and gives no right to anything.
      run=(env -u DOCKER_CONFIG podman --runtime runc --cgroup-manager=cgroupfs run --rm --network=host
        --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
      ;;
    *) echo "pods.sh: docker or podman, not $1" >&2; exit 2 ;;
  esac
  run+=(-v "$top/examples:/examples:ro" -v "$dir/out:/out" -v "$KILN_REGISTRIES:/registries.toml:ro" -e KILN_REGISTRIES=/registries.toml)
  [ -z "${secret[*]}" ] || run+=(-v /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro)
}

# build ENGINE WHERE NAME OPTION…: builds one in a container and compares it.
build() {
  local what="$1, $2: $3" name=$3 out="$1-$2-$3"
  local log="$dir/out/$out.log" began=$SECONDS
  shift 3
  if "${run[@]}" "$@" kiln-pod /kiln build --progress plain -o "type=oci,dest=/out/$out.tar" "${secret[@]}" "/examples/$name" > "$log" 2>&1 \
    && python3 tests/pods.py "$dir/out/root-$name.tar" "$dir/out/$out.tar" > "$dir/out/$out.txt" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $what, $((SECONDS - began)) s; $(tail -n 1 "$dir/out/$out.txt")"
  else
    failed=$((failed + 1))
    tail -n 30 "$log"
    [ ! -s "$dir/out/$out.txt" ] || cat "$dir/out/$out.txt"
    echo "FAILED: $what"
  fi
}

for name in "${names[@]}"; do
  "$KILN" build --root "$dir/state-root" --sandbox root --progress plain -o "type=oci,dest=$dir/out/root-$name.tar" "${secret[@]}" "examples/$name" \
    > "$dir/out/root-$name.log" 2>&1 || { tail -n 30 "$dir/out/root-$name.log"; echo "FAILED: root: $name"; failed=$((failed + 1)); }
done
for engine; do
  if ! ready "$engine"; then
    echo "SKIP pods/$engine: it cannot be started here"
    continue
  fi
  mkdir -p "$dir/state-$engine"
  "${run[@]}" -v "$dir/state-$engine:/var/lib/kiln" kiln-pod /kiln info > "$dir/out/$engine.info" 2>&1
  echo "$engine: $(grep '^Mode' "$dir/out/$engine.info")"
  for name in "${names[@]}"; do
    build "$engine" volume "$name" -v "$dir/state-$engine:/var/lib/kiln"
  done
  build "$engine" own "${names[0]}"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
