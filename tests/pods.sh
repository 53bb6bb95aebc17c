#!/usr/bin/env bash
# pods.sh [subids] [single] [docker] [podman] [kubernetes]: the programs of examples/ are built by Kiln as a user, with sub-ids and without,
# in a container of docker's and of podman's, as that is by default (its list of system calls, its capabilities, nothing added), and
# by Kiln as root outside. The images must have the same files, with the same owners, modes and attributes; files whose content
# differs are listed. The pods of examples/kubernetes build and push an image, which must be the same too. EXAMPLES names fewer
# programs, POD_WORK a folder.
set -uo pipefail
. "$(dirname "$0")/../examples/set-up.sh"
cd "$top" || exit
dir=${POD_WORK:-$top/target/pods}
rm -rf "$dir"
mkdir -p "$dir/image/bin" "$dir/image/tmp" "$dir/out"
[ $# -gt 0 ] || set -- subids single docker podman kubernetes
read -ra names <<< "${EXAMPLES:-c python node rust}"
passed=0
failed=0
started_docker=""
# A folder of the user's.
home=""
with_podman=""

stop_all() {
  [ -z "$with_podman" ] || podman rmi -f localhost/kiln-pod > /dev/null 2>&1
  [ -z "$started_docker" ] || bash tests/peers/docker.sh stop "$dir/docker"
  [ -z "$home" ] || rm -rf "$home"
  stop_registry
}
trap stop_all EXIT

cp "$KILN" "$dir/image/kiln"
cp "$(command -v busybox)" "$dir/image/bin/busybox"
ln -sf busybox "$dir/image/bin/sh"
tar -C "$dir/image" -cf "$dir/image.tar" .
# As examples/kubernetes says: the program alone.
tar -C "$dir/image" -cf "$dir/pod.tar" kiln

# Makes an engine ready, and sets `run`, the command that runs something in a container of it or as a user, `kiln`, what it runs, and
# where that finds the examples and leaves the images.
ready() {
  kiln=(kiln-pod /kiln) from=/examples to=/out
  case $1 in
    subids | single)
      tests/packages.sh uidmap util-linux > /dev/null
      if [ -z "$home" ]; then
        home=$(mktemp -d "${TMPDIR:-/var/tmp}/kiln-pods.XXXXXX")
        cp "$KILN" "$home/kiln"
        cp -r "$top/examples" "$KILN_REGISTRIES" "$home/"
        chmod -R a+rX "$home"
      fi
      install -d -o 61183 -g 61183 "$home/$1"
      kiln=("$home/kiln") from=$home/examples to=$home/$1
      run=(unshare --mount sh tests/as-user.sh 61183 "$1" "" env -u KILN_ROOT "HOME=$to" "KILN_REGISTRIES=$home/${KILN_REGISTRIES##*/}" "KILN_SANDBOX=$1")
      return
      ;;
    docker)
      [ -n "$started_docker" ] || bash tests/peers/docker.sh start "$dir/docker" > "$dir/docker.log" 2>&1 || return
      started_docker=yes
      . "$dir/docker/env"
      docker import "$dir/image.tar" kiln-pod > /dev/null || return
      run=(docker run --rm --network=host)
      ;;
    podman)
      command -v podman > /dev/null || return
      env -u DOCKER_CONFIG podman import -q "$dir/image.tar" localhost/kiln-pod:latest > /dev/null 2>&1 || return
      with_podman=yes
      # What is named here is what this machine needs, and gives no right to anything.
      run=(env -u DOCKER_CONFIG podman --runtime runc --cgroup-manager=cgroupfs run --rm --network=host
        --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
      ;;
    *) echo "pods.sh: subids, single, docker, podman or kubernetes, not $1" >&2; exit 2 ;;
  esac
  run+=(-v "$top/examples:/examples:ro" -v "$dir/out:/out" -v "$KILN_REGISTRIES:/registries.toml:ro" -e KILN_REGISTRIES=/registries.toml)
  [ -z "${secret[*]}" ] || run+=(-v /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro)
}

# build ENGINE WHERE NAME OPTION…: builds one in a container, or as a user, and compares it.
build() {
  local what="$1, $2: $3" name=$3 out="$1-$2-$3"
  local log="$dir/out/$out.log" began=$SECONDS
  shift 3
  if "${run[@]}" "$@" "${kiln[@]}" build --progress plain -o "type=oci,dest=$to/$out.tar" "${secret[@]}" "$from/$name" > "$log" 2>&1 \
    && { [ "$to" = /out ] || mv "$to/$out.tar" "$dir/out/"; } \
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

# Makes the volumes of a pod in a folder: files are in `..data`, and links lead there.
volumes() {
  mkdir -p "$1/sources/..data" "$1/registry/..data"
  printf 'FROM %s/library/debian:bookworm-slim\nCOPY motd /etc/motd\n%s\n' "$registry" \
    'RUN useradd --system app && install -d -o app -g app /srv/app && cat /proc/self/comm > /srv/app/comm && chown -R app /srv/app' \
    > "$1/sources/..data/Dockerfile"
  echo 'Built in a pod.' > "$1/sources/..data/motd"
  echo '{"auths": {}}' > "$1/registry/..data/config.json"
  ln -s ..data/Dockerfile ..data/motd "$1/sources/"
  ln -s ..data/config.json "$1/registry/"
}

# pushed NAME TEXT: compares the image that a pod has pushed with the one that root has built. Its log must have the text.
pushed() {
  local name=$1 log=$dir/out/$1.log
  if grep -qF "$2" "$log" && skopeo copy -q --src-tls-verify=false "docker://$registry/$name" "oci-archive:$dir/out/$name.tar" \
    && python3 tests/pods.py "$dir/out/root-pod.tar" "$dir/out/$name.tar" > "$dir/out/$name.txt" 2>&1 \
    && grep -q ' 0 have other content$' "$dir/out/$name.txt"; then
    passed=$((passed + 1))
    echo "ok: kubernetes: $name; $(tail -n 1 "$dir/out/$name.txt")"
  else
    failed=$((failed + 1))
    tail -n 30 "$log"
    [ ! -s "$dir/out/$name.txt" ] || cat "$dir/out/$name.txt"
    echo "FAILED: kubernetes: $name"
  fi
}

# pod NAME MANIFEST docker|podman|play: makes a pod's volumes and its manifest, and says how it is started.
pod() {
  volumes "$dir/pods/$1"
  sed "s,registry.example.com/app,$registry/$1,g; s,registry.example.com,$registry,g" "examples/kubernetes/$2" > "$dir/pods/$1.yaml"
  python3 tests/manifest.py "$dir/pods/$1.yaml" "$3" "$dir/pods/$1"
}

# The pods of examples/kubernetes, as a node would start their containers (manifest.py), and by podman's own reading of what it
# understands the whole of.
kubernetes() {
  local registry
  local -a words
  registry=$(sed -n 's,.*http://\([^"]*\)".*,\1,p' "$KILN_REGISTRIES")
  tests/packages.sh python3-yaml catatonit skopeo > /dev/null
  mkdir -p "$dir/pods"
  volumes "$dir/pods/root"
  "$KILN" build --root "$dir/state-pod" --sandbox root --progress plain -o "type=oci,dest=$dir/out/root-pod.tar" "$dir/pods/root/sources/..data" \
    > "$dir/out/root-pod.log" 2>&1 || { cat "$dir/out/root-pod.log"; echo 'FAILED: kubernetes: root'; failed=$((failed + 1)); return; }

  if ready docker && docker import "$dir/pod.tar" "$registry/kiln" > /dev/null; then
    mapfile -d '' words < <(pod pod-docker pod.yaml docker)
    docker run --rm --network=host "${words[@]}" > "$dir/out/pod-docker.log" 2>&1
    pushed pod-docker 'kept in by chroot alone'
  else
    echo 'SKIP pods/kubernetes-docker: it cannot be started here'
  fi

  # Docker's.
  unset DOCKER_CONFIG
  # What is named here is what this machine needs, and gives no right to anything.
  printf '%s\n' '[containers]' 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]' '[engine]' 'runtime = "runc"' \
    'cgroup_manager = "cgroupfs"' > "$dir/pods/containers.conf"
  local -x CONTAINERS_CONF=$dir/pods/containers.conf
  if ! ready podman || ! podman import -q "$dir/pod.tar" "$registry/kiln:latest" > /dev/null 2>&1; then
    echo 'SKIP pods/kubernetes-podman: it cannot be started here'
    return
  fi
  mapfile -d '' words < <(pod pod-nonroot-podman pod-nonroot.yaml podman)
  podman run --rm --network=host "${words[@]}" > "$dir/out/pod-nonroot-podman.log" 2>&1
  pushed pod-nonroot-podman 'pushing to'

  podman push -q --tls-verify=false "$registry/kiln:latest"
  pod pod-play pod.yaml play > "$dir/pods/play.yaml"
  printf '{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}, "data": {"config.json": "%s"}}' \
    "$(base64 -w 0 "$dir/pods/pod-play/registry/config.json")" | podman secret create registry - > /dev/null
  {
    podman play kube --network host --tls-verify=false "$dir/pods/play.yaml"
    podman wait build-kiln
    podman logs build-kiln
    podman pod rm -f build
    podman secret rm registry
    podman rmi "$registry/kiln:latest"
  } > "$dir/out/pod-play.log" 2>&1
  pushed pod-play 'pushing to'
}

[ "$*" = kubernetes ] || for name in "${names[@]}"; do
  "$KILN" build --root "$dir/state-root" --sandbox root --progress plain -o "type=oci,dest=$dir/out/root-$name.tar" "${secret[@]}" "examples/$name" \
    > "$dir/out/root-$name.log" 2>&1 || { tail -n 30 "$dir/out/root-$name.log"; echo "FAILED: root: $name"; failed=$((failed + 1)); }
done
for engine; do
  if [ "$engine" = kubernetes ]; then
    kubernetes
    continue
  fi
  if ! ready "$engine"; then
    echo "SKIP pods/$engine: it cannot be started here"
    continue
  fi
  if [ "$to" != /out ]; then
    for name in "${names[@]}"; do build "$engine" user "$name"; done
    rm -rf "$to"
    continue
  fi
  mkdir -p "$dir/state-$engine"
  "${run[@]}" -v "$dir/state-$engine:/var/lib/kiln" kiln-pod /kiln info > "$dir/out/$engine.info" 2>&1
  echo "$engine: $(grep '^Mode' "$dir/out/$engine.info")"
  for name in "${names[@]}"; do
    build "$engine" volume "$name" -v "$dir/state-$engine:/var/lib/kiln"
  done
  build "$engine" own "${names[0]}"
  rm -rf "$dir/state-$engine"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
