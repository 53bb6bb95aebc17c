#!/usr/bin/env bash
# growth.sh [--files 1000,40000] [--mebibytes 100,1024] [--runs N]: how Kiln's time and memory grow with the number of files
# (1k to 500k) and with the bytes (0.1 to 4 GiB). Writes numbers and plots to docs/bench/ and makes docs/benchmarks.md of them
# and of the newest of the other benchmarks. OUT names another folder for both. As root.
# KILN names the program; otherwise it is built. In BENCH_DIR, /tmp/kiln-bench unless
# set, it makes a file system of 24 GiB at most, and removes it.
set -euo pipefail
. "$(dirname "$0")/program.sh"
help_of growth.py "$@"
program
out=${OUT:-$top/docs}
python3 "$top/tests/bench/growth.py" --kiln "$KILN" --out "$out/bench" "$@"
"$top/tests/bench/table.sh" "$out"
