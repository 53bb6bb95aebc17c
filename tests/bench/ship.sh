#!/usr/bin/env bash
# ship.sh [--runs N] [--mib 500] [--peers skopeo,buildah,docker]: pulls and pushes by Kiln beside skopeo, buildah and Docker.
# Writes the raw numbers to docs/bench/ and makes docs/benchmarks.md of them and of the newest of run.sh. OUT names another
# folder for both. As root. KILN names the program; otherwise it is built. In BENCH_DIR, /tmp/kiln-bench unless
# set, it makes a file system of 24 GiB at most, and removes it.
set -euo pipefail
. "$(dirname "$0")/program.sh"
help_of ship.py "$@"
program docker-registry skopeo buildah runc
out=${OUT:-$top/docs}
mkdir -p "$out/bench"
raw=$out/bench/$(date +%FT%H%M)-$(nproc)-cores-ship.json
python3 "$top/tests/bench/ship.py" --kiln "$KILN" --json "$raw" "$@"
"$top/tests/bench/table.sh" "$out"
