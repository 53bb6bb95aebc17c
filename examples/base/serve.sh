#!/usr/bin/env bash
# serve.sh DIR: starts a registry on a free loopback port that holds the base image of make.sh, and writes
# DIR/registries.toml, with which Kiln takes it for docker.io's mirror, and DIR/registry.pid.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
"$top/tests/packages.sh" docker-registry skopeo python3
dir=$(cd "$1" && pwd)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$dir/registry.yml" <<E2
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $dir/registry } }
http: { addr: 127.0.0.1:$port }
E2
setsid docker-registry serve "$dir/registry.yml" > "$dir/registry.log" 2>&1 < /dev/null &
echo $! > "$dir/registry.pid"
for _ in $(seq 100); do
  (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null && break
  sleep 0.1
done
for image in debian:bookworm-slim busybox:latest; do
  skopeo copy -q --dest-tls-verify=false "oci:$dir/layout:$image" "docker://127.0.0.1:$port/library/$image"
done
printf '[registry."docker.io"]\nmirrors = ["http://127.0.0.1:%s"]\n' "$port" > "$dir/registries.toml"
# The same for buildah, podman and skopeo.
cat > "$dir/registries.conf" <<E2
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:$port"
insecure = true
E2
