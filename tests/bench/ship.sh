#!/usr/bin/env bash
# ship.sh [--runs N] [--mib 500] [--peers skopeo,buildah,docker]: pulls and pushes by Kiln beside skopeo, buildah and Docker.
# Writes the raw numbers to docs/bench/ and makes docs/benchmarks.md of them and of the newest of run.sh. OUT names another
# folder for both. As root. KILN names the program; otherwise it is built. About 6 GB in BENCH_DIR, which is /tmp/kiln-bench
# unless set.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
export PATH="$PATH:$HOME/.cargo/bin"
"$top/tests/packages.sh" docker-registry skopeo buildah runc python3 gcc libc6-dev ca-certificates
if [ -z "${KILN:-}" ]; then
  (cd "$top" && cargo build --quiet --release --locked -p kiln)
  KILN=$top/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
fi
out=${OUT:-$top/docs}
mkdir -p "$out/bench"
raw=$out/bench/$(date +%F)-$(nproc)-cores-ship.json
python3 "$top/tests/bench/ship.py" --kiln "$KILN" --json "$raw" "$@"
"$top/tests/bench/table.sh" "$out"
