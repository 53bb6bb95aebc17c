# shellcheck shell=sh
# as-user.sh UID subids|single CHANGE PROGRAM [ARGUMENT...]: starts a program as the user kiln-test of that number, with sub-ids or without.
# To be run by root in a mount namespace of its own (unshare --mount): there the files of /etc with accounts are others, and /etc
# itself stays as it is. CHANGE is a script of root's that changes the machine for the program alone; what it puts into the variable
# `before` starts the program.
set -e
made=$(mktemp -d)
for file in passwd group subuid subgid; do cp "/etc/$file" "$made/$file" 2> /dev/null || : > "$made/$file"; done
echo "kiln-test:x:$1:$1::/nonexistent:/bin/sh" >> "$made/passwd"
echo "kiln-test:x:$1:" >> "$made/group"
if [ "$2" = subids ]; then for file in subuid subgid; do echo "kiln-test:1000000:65536" > "$made/$file"; done; fi
for file in passwd group subuid subgid; do
  chmod 644 "$made/$file"
  [ ! -e "/etc/$file" ] || mount --bind "$made/$file" "/etc/$file"
done
rm -rf "$made"
user=$1
change=$3
shift 3
before=
eval "$change"
exec $before setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
