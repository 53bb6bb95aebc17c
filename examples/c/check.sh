#!/usr/bin/env bash
# check.sh COMMAND…: the command runs the image, as `kiln run --rm example` does; its output must be expected.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
diff -u "$here/expected.txt" <("$@")
# Arguments replace CMD and not ENTRYPOINT, and the exit status is the program's.
if "$@" /no-such-file 2> /dev/null; then
  echo "check.sh: the failure of the program is not told" >&2
  exit 1
fi
