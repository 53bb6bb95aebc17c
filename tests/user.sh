#!/usr/bin/env bash
# user.sh [subids|single]...: all tests, by a user who is not root. Root runs this: it builds them, and makes the user for as long as they run, in a
# mount namespace of its own, with a home, with control groups, and with sub-ids or without.
#
# The tests of tests/ start Kiln as a user does. Those of the crates are run where Kiln runs: in the user namespace that it enters.
# What cannot be had without root says so, and its name is in tests/skipped-user.txt. KILN_USER_TESTS names test programs, and then no list is compared.
# The output is kept in target/user-MODE.log.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
top=$PWD
export PATH="$PATH:$HOME/.cargo/bin" CARGO_TERM_COLOR=never
[ $# -gt 0 ] || set -- subids single
only=${KILN_USER_TESTS:-}
user=61183
work=$(mktemp -d "${TMPDIR:-/var/tmp}/kiln-user.XXXXXX")
groups=()

finish() {
  for group in "${groups[@]}"; do
    # Podman leaves a process behind for each user who is not root.
    xargs -r kill -9 < "$group/cgroup.procs" 2> /dev/null
    find "$group" -depth -type d -exec rmdir {} + 2> /dev/null
  done
  rm -rf "$work"
}
trap finish EXIT

# Every test program: its name, its package, where it is run, where it is.
cargo test --workspace --locked --no-run --message-format=json-render-diagnostics > "$work/built" || exit 1
kiln=${KILN_BIN:-}
if [ -z "$kiln" ]; then
  cargo build --quiet --locked -p kiln || exit 1
  kiln=$top/target/$(rustc -vV | sed -n 's/^host: //p')/debug/kiln
fi
python3 - "$work/built" > "$work/programs" << 'END'
import json, os, sys
for line in open(sys.argv[1]):
    built = json.loads(line)
    if built.get("reason") == "compiler-artifact" and built["profile"]["test"] and built["executable"]:
        folder = os.path.dirname(built["manifest_path"])
        print(built["target"]["name"], os.path.relpath(folder), folder, built["executable"], sep="\t")
END

# The user's own: what tests keep between runs too.
mkdir -p "$work/home" "$work/tmp" "$work/made"
# A folder for temporary files of its own: as /tmp, because paths of sockets are to be short, unless that would hide something.
tmp=/tmp
case "$top/ $work/" in /tmp/*|*\ /tmp/*) tmp=$work/tmp ;; esac
made=$(dirname "$(dirname "$(dirname "$(head -n 1 "$work/programs" | cut -f 4)")")")/kiln-tests
mkdir -p "$made"
cp -a "$made/base" "$made"/busybox-* "$work/made/" 2> /dev/null
cp "$kiln" "$work/kiln"
chmod 755 "$work"
chown -R "$user:$user" "$work/home" "$work/tmp" "$work/made"

# Control groups as a session of systemd's is given them. Of version 1 each controller has a hierarchy.
hierarchies=(/sys/fs/cgroup)
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  for controller in cpu cpuset memory pids; do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done 2> /dev/null
else
  hierarchies=(/sys/fs/cgroup/*/)
fi
for hierarchy in "${hierarchies[@]}"; do
  group=${hierarchy%/}/kiln-user-$$
  # Of two names of one hierarchy the second is there.
  [ -f "$hierarchy/cgroup.procs" ] && mkdir "$group" 2> /dev/null || continue
  groups+=("$group")
  for file in cpuset.cpus cpuset.mems; do [ ! -f "$group/$file" ] || cat "$hierarchy/$file" > "$group/$file"; done 2> /dev/null
  chown -R "$user:$user" "$group"
done

# Root's last deeds, in the mount namespace: see as-user.sh. Who may not reach this folder is given a way to it.
change='
sed "s#^kiln-test:.*#kiln-test:x:$user:$user::$KILN_USER_WORK/home:/bin/sh#" /etc/passwd > "$KILN_USER_WORK/passwd"
cat "$KILN_USER_WORK/passwd" > /etc/passwd
for group in $KILN_USER_GROUPS; do echo $$ > $group/cgroup.procs; done
if ! setpriv --reuid $user --regid $user --clear-groups test -x "$KILN_USER_TOP"; then
  mkdir "$KILN_USER_WORK/top"
  mount --bind "$KILN_USER_TOP" "$KILN_USER_WORK/top"
  closed=$KILN_USER_TOP
  while ! setpriv --reuid $user --regid $user --clear-groups test -x "$(dirname "$closed")"; do closed=$(dirname "$closed"); done
  mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$KILN_USER_TOP"
  mount --move "$KILN_USER_WORK/top" "$KILN_USER_TOP"
fi
[ "$TMPDIR" != /tmp ] || mount --bind "$KILN_USER_WORK/tmp" /tmp
mount --bind "$KILN_USER_WORK/made" "$KILN_USER_MADE"
'

# The user runs this: each program, until its end.
inside='
mode=$0; failed=0
while IFS="	" read -r name package folder program; do
  [ -z "$KILN_USER_TESTS" ] || case " $KILN_USER_TESTS " in *" $name "*) ;; *) continue ;; esac
  set -- "$program" --show-output
  if [ "$package" != tests ]; then
    [ "$mode" = single ] || set -- --map-auto "$@"
    set -- unshare --user --map-root-user --mount "$@"
  fi
  echo "     Running $name of $package"
  (cd "$folder" && exec "$@" < /dev/null 2>&1) || { echo "FAILED $name of $package"; failed=$((failed + 1)); }
done < "$KILN_USER_WORK/programs"
exit "$failed"
'

sum() { { grep -oE "[0-9]+ $1" <(grep '^test result:' "$2") || true; } | awk '{ n += $1 } END { print n + 0 }'; }
status=0
: > "$work/skipped"
for mode; do
  log=target/user-$mode.log
  started=$SECONDS
  env -i PATH="$PATH" HOME="$work/home" TMPDIR="$tmp" USER=kiln-test LOGNAME=kiln-test LANG=C.UTF-8 TERM=xterm \
    KILN_BIN="$work/kiln" KILN_USER_TESTS="$only" KILN_USER_WORK="$work" KILN_USER_TOP="$top" KILN_USER_MADE="$made" KILN_USER_GROUPS="${groups[*]}" \
    unshare --mount sh tests/as-user.sh "$user" "$mode" "$change" sh -c "$inside" "$mode" > "$log" 2>&1
  failed=$?
  if [ "$failed" -ne 0 ]; then
    grep -E '^FAILED |^test .*FAILED|^sh: |^unshare: ' "$log"
    sed -n '/^failures:$/,/^test result:/p' "$log" | head -n 300
    grep -q '^test result' "$log" || tail -n 20 "$log"
    status=1
  fi
  echo "as a user, mode $mode: $(sum passed "$log") passed, $(sum failed "$log") failed, $((SECONDS - started)) s; output in $log"
  sed -nE "s/.*SKIP ([^ ]+): (.*)/$mode \1: \2/p" "$log" >> "$work/skipped"
done

# As with tests/skipped.txt.
if [ -z "$only" ]; then
  sort -u "$work/skipped" > target/user-skipped.log
  for mode; do grep -E "^$mode " tests/skipped-user.txt; done | sort -u > "$work/expected"
  if ! sed -E 's/^([^ ]+ [^ ]+): .*/\1/' target/user-skipped.log | sort -u | diff -u "$work/expected" -; then
    echo "user: the tests that a user skips are not those of tests/skipped-user.txt; why is in target/user-skipped.log"
    status=1
  fi
fi
exit "$status"
