#!/usr/bin/env python3
"""bench.py --kiln PATH [--peers buildah,docker] [--only steps,many] [--runs 5] --json FILE

The same Dockerfiles through several builders, phase by phase: cold (the builder knows nothing), noop (again, nothing
changed), edit (one file of the context changed). Every phase ends with an OCI archive on disk. Builders take turns, run
by run, so that the machine's drift hits all of them; what was written before is flushed before each timing. For each:
wall seconds, processor seconds and peak memory of all that the builder started. BENCH_DIR chooses the work folder."""
import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import workloads
from builders import Buildah, Docker, Kiln
from meter import Peak

PHASES = ("cold", "noop", "edit")


def timed(builder, context, out):
    os.sync()
    before = builder.meter.seconds()
    with Peak(builder.meter) as peak:
        started = time.monotonic()
        builder.build(context, out)
        wall = time.monotonic() - started
    cpu = None if before is None else builder.meter.seconds() - before
    return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_memory_bytes": peak.bytes}


def measure(builders, work, names, runs):
    results = []
    for name in names:
        context, edit = workloads.ALL[name](work / "contexts")
        for run in range(runs):
            for phase in PHASES:
                if phase == "edit":
                    if not edit:
                        continue
                    edit(1000 + run)
                for builder in builders:
                    out = work / f"out-{builder.name}.tar"
                    row = {"workload": name, "phase": phase, "builder": builder.name, "run": run}
                    try:
                        if phase == "cold":
                            builder.reset()
                            out.unlink(missing_ok=True)
                        row |= timed(builder, context, out)
                    except RuntimeError as error:
                        row["error"] = str(error)
                        print(f"!! {name} {phase} {builder.name}: {error}", file=sys.stderr)
                    results.append(row)
        show(results, name, builders)
    return results


def show(results, name, builders):
    for phase in PHASES:
        cells = []
        for builder in builders:
            walls = [row["wall_seconds"] for row in results
                     if (row["workload"], row["phase"], row["builder"]) == (name, phase, builder.name) and "wall_seconds" in row]
            if walls:
                cells.append(f"{builder.name} {statistics.median(walls):8.3f} s")
        if cells:
            print(f"{name:8}{phase:6}{'   '.join(cells)}", flush=True)


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1 << 20)
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_gib": memory, "kernel": platform.release()}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln")
    a.add_argument("--peers", default="buildah,docker")
    a.add_argument("--only", default=",".join(workloads.ALL))
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--json", required=True)
    a = a.parse_args()
    work = Path(os.environ.get("BENCH_DIR") or Path(tempfile.gettempdir()) / "kiln-bench")
    work.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y-%m-%d")
    builders = []
    try:
        if a.kiln:
            builders.append(Kiln(work, a.kiln))
        for peer in filter(None, a.peers.split(",")):
            builders.append({"buildah": Buildah, "docker": Docker}[peer](work))
        results = measure(builders, work, a.only.split(","), a.runs)
    finally:
        for builder in builders:
            builder.stop()
    document = {"date": started, "machine": machine(), "runs": a.runs, "command": f"tests/bench/run.sh --runs {a.runs} --only {a.only} --peers {a.peers}",
                "builders": {builder.name: builder.version for builder in builders}, "results": results}
    Path(a.json).write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any("error" in row for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
