#!/usr/bin/env bash
# The attempts of the sandbox's escape suite, in a step of Kiln's as root and as a user, and beside it in a container that podman has runc 1.1 start, with
# its default list of system calls and Docker's capabilities; writes docs/escapes.md. Without podman and runc, their column is empty.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill "$outside" 2> /dev/null || true; umount -l "$work/store/overlay" 2> /dev/null || true; rm -rf "$work"' EXIT
outside=
gcc -O1 -static -o "$work/attempts" builder/sandbox/tests/escape/attempts.c

echo "escapes: of a step"
# A user writes to two of them.
chmod 711 "$work"
for mode in subids single; do : > "$work/table.$mode"; chmod 666 "$work/table.$mode"; done
KILN_ESCAPES="$work/table" cargo test --quiet --locked -p sandbox --test escape > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
grep '^test result' "$work/log"

# What a mode of a user's says of an attempt.
as_user() {
  sed -n "s/^$2 //p" "$work/table.$1" | sed -E 's/; without the guards, .*/ (the user namespace alone is enough)/; s#\|#/#g'
}

declare -A beside
peer="none here"
if command -v podman > /dev/null && command -v runc > /dev/null; then
  peer="$(runc --version | sed -n '1s/ version / /p'), by $(podman --version | sed 's/ version / /')"
  mkdir -p "$work/root/tmp" "$work/root/bind" "$work/root/memory" "$work/root/proc" "$work/root/sys" "$work/root/dev" "$work/root/etc"
  cp "$work/attempts" "$work/root/attempts"
  mkfifo "$work/hold"
  "$work/attempts" outside < "$work/hold" > "$work/facts" &
  outside=$!
  exec 9> "$work/hold"
  while [ ! -s "$work/facts" ]; do sleep 0.05; done
  read -r -a facts < "$work/facts"
  disk=$(for name in /sys/block/*; do dd if="/dev/${name##*/}" of=/dev/null bs=1 count=0 2> /dev/null && cat "$name/dev" && break; done)
  device=$(find /sys/class/net -mindepth 1 -printf '%f\n' | grep -v '^lo$' | head -n 1 || true)
  facts+=("major=${disk%%:*}" "minor=${disk##*:}" "secret=$work/attempts" "marker=nothing" "device=$device" "abstract=nobody")
  container=(podman --runtime runc --cgroup-manager cgroupfs --root "$work/store" --runroot "$work/run" --tmpdir "$work/podman" run
    --rm --network none --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --cap-add MKNOD,NET_RAW,AUDIT_WRITE
    -v "$work/root/bind:/bind" --tmpfs /memory --rootfs "$work/root" /attempts)
  names=$(cut -d '|' -f 2 "$work/table")
  for name in $names; do
    said=$(timeout 60 "${container[@]}" "$name" "${facts[@]}" 2>&1 | tail -n 1) || true
    beside[$name]=${said//|//}
  done
  # It takes away what was to be found, unless it is killed.
  exec 9>&-
  wait "$outside" || true
  outside=
  echo "escapes: ${#beside[@]} in runc"
fi

{
  echo "# Ways out of a step"
  echo
  echo "Written by \`tests/escapes.sh\`: Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME")."
  echo
  echo "Each was used against containers, or could be. It is tried by a real process, \`builder/sandbox/tests/escape/attempts.c\`. In a step it is"
  echo "refused. Then all that stands in its way is taken out of the plan, and it succeeds, which shows that it is a real attempt;"
  echo "and where there are several guards, each is put back alone, and it is refused, which shows that each of them is enough."
  echo "\"absent\" and \"not implemented\" are what this kernel does not have. The last column is the same attempt in ${peer}."
  echo
  echo "The columns \`subids\` and \`single\` are the same step when a user builds, who is not root: it is in a user namespace then, which is a guard as well. Where"
  echo "that is said to be enough alone, the attempt was made again without the guards that stand in its row, and was refused."
  echo
  echo "What the last column calls escaped: \`environment-of-init\`, \`memory-of-init\` and \`program-of-init\` find the container's own command, which is PID 1"
  echo "there, and nothing of the builder's. Podman's list of system calls, unlike Docker's, lets a container make user namespaces (\`user-namespace\`,"
  echo "\`clone-namespace\`, \`clone3-namespace\`; no other namespace without CAP_SYS_ADMIN) and ask the kernel for keys (\`keyring-of-user\`). But for audit, it does not look at the kind of a"
  echo "socket, so \`vsock\` and \`kernel-crypto\` (AF_ALG) get as far as what the kernel itself has; Kiln's list refuses both kinds."
  echo
  echo "| attempt | what for | guards, each enough alone | in a step | without the guards | in a step, \`subids\` | in a step, \`single\` | in runc |"
  echo "|---|---|---|---|---|---|---|---|"
  while IFS= read -r row; do
    name=$(cut -d '|' -f 2 <<< "$row" | tr -d ' ')
    echo "$row $(as_user subids "$name") | $(as_user single "$name") | ${beside[$name]:-} |"
  done < "$work/table"
} | sed -E "s#$work#/tmp#g; s#/tmp/\.tmp[A-Za-z0-9]+#/tmp#g; s#/proc/[0-9]{2,}/#/proc/PID/#g; s#memfd[^ |]*#memfd#g" > docs/escapes.md
echo "escapes: written to docs/escapes.md"
