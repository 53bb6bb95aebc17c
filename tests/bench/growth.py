#!/usr/bin/env python3
"""growth.py --kiln PATH [--files 1000,…] [--mebibytes 100,…] [--runs 3] --out DIR

How Kiln's time and memory grow: with the number of files of about 1 KB, and with the bytes. For each size: cold, noop (the
archive is there) and edit (one file), each to an OCI archive. Writes DIR/growth-files.json and DIR/growth-mebibytes.json and
draws them, and prints by how much each grows. The largest size of each is measured once. A size for which there is no room
is left out, and that is said. All stands on a new file system, in a file in BENCH_DIR (disk.py)."""
import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import plot
import workloads
from bench import attempt, machine, one_phase, read_all, work_folder
from builders import Kiln

PHASES = ("cold", "noop", "edit")
KINDS = {"files": (workloads.files, [1_000, 10_000, 40_000, 100_000, 500_000]),
         "mebibytes": (workloads.mebibytes, [100, 512, 1024, 2048, 4096])}
# What one size takes on the disk at most: its context, a snapshot, the blobs before and after the edit, the archive.
NEEDED_BYTES = {"files": 5 * 4096, "mebibytes": 4 << 20}


def measure(kiln, work, kind, sizes, runs):
    make, results = KINDS[kind][0], []
    for size in sizes:
        free = shutil.disk_usage(work).free
        if free < size * NEEDED_BYTES[kind]:
            print(f"SKIP growth-{kind}-{size}: {free >> 20} MiB are free in {work}, {size * NEEDED_BYTES[kind] >> 20} are needed")
            continue
        context, edit = make(work / "contexts", size)
        read_all(context)
        for run in range(1 if size == max(sizes) else runs):
            kiln.reset()
            for phase in PHASES:
                if phase == "edit":
                    edit(int(time.time()))
                row = {"workload": kind, "size": size, "phase": phase, "builder": kiln.name, "run": run}
                attempt(results, row, lambda: one_phase(kiln, phase, context, work / "out-growth.tar"))
            kiln.reset()
        for phase in PHASES:
            rows = [row for row in results if (row["size"], row["phase"]) == (size, phase) and "wall_seconds" in row]
            if rows:
                wall, peak = (statistics.median(row[key] or 0 for row in rows) for key in ("wall_seconds", "peak_memory_bytes"))
                print(f"{size:8} {kind} {phase:6}{wall:9.3f} s{peak / (1 << 20):8.0f} MiB", flush=True)
        if kind == "mebibytes":
            shutil.rmtree(context)
    return results


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln", required=True)
    for kind, (_, sizes) in KINDS.items():
        a.add_argument(f"--{kind}", default=",".join(map(str, sizes)), help="sizes, smallest first; empty for none")
    a.add_argument("--runs", type=int, default=3)
    a.add_argument("--out", required=True, type=Path)
    a = a.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    with work_folder() as work:
        return grow(work, a)


def grow(work, a):
    """Measures each kind, and writes and draws what was found."""
    kiln, failed = Kiln(work, a.kiln), False
    try:
        for kind in KINDS:
            sizes = sorted(int(size) for size in getattr(a, kind).split(",") if size)
            if not sizes:
                continue
            results = measure(kiln, work, kind, sizes, a.runs)
            failed |= any("error" in row for row in results)
            document = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "runs": a.runs, "kind": kind,
                        "command": f"tests/bench/growth.sh --runs {a.runs} --{kind} {','.join(map(str, sizes))}",
                        "builders": {kiln.name: kiln.version}, "results": results}
            (a.out / f"growth-{kind}.json").write_text(json.dumps(document, indent=1) + "\n")
            for line in plot.slopes(document):
                print(line)
            for name, drawn in plot.pictures(document).items():
                (a.out / name).write_text(drawn)
    finally:
        kiln.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
