#!/usr/bin/env bash
# instructions.sh [--renew]: the instructions of the no-op build and of the small-file path beside tests/bench/instructions.json,
# which --renew writes. KILN names the program; otherwise it is built, as it is released. Says SKIP and why where it cannot count.
set -euo pipefail
. "$(dirname "$0")/program.sh"
help_of instructions.py "$@"
if ! said=$("$top/tests/packages.sh" valgrind 2>&1); then
  echo "SKIP instructions: $(tail -n 1 <<< "$said")"
  exit 0
fi
program
python3 "$top/tests/bench/instructions.py" --kiln "$KILN" "$@"
