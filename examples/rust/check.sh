#!/usr/bin/env bash
# check.sh COMMAND…: the command runs the image, as `kiln run --rm example` does; its output must be expected.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
diff -u "$here/expected.txt" <("$@")
# Arguments replace CMD and not ENTRYPOINT.
[ "$("$@" 1000 /usr/share/fold/sample.txt | tail -n 1)" = "-- 3 lines" ]
