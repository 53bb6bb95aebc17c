# shellcheck shell=bash
# Each mode builds the same image.
builds "subids" ann /var/tmp/ann
is_silent "subids warns of nothing"
builds "single" bob /var/tmp/bob
is_silent "single warns of nothing"
builds "subids, copied layers" ann /var/tmp/ann-copy --sandbox subids,copy
builds "single, copied layers" bob /var/tmp/bob-copy --sandbox single,copy
builds "root" root /var/tmp/root
builds "root, copied layers" root /var/tmp/root-copy --sandbox root,copy
builds "chroot" root /var/tmp/root-chroot --sandbox chroot

# tests PROGRAM WORD…: tests of the suite.
tests() {
  local program=$1
  shift
  CARGO=/usr/bin/true KILN_BIN=/usr/local/bin/kiln TMPDIR=/var/tmp "/guest/target/debug/deps/$program" --test-threads 1 "$@" > /tmp/said 2>&1
  if grep -qE '^test result: ok\. [1-9]' /tmp/said; then ok "$program $*: $(grep '^test result' /tmp/said)"; else bad "$program $*"; fi
  grep '^SKIP' /tmp/said
}
while read -ra words; do tests "${words[@]}"; done < /guest/tests
