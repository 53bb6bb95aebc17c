#!/usr/bin/env bash
# matrix.sh DIR [skopeo] [umoci] [buildah] [podman] [docker]: does everybody read what Kiln pushes, and Kiln what they push?
#
# Everything goes through Debian's docker-registry, in each form that its writer can write: gzip, zstd, uncompressed, both
# seekable forms, Docker's manifest and OCI's, an index of two platforms, an index with annotations. A reader has read an
# image when what stands in /data is what was put there, to the mode and the digest. Prints the versions, then a line for
# each pair that did not work, and how many did; a form that a program does not know is named. As root.
# KILN names the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
peers=${*:-skopeo umoci buildah podman docker}
has() { case " $peers " in *" $1 "*) return 0 ;; esac; return 1; }
"$top/tests/packages.sh" docker-registry skopeo busybox-static python3
! has umoci || "$top/tests/packages.sh" umoci
! has buildah || "$top/tests/packages.sh" buildah
! has podman || "$top/tests/packages.sh" podman runc conmon
: "${KILN:?names the program}"
kiln() { "$KILN" --root "$work/root" "$@"; }
# Without docker.sh's settings, which these two would read too.
buildah() { env -u DOCKER_CONFIG -u DOCKER_HOST buildah --root "$work/buildah" --runroot "$work/buildah-run" "$@"; }
podman() {
  env -u DOCKER_CONFIG -u DOCKER_HOST podman --root "$work/podman" --runroot "$work/podman-run" --cgroup-manager=cgroupfs --runtime runc "$@"
}
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --network host)

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry=127.0.0.1:$port
printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s"}\n' \
  "$work/registry" "$registry" > "$work/registry.yml"
docker-registry serve "$work/registry.yml" > "$work/registry.log" 2>&1 &
server=$!
ended() {
  ! has docker || bash "$here/docker.sh" stop "$work/docker" || true
  ! has podman || podman rmi -af > /dev/null 2>&1 || true
  ! has buildah || buildah rm -a > /dev/null 2>&1 || true
  ! has buildah || buildah rmi -af > /dev/null 2>&1 || true
  kill "$server" 2> /dev/null || true
}
trap ended EXIT
for _ in $(seq 100); do
  ! (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
  sleep 0.05
done

passed=0 failed=0
check() {
  local what=$1
  shift
  if "$@" > "$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    tail -n 12 "$work/log" | sed 's/^/    /'
    echo "FAILED: $what"
    failed=$((failed + 1))
  fi
}
unknown() { echo "not known: $*"; }

echo "kiln: $(kiln --version)"
! has skopeo || skopeo --version
! has umoci || umoci --version
! has buildah || command buildah --version
! has podman || podman --version
if has docker; then
  bash "$here/docker.sh" start "$work/docker"
  # shellcheck source=/dev/null
  . "$work/docker/env"
  docker version --format 'docker {{.Server.Version}}, {{range .Server.Components}}{{.Name}} {{.Version}}, {{end}}'
fi

# What is put into every image.
rm -rf "$work/context"
mkdir -p "$work/context/root/bin" "$work/context/root/data/folder/deep" "$work/context/second/data"
cp /bin/busybox "$work/context/root/bin/busybox"
cp "$here/list.sh" "$work/context/root/bin/list"
chmod 755 "$work/context/root/bin/list"
(
  cd "$work/context/root/data"
  echo text > text
  : > empty
  seq 100000 > folder/numbers
  head -c 300000 /bin/busybox > folder/deep/noise
  ln -s ../text folder/link
  ln text hard
  echo gone > gone
  echo "odd" > "$(printf 'an \303\266dd name')"
  chmod 4755 text
  chmod 1777 folder/deep
  echo second > ../../second/data/second
)
cat > "$work/context/Dockerfile" <<'D'
FROM scratch AS files
COPY root/ /
COPY --chown=7:8 --chmod=600 second/ /
CMD ["/bin/busybox", "sh", "/bin/list"]
FROM files AS amd64
RUN ["/bin/busybox", "rm", "/data/gone"]
FROM files AS arm64
ARG TARGETARCH
FROM ${TARGETARCH}
D
machine=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
if [ "$machine" != amd64 ]; then sed -i "s/AS amd64/AS other/; s/AS arm64/AS amd64/; s/AS other/AS arm64/" "$work/context/Dockerfile"; fi

# same FILE: is this the list of what was put there?
same() { diff "$work/expected" "$1"; }
ran() { "$@" > "$work/found" && same "$work/found"; }
in_rootfs() { chroot "$1" /bin/busybox sh /bin/list > "$work/found" && same "$work/found"; }

kiln build -q -t matrix:1 "$work/context" > /dev/null
kiln run matrix:1 > "$work/expected"
[ "$(grep -c . "$work/expected")" -ge 10 ] || { echo "FAILED: the image's own list"; cat "$work/expected"; exit 1; }
! grep -q gone "$work/expected"

# --- what Kiln writes ---------------------------------------------------------------------------------------------------

by_skopeo() {
  skopeo inspect --tls-verify=false "docker://$1" > "$work/inspected" &&
    rm -rf "$work/dir" && skopeo copy -q --src-tls-verify=false "docker://$1" "dir:$work/dir"
}
by_umoci() {
  rm -rf "$work/layout" "$work/bundle"
  skopeo copy -q --src-tls-verify=false "docker://$1" "oci:$work/layout:1" &&
    umoci unpack --image "$work/layout:1" "$work/bundle" && in_rootfs "$work/bundle/rootfs"
}
by_buildah() {
  local container
  container=$(buildah from --tls-verify=false "$1") || return 1
  in_rootfs "$(buildah mount "$container")" && buildah rm "$container"
}
by_podman() { podman pull -q --tls-verify=false "$1" && ran podman run --rm "${limits[@]}" "$1"; }
by_docker() { docker pull -q "$1" && ran docker run --rm --network host "$1"; }

read_by_all() {
  local kind=$1 name=$2 peer
  for peer in $peers; do
    case $peer,$kind in
      # umoci 0.4 and older have gzip and plain layers.
      umoci,*zstd*) unknown "umoci reads no $kind" ;;
      *) check "$peer reads Kiln's $kind" "by_$peer" "$name" ;;
    esac
  done
  check "kiln reads its own $kind" kiln_reads "$name"
}

kiln_reads() {
  local name=$1 root=$work/fresh
  rm -rf "$root"
  "$KILN" --root "$root" pull -q "$name" &&
    ran "$KILN" --root "$root" run "$name" &&
    "$KILN" --root "$root" inspect "$name" > "$work/inspected" &&
    "$KILN" --root "$root" save -o "$work/saved.tar" "$name" &&
    "$KILN" --root "$root" save --format oci -o "$work/saved-oci.tar" "$name" &&
    skopeo inspect "docker-archive:$work/saved.tar" > "$work/inspected" &&
    skopeo inspect "oci-archive:$work/saved-oci.tar" > "$work/inspected" &&
    rm -rf "$work/child" && mkdir "$work/child" && cp "$work/expected" "$work/child/expected" &&
    printf 'FROM %s\nCOPY expected /expected\nRUN ["/bin/busybox", "sh", "-c", "/bin/list | /bin/busybox cmp - /expected"]\n' \
      "$name" > "$work/child/Dockerfile" &&
    "$KILN" --root "$root" build -q "$work/child"
}

push() {
  local kind=$1
  shift
  local lower=${kind,,}
  local name=$registry/kiln/${lower//[^a-z0-9]/-}:1
  if ! kiln build -q "$@" -o "type=image,push=true,store=false,name=$name,${form:?}" "$work/context" > "$work/log" 2>&1; then
    if grep -q 'not supported yet\|there is no compression' "$work/log"; then
      unknown "Kiln writes no $kind"
      return 0
    fi
    cp "$work/log" "$work/refused"
    check "Kiln pushes $kind" sh -c 'cat "$1"; false' sh "$work/refused"
    return 0
  fi
  read_by_all "$kind" "$name"
}
form=compression=gzip,oci-mediatypes=true push "OCI gzip"
form=compression=zstd,oci-mediatypes=true push "OCI zstd"
form=compression=uncompressed,oci-mediatypes=true push "OCI plain"
form=compression=estargz,oci-mediatypes=true push "OCI estargz"
form=compression=zstd:chunked,oci-mediatypes=true push "OCI zstd chunked"
form=compression=gzip,oci-mediatypes=false push "Docker gzip"
form=compression=uncompressed,oci-mediatypes=false push "Docker plain"
form=compression=gzip push "index of two platforms" --platform linux/amd64,linux/arm64
form=compression=gzip push "index with annotations" --platform linux/amd64,linux/arm64 \
  --annotation index:org.example.one=1 --annotation manifest:org.example.two=2
form=compression=gzip,oci-mediatypes=false push "Docker manifest list" --platform linux/amd64,linux/arm64

# --- what Kiln reads ----------------------------------------------------------------------------------------------------

source=$registry/kiln/oci-gzip:1
kiln_reads_of() {
  local what=$1 name=$2
  check "kiln reads $what" kiln_reads "$name"
}

if has skopeo; then
  # Decompressed, so that each form is made by skopeo and not taken over.
  rm -rf "$work/plain"
  skopeo copy -q --src-tls-verify=false --dest-decompress "docker://$source" "dir:$work/plain"
  for form in oci,gzip oci,zstd v2s2,gzip; do
    name=$registry/skopeo/${form/,/-}:1
    check "skopeo pushes $form" skopeo copy -q --dest-tls-verify=false -f "${form%,*}" --dest-compress-format "${form#*,}" \
      "dir:$work/plain" "docker://$name"
    kiln_reads_of "skopeo's $form" "$name"
  done
  check "skopeo copies an index" skopeo copy -q --all --src-tls-verify=false --dest-tls-verify=false \
    "docker://$registry/kiln/index-of-two-platforms:1" "docker://$registry/skopeo/index:1"
  kiln_reads_of "skopeo's index" "$registry/skopeo/index:1"
fi

if has umoci; then
  # umoci writes layouts; skopeo brings them to the registry.
  made_by_umoci() {
    rm -rf "$work/layout" "$work/bundle"
    skopeo copy -q --src-tls-verify=false "docker://$source" "oci:$work/layout:1" &&
      umoci unpack --image "$work/layout:1" "$work/bundle" &&
      mkdir -p "$work/bundle/rootfs/new" && echo new > "$work/bundle/rootfs/new/file" &&
      umoci repack --image "$work/layout:2" "$work/bundle" &&
      skopeo copy -q --dest-tls-verify=false "oci:$work/layout:2" "docker://$registry/umoci/app:1"
  }
  check "umoci repacks" made_by_umoci
  kiln_reads_of "umoci's image" "$registry/umoci/app:1"
fi

if has buildah; then
  made_by_buildah() {
    local container
    container=$(buildah from --tls-verify=false "$source") || return 1
    echo new > "$work/new" && buildah copy "$container" "$work/new" /new &&
      buildah commit -q --format "$1" "$container" "made-$1" && buildah rm "$container"
  }
  for format in oci docker; do
    check "buildah commits $format" made_by_buildah "$format"
    for compression in gzip zstd zstd:chunked; do
      # Docker's manifest has no zstd.
      [ "$format,$compression" = oci,gzip ] || [ "$format" = oci ] || [ "$compression" = gzip ] || continue
      to=$registry/buildah/$format-${compression/:/-}:1
      if buildah push -q --tls-verify=false --compression-format "$compression" "made-$format" "docker://$to" > "$work/log" 2>&1; then
        kiln_reads_of "buildah's $format $compression" "$to"
      else
        unknown "buildah pushes no $format $compression: $(tail -n 1 "$work/log")"
      fi
    done
  done
  check "buildah pushes plain layers" buildah push -q --tls-verify=false --disable-compression made-oci "docker://$registry/buildah/plain:1"
  kiln_reads_of "buildah's plain layers" "$registry/buildah/plain:1"
fi

if has podman; then
  podman pull -q --tls-verify=false "$source" > /dev/null
  for form in oci,gzip oci,zstd oci,zstd:chunked v2s2,gzip; do
    name=$registry/podman/${form//[,:]/-}:1
    if podman push -q --tls-verify=false --format "${form%%,*}" --compression-format "${form#*,}" "$source" "$name" > "$work/log" 2>&1; then
      kiln_reads_of "podman's $form" "$name"
    else
      unknown "podman pushes no $form: $(tail -n 1 "$work/log")"
    fi
  done
  listed_by_podman() {
    podman manifest create list:1 && podman manifest add --tls-verify=false list:1 "docker://$source" &&
      podman manifest push --tls-verify=false --all list:1 "docker://$registry/podman/list:1"
  }
  check "podman pushes a manifest list" listed_by_podman
  kiln_reads_of "podman's manifest list" "$registry/podman/list:1"
fi

if has docker; then
  docker pull -q "$source" > /dev/null
  check "docker pushes what it pulled" eval "docker tag $source $registry/docker/same:1 && docker push -q $registry/docker/same:1"
  kiln_reads_of "docker's image" "$registry/docker/same:1"
  rm -rf "$work/of-docker" && mkdir "$work/of-docker"
  printf 'FROM %s\nCOPY Dockerfile /new\n' "$source" > "$work/of-docker/Dockerfile"
  check "docker buildx pushes" docker buildx build -q -t "$registry/docker/built:1" --push "$work/of-docker"
  kiln_reads_of "docker buildx's image with its attestation" "$registry/docker/built:1"
  for form in compression=zstd,oci-mediatypes=true compression=gzip,oci-mediatypes=false compression=estargz,oci-mediatypes=true; do
    name=$registry/docker/${form//[^a-z]/-}:1
    check "docker buildx pushes $form" docker buildx build -q --provenance=false "$work/of-docker" \
      -o "type=image,push=true,force-compression=true,name=$name,$form"
    kiln_reads_of "docker buildx's $form" "$name"
  done
  check "docker buildx makes an index" docker buildx imagetools create -t "$registry/docker/index:1" "$source"
  kiln_reads_of "docker buildx's index" "$registry/docker/index:1"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
