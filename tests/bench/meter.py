"""Processor time and peak memory of everything that a builder starts: its client, its daemon, its steps.

A control group counts them whole, however many processes there are and whoever waits for them. Where this machine lets
nobody make one, there are no numbers rather than wrong ones."""
import os
import threading
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.01


def _hierarchy():
    """The first hierarchy that counts processor time and can be written, and the file that has the count."""
    for top, count in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat")):
        trial = Path(top) / f"kiln-bench-{os.getpid()}"
        try:
            trial.mkdir()
        except OSError:
            continue
        usable = (trial / count).exists() and (trial / "cgroup.procs").exists()
        trial.rmdir()
        if usable:
            return Path(top), count
    return None


HIERARCHY = _hierarchy()


class Meter:
    """The control group of one builder. `containers` is where a daemon is told to put the groups of its own."""

    def __init__(self, name):
        self.group = None
        self.containers = f"/kiln-bench-{os.getpid()}/{name}/containers"
        if HIERARCHY:
            self.group = HIERARCHY[0] / f"kiln-bench-{os.getpid()}" / name
            (self.group / "own").mkdir(parents=True)

    def enter(self):
        """To be called in a new process before it becomes the builder."""
        if self.group:
            (self.group / "own" / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self):
        """Processor seconds used so far by all of the group, ended processes too."""
        if not self.group:
            return None
        text = (self.group / HIERARCHY[1]).read_text()
        if HIERARCHY[1] == "cpu.stat":
            return int(text.split("usage_usec ")[1].split()[0]) / 1e6
        return int(text) / 1e9

    def resident(self):
        """Bytes resident in all processes of the group; a page that two of them share counts twice."""
        total = 0
        # Groups and processes end while they are looked at; os.walk passes over what is gone.
        for folder, _, _ in os.walk(self.group):
            try:
                ids = Path(folder, "cgroup.procs").read_text().split()
            except OSError:
                continue
            for pid in ids:
                try:
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
                except OSError:
                    pass
        return total

    def close(self):
        """Removes the group; a daemon must have ended."""
        if not self.group:
            return
        for folder in sorted((p for p in self.group.rglob("*") if p.is_dir()), reverse=True):
            _remove(folder)
        _remove(self.group)
        _remove(self.group.parent)


def _remove(folder):
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)


class Peak:
    """The greatest resident size while in its block, sampled a hundred times a second."""

    def __init__(self, meter):
        self.meter, self.bytes, self.ended = meter, None, threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes or 0, self.meter.resident())

    def __enter__(self):
        if self.meter.group:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        if self.meter.group:
            self.thread.join()
