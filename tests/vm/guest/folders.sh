# shellcheck shell=bash disable=SC2154,SC2015
# State folders on file systems of all kinds: it builds there, or says before any step what to do instead.
mkdir -p /srv
# a_disk KIND: one that everybody may write to, at /mnt/KIND.
a_disk() {
  local kind=$1 options=loop
  modprobe "$kind"
  mkdir -p "/mnt/$kind"
  truncate -s 400M "/srv/$kind"
  [ "$kind" != vfat ] || { options=loop,uid=1000,gid=1000; modprobe -a nls_cp437 nls_ascii; }
  "mkfs.$kind" "/srv/$kind" > /tmp/said 2>&1 && mount -t "$kind" -o "$options" "/srv/$kind" "/mnt/$kind" 2>> /tmp/said || { bad "a disk of $kind"; return 1; }
  chmod 777 "/mnt/$kind" 2> /dev/null
}
# refused WHAT USER ROOT TEXT: no step is begun.
refused() {
  local began=$SECONDS
  build "$2" "$3" --progress plain
  [ "$status" = 1 ] || echo "exit $status" >> /tmp/said
  says "$1, $2: refused" "$4"
  if grep -q 'RUN ' /tmp/said || [ $((SECONDS - began)) -gt 60 ]; then bad "$1, $2: before any step"; fi
}

for kind in btrfs xfs; do
  a_disk "$kind" || continue
  for user in ann bob; do
    builds "on $kind, $user" "$user" "/mnt/$kind/$user"
    is_silent "on $kind, $user: stacked"
  done
  umount "/mnt/$kind"
done
mkdir -p /mnt/tmpfs
mount -t tmpfs -o mode=777 tmpfs /mnt/tmpfs
for user in ann bob; do
  builds "on a tmpfs, $user" "$user" "/mnt/tmpfs/$user"
  case $kernel in
    6.1) says "on a tmpfs, $user: copied, which is said" "layers are copied and not stacked, which takes longer: setxattr(user.overlay.opaque)" ;;
    *) is_silent "on a tmpfs, $user: stacked" ;;
  esac
done
if a_disk vfat; then
  refused "on FAT" ann /mnt/vfat/ann "symlink fails there"
  refused "on FAT" root /mnt/vfat/root "symlink fails there"
  umount /mnt/vfat
fi

# The kernel's own server, over loopback.
mkdir -p /srv/nfs/{ann,bob,root} /srv/open /var/lib/nfs/{sm,sm.bak,rpc_pipefs,v4recovery} /run/rpcbind
chown ann:ann /srv/nfs/ann
chown bob:bob /srv/nfs/bob
printf '/srv/nfs *(rw,root_squash,no_subtree_check,fsid=1)\n/srv/open *(rw,no_root_squash,no_subtree_check,fsid=2)\n' > /etc/exports
modprobe -a nfsd nfsv3 nfsv4
mount -t nfsd nfsd /proc/fs/nfsd
mount -t rpc_pipefs pipes /var/lib/nfs/rpc_pipefs
# After its start a server of version 4 has everybody wait for those who may have had locks; by default for 90 seconds.
{ rpcbind -w && rpc.statd && exportfs -ra && rpc.nfsd --grace-time 10 --lease-time 10 2 && rpc.mountd; } > /tmp/said 2>&1 || bad "an NFS server"
for version in 3 4.2; do
  mkdir -p "/mnt/nfs$version" "/mnt/open$version"
  mount -t nfs -o "vers=$version" 127.0.0.1:/srv/nfs "/mnt/nfs$version" > /tmp/said 2>&1 || { bad "mounting NFS $version"; continue; }
  mount -t nfs -o "vers=$version" 127.0.0.1:/srv/open "/mnt/open$version"
  refused "on NFS $version" ann "/mnt/nfs$version/ann/state" "is on a file system that cannot hold layers: chown fails there"
  says "on NFS $version, ann: what helps" "kiln --root /var/tmp/kiln-1000"
  refused "on NFS $version" bob "/mnt/nfs$version/bob/state" "cannot hold layers: renameat2(RENAME_NOREPLACE) fails there"
  says "on NFS $version, bob: what helps" "kiln --root /var/tmp/kiln-1001"
  # Who is root here is nobody there.
  refused "on NFS $version, squashed" root "/mnt/nfs$version/root/state" "cannot be written"
  refused "on NFS $version" root "/mnt/open$version/state" "cannot hold layers: renameat2(RENAME_NOREPLACE) fails there"
done
ls -A /srv/nfs/ann /srv/nfs/bob /srv/nfs/root /srv/open > /tmp/said
if grep -q kiln /tmp/said; then bad "nothing is left on NFS"; else ok "nothing is left on NFS"; fi
builds "where it was told to, ann" ann /var/tmp/kiln-1000
