#!/usr/bin/env bash
# run.sh [--runs N] [--only steps,many] [--peers buildah,docker] [--targets]: Kiln beside buildah and Docker's BuildKit. Writes
# the raw numbers to docs/bench/ and makes docs/benchmarks.md of them, with the targets at its top. OUT names another folder
# for both. As root. --targets leaves buildah out: all that the targets need; docker-next is the Docker of Debian's next release.
# A whole run of 5 takes three quarters of an hour; do nothing else on the machine meanwhile. Run it twice: the page shows
# whether both agree. KILN names the program; otherwise it is built. In BENCH_DIR,
# /tmp/kiln-bench unless set, it makes a file system of 24 GiB at most, and removes it.
#
# The other benchmarks: growth.sh, how Kiln grows; ship.sh, pulls and pushes; instructions.sh, what CI compares. table.sh docs
# makes the page anew of what they measured last.
set -euo pipefail
. "$(dirname "$0")/program.sh"
help_of bench.py "$@"
program busybox-static buildah runc
out=${OUT:-$top/docs}
mkdir -p "$out/bench"
raw=$out/bench/$(date +%FT%H%M)-$(nproc)-cores.json
status=0
python3 "$top/tests/bench/bench.py" --kiln "$KILN" --json "$raw" "$@" || status=$?
[ ! -e "$raw" ] || "$top/tests/bench/table.sh" "$out"
exit "$status"
