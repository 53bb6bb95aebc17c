#!/usr/bin/env bash
# table.sh DIR: DIR/benchmarks.md of the newest raw numbers in DIR/bench: those of builds and those of pulls and pushes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
newest() { find "$1/bench" -name "$2" 2> /dev/null | sort | tail -n 1; }
mapfile -t raw < <(newest "$1" '*-cores.json'; newest "$1" '*-cores-ship.json')
python3 "$here/table.py" "${raw[@]}" > "$1/benchmarks.md"
