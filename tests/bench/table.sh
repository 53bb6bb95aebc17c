#!/usr/bin/env bash
# table.sh DIR: DIR/benchmarks.md of the newest raw numbers in DIR/bench: those of builds, of growth, and of pulls and pushes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/table.py" "$1/bench" > "$1/benchmarks.md"
