#!/usr/bin/env bash
# check.sh COMMAND…: the command runs the image, as `kiln run --rm example` does; its output must be expected.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
diff -u "$here/expected.txt" <("$@")
# Arguments replace CMD and not ENTRYPOINT.
[ "$("$@" '>=2' 1.0.0 2.1.0 | tail -n 1)" = "best: 2.1.0" ]
