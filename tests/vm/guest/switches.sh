# shellcheck shell=bash disable=SC2154,SC2015
# What can be switched off on a machine: `kiln info` tells of it, and its line mends it.
printf '#!/bin/sh\nexec "$@"\n' > /usr/local/bin/sudo
chmod +x /usr/local/bin/sudo

for setting in kernel.unprivileged_userns_clone user.max_user_namespaces; do
  before=$(sysctl -n "$setting")
  for user in ann:subids bob:single; do
    sysctl -qw "$setting=0"
    mended "$setting=0" "${user%:*}" "${user#*:}" "found: $setting = 0"
  done
  sysctl -qw "$setting=$before"
done

cp /etc/subuid /etc/subgid /tmp/
mended "no sub-ids" bob subids "/etc/subuid gives no sub-ids to bob"
cp /tmp/subuid /tmp/subgid /etc/
chmod u-s /usr/bin/newuidmap
mended "newuidmap without rights" ann subids "newuidmap is neither set-user-id root nor has it capabilities"
chmod u+s /usr/bin/newuidmap

# A profile of AppArmor's for all programs there, with these rules. Ubuntu's switch, which only Ubuntu's kernel has, comes down to the second.
confine() {
  printf 'abi <abi/4.0>,\nprofile %s /usr/local/bin/kil* flags=(attach_disconnected) {\n  file,\n  network,\n  unix,\n  signal,\n  ptrace,\n  umount,\n  pivot_root,\n%s}\n' \
    "$1" "$2" > /tmp/profile
  apparmor_parser -r /tmp/profile > /tmp/said 2>&1 || bad "AppArmor takes the profile $1"
}
free() {
  apparmor_parser -R /tmp/profile
  [ ! -e /etc/apparmor.d/kiln ] || apparmor_parser -R /etc/apparmor.d/kiln
  rm -f /etc/apparmor.d/kiln
}
if grep -q '^Y' /sys/module/apparmor/parameters/enabled 2> /dev/null && grep -q userns_create /sys/kernel/security/apparmor/features/namespaces/mask 2> /dev/null; then
  for user in ann:subids bob:single; do
    confine no-namespaces $'  mount,\n  capability,\n'
    mended "a profile without user namespaces" "${user%:*}" "${user#*:}" "(found: the profile no-namespaces of AppArmor)"
    builds "with the profile for Kiln" "${user%:*}" "/var/tmp/apparmor-${user%:*}"
    free
    confine no-rights $'  mount,\n  userns,\n'
    mended "a profile without capabilities" "${user%:*}" "${user#*:}" "(found: the profile no-rights of AppArmor)"
    free
  done
  confine docker-default $'  userns,\n  capability,\n'
  mapfile -t told < <(offer ann /var/tmp/info-ann subids)
  printf '%s\n' "${told[@]}" > /tmp/said
  if [ "${told[2]}" = "run the container with --security-opt apparmor=unconfined" ]; then ok "a container's profile: ${told[1]}"; else bad "a container's profile"; fi
  free
else
  echo "SKIP vm/apparmor: Linux $kernel does not ask AppArmor about user namespaces"
fi

mount -o remount,hidepid=2 /proc
builds "hidepid=2, subids" ann /var/tmp/hidden-ann
builds "hidepid=2, single" bob /var/tmp/hidden-bob
mount -o remount,hidepid=0 /proc
mount --bind /dev/null /proc/keys
for user in ann bob; do
  builds "a masked /proc, $user" "$user" "/var/tmp/masked-$user"
  says "a masked /proc, $user, is told" "steps see the /proc of this container"
done
umount /proc/keys
mount -o remount,bind,ro /sys/fs/cgroup
builds "groups read-only, subids" ann /var/tmp/groups-ann
builds "groups read-only, single" bob /var/tmp/groups-bob
builds "groups read-only, root" root /var/tmp/groups-root
mount -o remount,bind,rw /sys/fs/cgroup
