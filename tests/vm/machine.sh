# shellcheck shell=bash
# For other scripts: a machine of its own, by qemu.

# machine SAID SECONDS PROCESSORS KERNEL INITRAMFS OPTION…: starts one, and writes what it says to a file; with KVM where there is one,
# else emulated. Two emulated processors change code under each other, which the emulator does not always get right, nor the flags after cmpxchg16b:
# Linux from 6.2 on falls over both.
machine() {
  local said=$1 seconds=$2 processors=$3 kernel=$4 initramfs=$5 faster=(-accel tcg -cpu "max,-cx16")
  shift 5
  # A device without a processor behind it starts a machine that never gets anywhere.
  grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && { : > /dev/kvm; } 2> /dev/null && faster=(-accel kvm -accel tcg -cpu max)
  timeout "$seconds" qemu-system-x86_64 "${faster[@]}" -m 3072 -smp "$processors" -nographic -no-reboot -net none -kernel "$kernel" -initrd "$initramfs" \
    -append "console=ttyS0 quiet panic=-1 no_timer_check" "$@" < /dev/null > "$said" 2>&1 || echo "vm: qemu ended with $?" >> "$said"
}

# What a machine said, without what is meant for its screen.
said_by() { tr -d '\r' < "$1" | sed 's/^.*\x1b\[?7l\x1b\[2J//'; }
