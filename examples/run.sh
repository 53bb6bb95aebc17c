#!/usr/bin/env bash
# run.sh [c] [python] [node] [rust]: sets up all that is needed, builds Kiln, builds the example with it, builds it again
# to show the cache, and runs the image. As root, on a fresh Debian 12 with Rust. Without a name: c.
set -euo pipefail
. "$(dirname "$0")/set-up.sh"
cd "$top/examples"
[ $# -gt 0 ] || set -- c

for name; do
  printf '\n== %s: kiln build -t %s %s\n' "$name" "example-$name" "examples/$name"
  "$KILN" build -t "example-$name" --iidfile "$work/$name.first" "${secret[@]}" "$name"
  printf '\n== again: every step is cached, the image is the same\n'
  "$KILN" build -t "example-$name" --iidfile "$work/$name.second" "${secret[@]}" "$name"
  cmp "$work/$name.first" "$work/$name.second"
  printf '\n== kiln run example-%s\n' "$name"
  "$KILN" run --rm "example-$name"
  "$name/check.sh" "$KILN" run --rm "example-$name"
done
