# shellcheck shell=bash
# Sourced by what builds the examples: builds Kiln (unless KILN names one), makes and serves the base image, and stops
# the registry at the end. Sets KILN, KILN_ROOT, KILN_REGISTRIES, work, and the array secret.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${KILN_EXAMPLES_WORK:-$top/target/examples}
export PATH="$PATH:$HOME/.cargo/bin"
mkdir -p "$work"

"$top/tests/packages.sh" gcc libc6-dev ca-certificates
if [ -z "${KILN:-}" ]; then
  (cd "$top" && cargo build --quiet --release --locked -p kiln)
  KILN=$top/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
export KILN KILN_ROOT=${KILN_ROOT:-$work/state} KILN_REGISTRIES=$work/registries.toml

"$top/examples/base/make.sh" "$work"
"$top/examples/base/serve.sh" "$work"
stop_registry() { kill "$(cat "$work/registry.pid")" 2> /dev/null || true; }
trap stop_registry EXIT

# For networks whose https goes through a certificate authority of their own: this machine's certificates.
# shellcheck disable=SC2034,SC2054
secret=()
[ ! -r /etc/ssl/certs/ca-certificates.crt ] || secret=(--secret "id=ca,src=/etc/ssl/certs/ca-certificates.crt")
