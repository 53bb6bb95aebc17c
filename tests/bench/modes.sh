#!/usr/bin/env bash
# modes.sh [--runs N] [--only steps,install,compile] [--modes root subids …] [--peers buildah]: the same builds in each of Kiln's
# modes, and by buildah as a user; three runs take ten minutes. Writes the raw numbers to docs/bench/ and makes docs/benchmarks.md
# of them and of the newest of the other benchmarks. OUT names another folder for both. As root. KILN names the program; otherwise
# it is built. In BENCH_DIR, /tmp/kiln-bench unless set, it makes a file system of 24 GiB at most, and removes it.
set -euo pipefail
. "$(dirname "$0")/program.sh"
help_of modes.py "$@"
program uidmap util-linux buildah runc busybox-static debootstrap
work=${KILN_EXAMPLES_WORK:-$top/target/examples}
"$top/examples/base/make.sh" "$work"
out=${OUT:-$top/docs}
mkdir -p "$out/bench"
raw=$out/bench/$(date +%FT%H%M)-$(nproc)-cores-modes.json
status=0
python3 "$top/tests/bench/modes.py" --kiln "$KILN" --base "$work/layout" --json "$raw" "$@" || status=$?
# What has failed is in the table too.
[ ! -e "$raw" ] || "$top/tests/bench/table.sh" "$out"
exit "$status"
