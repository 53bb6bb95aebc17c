# shellcheck shell=bash disable=SC2154,SC2016
# Part of run.sh: the escape suite, the tests of limits and a small build on Linux 6.1, of root's, in a machine whose root is its initramfs.
package=$(apt-cache search --names-only '^linux-image-6\.1\..*-cloud-amd64$' | sort -V | tail -n 1 | cut -d ' ' -f 1)
[ -n "$package" ] || skip "no kernel 6.1 in the package lists"
(cd "$work" && apt-get download -q "$package" > log 2>&1) || skip "the kernel cannot be fetched: $(tail -n 1 "$work/log")"
dpkg -x "$work/$package"_*.deb "$work/kernel"

root=$work/escapes
mkdir -p "$root/bin" "$root/etc" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/state" "$root/context" "$root/modules"
cp /bin/busybox "$root/bin/busybox"
for name in sh mount insmod unshare cat ls echo poweroff mkdir sleep ip grep seq true; do ln -s busybox "$root/bin/$name"; done
cp "$program" "$root/bin/kiln"
# The tests find the program, and the base image, by where they are themselves, and start cargo in the checkout, which has nothing to do.
tests=$root/target/debug/deps
mkdir -p "$tests" "$root/target/kiln-tests"
echo "$PWD" > "$root/checkout"
ln -s /bin/kiln "$root/target/debug/kiln"
cp "$(built sandbox escape)" "$tests/escape"
cp "$(built sandbox sandbox)" "$tests/sandbox"
cp "$(built kiln-tests limits)" "$tests/limits"
strip "$root/bin/kiln" "$tests"/*
gcc -O1 -static -o "$root/bin/attempts" builder/sandbox/tests/escape/attempts.c
[ -z "$base" ] || { cp -r "$base" "$root/base" && ln -s /base "$root/target/kiln-tests/base"; }
for module in overlay dummy loop fuse; do
  file=$(find "$work/kernel" -path "*lib/modules*" -name "$module.ko*" | head -n 1)
  [ -z "$file" ] || cp "$file" "$root/modules/"
done
printf 'FROM busybox\nCOPY file /file\nRUN cat /file > /copy; mknod /null c 1 3; echo > /null\nRUN --network=none test "$(cat /copy)" = content\n' > "$root/context/Dockerfile"
echo content > "$root/context/file"
cat > "$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin TMPDIR=/state CARGO=/bin/true
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mkdir -p "$(cat /checkout)"
mount -t tmpfs state /state
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup /sys/fs/cgroup
for module in /modules/*; do insmod "$module"; done
ip link set lo up
ip link add outside type dummy
echo "vm: Linux $(cat /proc/sys/kernel/osrelease)"
KILN_ESCAPES_PROGRAM=/bin/attempts /target/debug/deps/escape > /tmp/said
cat /tmp/said
grep -q '^test result: ok' /tmp/said && echo "vm: escapes ok"
if [ -d /base ]; then
  kiln --root /state/kiln build --progress plain --build-context busybox=oci-layout:///base:busybox:latest -t made /context && echo "vm: build ok"
  kiln --root /state/kiln build --progress plain --memory 64m --build-context busybox=oci-layout:///base:busybox:latest --no-cache -t made /context && echo "vm: limited build ok"
else
  echo "vm: no base image"
fi
grep -q 'cgroup2 .*nsdelegate' /proc/mounts && echo "vm: options kept ok"
ls /sys/fs/cgroup | grep kiln || echo "vm: no groups left ok"
for controller in memory cpu pids cpuset; do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done
/target/debug/deps/sandbox cgroups:: && echo "vm: groups ok"
# Thirty builds at once are nothing for a machine that is emulated.
[ ! -d /base ] || { /target/debug/deps/limits --skip many_builds && echo "vm: limits ok"; }
echo "vm: end"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc) > "$work/initramfs"

machine "$work/escapes.raw" "${KILN_VM_SECONDS:-900}" 2 "$work"/kernel/boot/vmlinuz-* "$work/initramfs"
said_by "$work/escapes.raw" > "$work/escapes.said"
tail -n 150 "$work/escapes.said"
ended=$(grep -cE '^vm: (escapes|build|limited build|options kept|no groups left|groups|limits) ok' "$work/escapes.said" || true)
wanted=$([ -n "$base" ] && echo 7 || echo 4)
passed=$((passed + ended))
failed=$((failed + wanted - ended))
