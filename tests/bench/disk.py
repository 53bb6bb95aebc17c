"""What is old must not cost what is timed.

ext4 without a journal does not use the inode of a removed file again for six minutes, and passes over all of them one by one
whenever it makes a file: after a large tree was removed, files take ten times as long to make, whoever makes them. So nothing
is removed between two timings. Old states only lose their bytes; they go when all is measured, and a benchmark that begins
soon after waits, where the file system is of that kind."""
import contextlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

# A minute after the removal, and five more while the block that the inode stands in is being changed: fs/ext4/ialloc.c.
PASSED_OVER_SECONDS = 361
LARGE_BYTES = 1 << 20
MANY = 5000
STAMP = "removed"


def hollow(folder):
    """Takes the bytes of large files and leaves their names."""
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                found = os.lstat(file := os.path.join(path, name))
                if stat.S_ISREG(found.st_mode) and found.st_size > LARGE_BYTES:
                    os.truncate(file, 0)


def remove(work, folders):
    """Removes trees of a benchmark's work folder when all is measured, and notes when it was much."""
    names = 0
    for folder in folders:
        names += sum(len(folders) + len(files) for _, folders, files in os.walk(folder))
        shutil.rmtree(folder, ignore_errors=True)
    if names > MANY:
        (work / STAMP).touch()


def _passes_over(folder):
    """Whether a folder is on ext4 without a journal."""
    found = subprocess.run(["findmnt", "-no", "FSTYPE,SOURCE", "--target", folder], capture_output=True, text=True, check=False)
    kind, _, source = found.stdout.strip().partition(" ")
    return kind == "ext4" and not list(Path("/proc/fs/jbd2").glob(f"{Path(source.strip()).resolve().name}-*"))


def settle(work):
    """Waits until what was removed is forgotten."""
    if not (work / STAMP).exists() or not _passes_over(work):
        return
    left = (work / STAMP).stat().st_mtime + PASSED_OVER_SECONDS - time.time()
    if left > 0:
        print(f"waiting {left:.0f} s: large trees were removed just now, and this file system makes files slowly until it forgets them", flush=True)
        time.sleep(left)
