#!/usr/bin/env bash
# Sets up all that the tests need, and runs them: one command on a fresh Debian 12 with Rust, as root.
# Arguments go to cargo test: tests/run.sh --test fixtures. The whole output is kept in target/tests.log.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"
tests/packages.sh busybox-static ca-certificates gcc libc6-dev docker-registry skopeo umoci buildah strace qemu-user-static podman python3 libcap2-bin \
  util-linux procps iproute2 iptables passt dnsmasq-base uidmap tar gzip bzip2 xz-utils zstd git openssh-client openssh-server

log=target/tests.log
mkdir -p target
# Kiln starts it as nobody, who may not reach this folder.
pasta=$PWD/target/pasta
setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$PWD" || pasta=/var/cache/kiln-pasta
without='^$'
if ! reason=$(tests/peers/pasta.sh "$pasta" 2>&1); then
  echo "SKIP pasta: ${reason##*$'\n'}"
  without='^pasta::'
fi
export PATH="$pasta:$PATH"
whole=--workspace
[ $# -eq 0 ] || whole="-p kiln-tests"
echo "tests: building and running, output in $log"
status=0
# Output of passing tests is shown too, because a test that cannot run here says so in it.
# shellcheck disable=SC2086
cargo test $whole --locked --no-fail-fast "$@" -- --show-output > "$log" 2>&1 || status=$?

sum() { { grep -oE "[0-9]+ $1" <(grep '^test result:' "$log") || true; } | awk '{ n += $1 } END { print n + 0 }'; }
passed=$(sum passed)
failed=$(sum failed)
if [ "$status" -ne 0 ]; then
  # What the failing tests said, or where nothing ran, what the compiler did.
  sed -n '/^failures:$/,/^test result:/p' "$log" | head -n 300
  grep -E -A 12 '^error(\[E|: (could not|failed to|package|no matching|the lock))' "$log" | head -n 60 || true
  [ "$failed" -gt 0 ] || failed=1
fi
grep -oE 'NEW [^ ]+: passes.*' "$log" || true
waiting=$(grep -c 'NOT YET ' "$log" || true)
[ "$waiting" -eq 0 ] || echo "conformance cases that do not pass yet: $waiting"

# A test that is skipped here and not on the list has stopped testing without anyone having decided it.
if [ $# -eq 0 ]; then
  { grep -oE 'SKIP [^ ]+: .*' "$log" || true; } | sort -u > target/skipped.log
  sed -nE 's/^SKIP ([^ ]+):.*/\1/p' target/skipped.log | { grep -vE "$without" || true; } | sort -u > tests/skipped.actual
  if ! diff -u tests/skipped.txt tests/skipped.actual; then
    cat target/skipped.log
    echo "tests: the skipped tests are not those of tests/skipped.txt"
    failed=$((failed + 1))
    status=1
  fi
fi
# A part of them by users who are not root; all in .ci/full.
if [ $# -eq 0 ]; then
  for part in "single fixtures sandbox zygote disk" "subids sandbox zygote disk store"; do
    words=$(KILN_USER_TESTS=${part#* } tests/user.sh "${part%% *}") || { failed=$((failed + 1)); status=1; }
    echo "$words"
    more=$({ grep -oE '[0-9]+ passed' <<< "$words" || true; } | tail -n 1)
    more=${more% passed}
    passed=$((passed + ${more:-0}))
  done
fi
echo "$passed passed, $failed failed"
exit "$status"
