# shellcheck shell=bash
# What the parts are made of. Two users: ann has sub-ids, bob has none.
passed=0
failed=0
expected=$(cat /guest/expected)
kernel=$(uname -r | cut -d . -f 1,2)

ok() { passed=$((passed + 1)); echo "ok: $kernel: $1"; }
bad() { failed=$((failed + 1)); echo "FAILED: $kernel: $1"; sed 's/^/    /' /tmp/said; }

# as USER COMMAND…
as() {
  local user=$1
  shift
  if [ "$user" = root ]; then "$@"; else setpriv --reuid "$user" --regid "$user" --clear-groups --reset-env "$@"; fi
}

# Builds by a user in a state folder; `id` is what it printed, /tmp/said what it said, `status` how it ended.
build() {
  local user=$1 root=$2
  shift 2
  status=0
  id=$(as "$user" env SOURCE_DATE_EPOCH=1700000000 timeout 180 kiln build --root "$root" -q "$@" --build-context busybox=oci-layout:///guest/base:busybox:latest \
    /guest/context 2> /tmp/said) || status=$?
}

# builds WHAT USER ROOT OPTION…: it builds the image that root has on another machine.
builds() {
  local what=$1
  shift
  build "$@"
  if [ "$status" = 0 ] && [ "$id" = "$expected" ]; then ok "$what"; else echo "exit $status, $id and not $expected" >> /tmp/said; bad "$what"; fi
}

# says WHAT TEXT: the last build said it, in lines of whatever length.
says() {
  if tr -s ' |\n' ' ' < /tmp/said | grep -qF -- "$2"; then ok "$1"; else echo "and not: $2" >> /tmp/said; bad "$1"; fi
}

# is_silent WHAT: the last build warned of nothing but its network.
is_silent() {
  if grep -E 'WARN|warning' /tmp/said | grep -qv shared-network; then bad "$1"; else ok "$1"; fi
}

# offer USER ROOT MODE: what `kiln info` tells of a mode: whether it is offered, why not, what would help.
offer() {
  as "$1" kiln --root "$2" info --format json > /tmp/info 2> /tmp/said
  python3 - "$3" 2>> /tmp/said << 'P'
import json, sys
told = json.load(open("/tmp/info"))
mode = next(mode for mode in told["modes"] if mode["name"] == sys.argv[1])
print("yes" if mode["offered"] else "no", mode["whyNot"] or "", mode["fix"] or "", sep="\n")
P
}

# mended WHAT USER MODE WHY: the mode is not offered, for this reason, and the line that `kiln info` has for it mends that.
mended() {
  local what=$1 user=$2 mode=$3 why=$4 told fix
  mapfile -t told < <(offer "$user" "/var/tmp/info-$user" "$mode")
  fix=${told[2]:-}
  if [ "${told[0]}" != no ] || [[ ${told[1]} != *"$why"* ]] || [ -z "$fix" ]; then
    { cat /tmp/info; echo "and not: $why"; } > /tmp/said
    bad "$what"
    return
  fi
  ok "$what: ${told[1]}"
  bash -c "$fix" > /tmp/mending 2>&1
  mapfile -t told < <(offer "$user" "/var/tmp/info-$user" "$mode")
  if [ "${told[0]}" = yes ]; then ok "$what: $fix"; else cat /tmp/mending /tmp/info > /tmp/said; bad "$what: $fix"; fi
}
