#!/usr/bin/env bash
# Kiln on other kernels than this one, in qemu: with KVM where there is one, else emulated. What cannot be had is said, and then nothing is
# tested. KILN names the program, otherwise the debug one is built.
# Arguments: escapes (root, on Debian 12's kernel) and users (what is a user's, on Debian 12's and Debian 13's); without any, both.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
skip() { echo "SKIP vm: $1"; echo "0 passed, 0 failed"; exit 0; }

tests/packages.sh qemu-system-x86 busybox-static cpio gcc e2fsprogs xz-utils > "$work/log" 2>&1 || skip "no qemu: $(tail -n 1 "$work/log")"
. tests/vm/machine.sh

program=${KILN:-}
[ -n "$program" ] || { cargo build --quiet --locked -p kiln && program=$(find target -path '*/debug/kiln' -type f | head -n 1); }
# A test of a package, built.
built() { cargo test --locked -p "$1" --test "$2" --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p'; }
# shellcheck disable=SC2034
base=$(find target -path '*kiln-tests/base' -type d | head -n 1)

passed=0
failed=0
[ $# -gt 0 ] || set -- escapes users
for chosen; do
  began=$SECONDS
  # shellcheck disable=SC1090
  . "tests/vm/$chosen.sh"
  echo "vm: $chosen: $((SECONDS - began)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
