#!/usr/bin/env bash
# public-dockerfiles.sh DIR: lowers the Dockerfiles of DIR that docs/public-dockerfiles.md lists, and compares with what
# stands there. A file that is not in DIR is skipped; one with another text than the table's is an error.
set -euo pipefail
dir=$(realpath "$1")
cd "$(dirname "$0")/.."
cargo build -q -p dockerfile --example summary
summary=$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
summary=$(find "$summary" -path '*/debug/examples/summary' -type f | head -n 1)

passed=0 failed=0
while IFS='|' read -r _ name text digest stages vertices history images checks _; do
  name=$(echo "$name" | xargs)
  if [ ! -e "$dir/$name" ]; then
    echo "SKIP public-dockerfiles/$name: $dir/$name is not there:$text"
    continue
  fi
  expected=$(echo "$name |$digest|$stages|$vertices|$history|$images|$checks" | sed -E 's/ +$//')
  found=$("$summary" "$dir/$name" | sed -E 's/ +$//')
  if [ "$found" = "$expected" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf '%s differs\n  expected %s\n  found    %s\n' "$name" "$expected" "$found"
  fi
done < <(grep -E '\| sha256:' docs/public-dockerfiles.md)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
