#!/bin/busybox sh
# list.sh: all that stands below /data, sorted: kind, mode, owner, size, digest or target. Runs in an image, by its busybox.
b=/bin/busybox
cd /data && $b find . | $b sort | while read -r name; do
  what=$($b stat -c '%f %u:%g' "$name")
  case $($b stat -c %F "$name") in
    "symbolic link") rest="-> $($b readlink "$name")" ;;
    "regular file" | "regular empty file") rest=$($b sha256sum < "$name") ;;
    *) rest= ;;
  esac
  echo "$name $what $rest"
done
