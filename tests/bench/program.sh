# To be sourced by the benchmarks' commands. `help_of SCRIPT ARGUMENT...` shows the help of SCRIPT where it is asked for.
# `program PACKAGE...` installs what is needed and sets KILN, which is built as it is released unless KILN names it already.
# shellcheck shell=bash
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH="$PATH:$HOME/.cargo/bin"

help_of() {
  local script=$1 word
  shift
  for word; do
    case $word in -h | --help) exec python3 "$top/tests/bench/$script" --help ;; esac
  done
}

program() {
  "$top/tests/packages.sh" python3 gcc libc6-dev ca-certificates "$@"
  if [ -n "${KILN:-}" ]; then
    [ -x "$KILN" ] && return
    echo "$0: KILN names $KILN, which is no program" >&2
    exit 2
  fi
  (cd "$top" && cargo build --quiet --release --locked -p kiln)
  KILN=$top/target/$(rustc -vV | sed -n 's/^host: //p')/release/kiln
}
