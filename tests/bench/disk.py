"""A disk of a benchmark's own: what stood on the machine's before must not cost what is timed.

ext4 without a journal passes over the inodes of removed files for six minutes, one by one, whenever it makes a file: after
somebody removed a large tree, files take ten times as long to make, whoever makes them. So a benchmark makes a new ext4, with
the journal that mkfs.ext4 gives to people's disks, in a file of this machine's disk, and gives the file back in the end.
Nothing is removed in it between two timings; old states lose the bytes of their large files only."""
import contextlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

MOST_BYTES = 24 << 30
# Left to the machine.
SPARE_BYTES = 2 << 30
# Of all the states of all builders; ext4 cannot add any later.
INODES = 4_000_000
LARGE_BYTES = 1 << 20


def hollow(folder, above=LARGE_BYTES):
    """Takes the bytes of files that have more than so many, and leaves their names."""
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                found = os.lstat(file := os.path.join(path, name))
                if stat.S_ISREG(found.st_mode) and found.st_size > above:
                    os.truncate(file, 0)


def _run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{argv[0]} exited {done.returncode}: {done.stderr.strip()}\nThe benchmark makes a file system of its own, for which it "
                 "must be root and loop devices must be there.")
    return done.stdout.strip()


def _end(mounted, file):
    """Unmounts what is mounted there and below, and gives the file's room back."""
    if os.path.ismount(mounted):
        subprocess.run(["umount", "--recursive", "--lazy", mounted], check=False)
    file.unlink(missing_ok=True)


@contextlib.contextmanager
def of_its_own(folder):
    """A new file system below a folder, as the path that it is mounted at."""
    folder.mkdir(parents=True, exist_ok=True)
    file, mounted = folder / "disk.ext4", folder / "disk"
    # Of a benchmark that was killed.
    _end(mounted, file)
    mounted.mkdir(exist_ok=True)
    size = min(MOST_BYTES, shutil.disk_usage(folder).free - SPARE_BYTES)
    try:
        _run("fallocate", "--length", str(size), file)
        _run("mkfs.ext4", "-q", "-N", str(INODES), "-E", "lazy_itable_init=0,lazy_journal_init=0", file)
        # Past this machine's page cache, which the inner file system's would otherwise fill twice.
        device = _run("losetup", "--find", "--show", "--direct-io=on", file)
        try:
            _run("mount", device, mounted)
        finally:
            # From now on it goes when it is unmounted.
            _run("losetup", "--detach", device)
        yield mounted
    finally:
        _end(mounted, file)
