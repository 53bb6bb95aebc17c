"""Processor time and peak memory of everything that a builder starts: its client, its daemon, its steps.

A control group counts them whole, however many processes there are and whoever waits for them. Where this machine lets
nobody make one, there are no numbers rather than wrong ones."""
import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
# The first samples come quickly, for programs that end in a few milliseconds. Whoever runs longer is not to share the
# processors with its meter all the time.
FIRST_SAMPLE_SECONDS, SAMPLE_SECONDS, LATE_SAMPLE_SECONDS = 0.001, 0.01, 0.04
LATE_SECONDS = 0.5
# By how much memory must have grown to be looked at closely.
NOTABLE = 1.03


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

    def processes(self):
        """The ids of all processes of the group."""
        # Groups end while they are looked at; os.walk passes over what is gone.
        for folder, _, _ in os.walk(self.group):
            try:
                yield from Path(folder, "cgroup.procs").read_text().split()
            except OSError:
                pass

    def resident(self):
        """Bytes resident in all processes of the group; a page that two of them share counts twice. Quick."""
        total = 0
        for pid in self.processes():
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            except OSError:
                pass
        return total

    def proportional(self):
        """The same, with a page that several share divided among them. Takes a while."""
        total = 0
        for pid in self.processes():
            try:
                found = Path(f"/proc/{pid}/smaps_rollup").read_text().split("\nPss:", 1)
                total += int(found[1].split()[0]) * 1024 if len(found) > 1 else 0
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
    """The most memory while in its block, sampled a hundred times a second, and 25 times after half a second: where more is
    resident than ever before, what that is with shared pages counted once."""

    def __init__(self, meter):
        self.meter, self.bytes, self.ended = meter, None, threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        pause, most, late = FIRST_SAMPLE_SECONDS, 0, time.monotonic() + LATE_SECONDS
        while not self.ended.wait(pause):
            resident = self.meter.resident()
            if resident > most * NOTABLE:
                most = resident
                self.bytes = max(self.bytes or 0, self.meter.proportional())
            pause = min(pause * 1.25, LATE_SAMPLE_SECONDS if time.monotonic() > late else SAMPLE_SECONDS)

    def __enter__(self):
        if self.meter.group:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        if self.meter.group:
            self.thread.join()


def measured(meter, argv, env, looks=True):
    """Runs a command in the meter's group: wall seconds, processor seconds, and peak memory if it `looks`, which takes some
    processor time of its own. What the command said is in the error if it fails.

    The process is in its group and waits before the clock starts: to enter a group takes milliseconds, which are not the
    builder's. What was written before is flushed meanwhile, so that it is nobody's either."""
    process = subprocess.Popen(["/bin/sh", "-c", 'read -r _; exec "$@" < /dev/null', "sh", *map(str, argv)], env=env,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=meter.enter)
    os.sync()
    before = meter.seconds()
    with Peak(meter) if looks else contextlib.nullcontext() as peak:
        started = time.monotonic()
        said, _ = process.communicate(b"go\n")
        wall = time.monotonic() - started
    cpu = None if before is None else meter.seconds() - before
    if process.returncode:
        raise RuntimeError(f"{argv[0]} exited {process.returncode}\n{said.decode(errors='replace')[-1500:]}")
    return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_memory_bytes": peak.bytes if looks else None}
