# shellcheck shell=bash disable=SC2154,SC2016
# Part of run.sh: everything that is a user's, on Linux 6.1 and on 6.12, each with a Debian 13 on a disk: the modes, what a machine can have switched
# off, and state folders on other file systems. PARTS names fewer of them.
if ! reason=$(tests/vm/system.sh "$work/system" 2>&1); then
  echo "SKIP vm/users: ${reason##*$'\n'}"
  return
fi
[ -n "$base" ] || { echo "SKIP vm/users: no base image"; return; }

system=$work/system/root
cp -r tests/vm/guest "$system/guest"
# The tests find the fixtures where they were built, and the base image by where they are themselves.
mkdir -p "$system/guest/target/debug/deps" "$system/guest/target/kiln-tests" "$system$PWD" "$system/usr/local/bin"
cp "$program" "$system/usr/local/bin/kiln"
for test in fixtures rootless; do cp "$(built kiln-tests $test)" "$system/guest/target/debug/deps/$test"; done
strip "$system/usr/local/bin/kiln" "$system"/guest/target/debug/deps/*
cp -r tests "$system$PWD/"
cp -r "$base" "$system/guest/base"
ln -s /guest/base "$system/guest/target/kiln-tests/base"
tr ' ' '\n' <<< "${PARTS:-modes switches folders}" > "$system/guest/parts"
printf '%s\n' fixtures\ {subids,single,copy,chroot}/rootless/ "fixtures twice/rootless/mounts" "rootless surroundings::" "rootless commands::outputs" > "$system/guest/tests"

cat >> "$system/etc/passwd" << 'E'
root:x:0:0:root:/root:/bin/bash
statd:x:105:65534::/var/lib/nfs:/usr/sbin/nologin
_rpc:x:106:65534::/run/rpcbind:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
ann:x:1000:1000::/home/ann:/bin/bash
bob:x:1001:1001::/home/bob:/bin/bash
E
printf '%s\n' root:x:0: tty:x:5: nogroup:x:65534: ann:x:1000: bob:x:1001: >> "$system/etc/group"
echo ann:100000:65536 | tee "$system/etc/subuid" > "$system/etc/subgid"
for user in ann:1000 bob:1001; do install -d -o "${user#*:}" -g "${user#*:}" "$system/home/${user%:*}"; done

# What the same program makes of the same context here, as root.
context=$system/guest/context
mkdir -p "$context"
cat > "$context/Dockerfile" << 'E'
FROM busybox
RUN echo 1 > /1 && chown 5:6 /1 && mkdir /d && grep -q ^Name /proc/self/status && ls -d /proc/$$ > /dev/null
COPY --chown=7:8 Dockerfile /d/
RUN stat -c '%n %u:%g %a' /1 /d/* > /listed && rm -r /d && mkdir /d && touch /d/new && ln -s x /l && ln /1 /h
USER 5:6
RUN id > /tmp/id && echo 2 >> /1
E
chmod 644 "$context/Dockerfile"
SOURCE_DATE_EPOCH=1700000000 "$program" build --root "$work/state" -q --build-context "busybox=oci-layout://$PWD/$base:busybox:latest" "$context" > "$system/guest/expected"

# What is needed before there is a disk.
start=$work/start
mkdir -p "$start/bin"
cp tests/vm/guest/init "$start/init"
cp "$system/usr/bin/busybox" "$start/bin/"
for release in "$system"/usr/lib/modules/*; do
  release=${release##*/}
  mkdir -p "$start/modules/$release"
  at=10
  for module in $(for name in virtio_pci virtio_blk; do chroot "$system" modprobe -S "$release" --show-depends "$name"; done | awk '$1 == "insmod" { print $2 }' | awk '!seen[$0]++'); do
    at=$((at + 1))
    case $module in
      *.xz) xz -dc "$system$module" > "$start/modules/$release/$at-$(basename "$module" .xz)" ;;
      *) cp "$system$module" "$start/modules/$release/$at-${module##*/}" ;;
    esac
  done
done
(cd "$start" && find . | cpio --quiet -o -H newc) > "$work/start.cpio"
truncate -s 6G "$work/6.1.disk"
mke2fs -q -t ext4 -O ^has_journal -d "$system" "$work/6.1.disk"
cp --sparse=always "$work/6.1.disk" "$work/6.12.disk"

# users KERNEL: runs one machine.
users() {
  machine "$work/$1.raw" "${KILN_VM_SECONDS:-900}" 1 "$work/system/$1"/boot/vmlinuz-* "$work/start.cpio" \
    -drive "file=$work/$1.disk,format=raw,if=virtio,cache=unsafe"
  said_by "$work/$1.raw" > "$work/$1.said"
}
users 6.1 &
users 6.12 &
wait
for kernel in 6.1 6.12; do
  cat "$work/$kernel.said"
  counted=$(grep -E '^vm: [0-9]+ passed, [0-9]+ failed$' "$work/$kernel.said" || echo "vm: 0 passed, 1 failed")
  read -r _ ok _ bad _ <<< "$counted"
  passed=$((passed + ok))
  failed=$((failed + bad))
done
