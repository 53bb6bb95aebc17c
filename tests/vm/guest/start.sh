#!/bin/bash
# Makes the machine ready, runs all parts, and turns it off.
export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
ln -s /proc/self/fd /dev/fd
mount -t devpts pts /dev/pts
# The checkout may be below it.
[ -n "$(ls /tmp)" ] || mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
for module in overlay tun fuse loop dummy; do modprobe "$module" || echo "vm: no module $module"; done
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
chmod 666 /dev/net/tun
cd /guest || exit
. ./checks.sh
mapfile -t parts < /guest/parts
for part in "${parts[@]}"; do
  began=$SECONDS
  # shellcheck disable=SC1090
  . "/guest/$part.sh"
  echo "vm: Linux $(uname -r | cut -d . -f 1,2): $part: $((SECONDS - began)) s"
done
# shellcheck disable=SC2154
echo "vm: $passed passed, $failed failed"
sync
busybox poweroff -f
