#!/usr/bin/env python3
"""bench.py --kiln PATH [--peers buildah,docker] [--only steps,many] [--runs 5] --json FILE

The same Dockerfiles through several builders, phase by phase: cold (the builder knows nothing), noop (again, nothing
changed, the archive is there), noop-new (again, the archive is gone), edit (one file of the context changed). Every phase
ends with an OCI archive on disk. Builders take turns, run by run, so that the machine's drift hits all of them; before each
timing what was written is flushed and what will be read is in memory, and nothing is removed between two timings. For each:
wall seconds, processor seconds and peak memory of all that the builder started, and the size of the archive. All stands on a
new file system, in a file in BENCH_DIR (disk.py)."""
import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import disk
import workloads
from builders import Buildah, Docker, Kiln, NewerDocker
from floor import Overlay, Shell
from meter import measured
from runc import Runc

PHASES = ("cold", "noop", "noop-new", "edit")
PEERS = {peer.name: peer for peer in (Buildah, Docker, NewerDocker)}


def attempt(results, row, what):
    """Adds what was measured to the results, or the error."""
    try:
        row |= what()
    except RuntimeError as error:
        row["error"] = str(error)
        print(f"!! {row['workload']} {row['phase']} {row['builder']}: {error}", file=sys.stderr)
    results.append(row)


def read_all(*paths):
    """So that no builder reads from the disk what another found in memory: there are kernels that give back to their host what
    nobody has read for some seconds (DAMON), and so whoever waits longer while others take their turn."""
    with subprocess.Popen(["find", "-L", *paths, "-type", "f", "-print0"], stdout=subprocess.PIPE) as found:
        subprocess.run(["xargs", "-0", "cat"], stdin=found.stdout, stdout=subprocess.DEVNULL, check=True)


# Of a context's size: what a builder reads of it, and what it writes to its state and to the archive.
OFTEN = 3
# Of a small context: what its steps write, and the builders' own.
LEAST_MEMORY_BYTES = 256 << 20
# Whoever needs more waits for more than memory.
MOST_MEMORY_BYTES = 3 << 30
PIECE = bytes(128 << 10)


def own_memory(context, folder):
    """Takes what memory a build will need for files, and frees it again: a virtual machine has given much of it back to its
    host, and whoever is the first to use it then waits for the host, several µs a page. By a file, as the builders do: memory
    that a process had for itself is not what a file gets next."""
    size = OFTEN * sum(path.stat().st_size for path in context.rglob("*") if path.is_file())
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(0, min(max(size, LEAST_MEMORY_BYTES), MOST_MEMORY_BYTES), len(PIECE)):
            file.write(PIECE)


def one_phase(builder, phase, context, out, looks):
    if phase in ("cold", "noop-new"):
        out.unlink(missing_ok=True)
    builder.before(out)
    os.sync()
    read_all(context, *builder.programs)
    own_memory(context, out.parent)
    row = measured(builder.meter, builder.build(context, out), builder.env, looks)
    return row | {"archive_bytes": out.stat().st_size}


def measure(builders, floors, work, names, runs):
    results = []
    for name in names:
        context, edit = workloads.ALL[name](work / "contexts")
        for run in range(runs):
            # Another one begins each time.
            turn = [builders[(i + run) % len(builders)] for i in range(len(builders))]
            turn = [builder for builder in turn if builder.most_runs is None or run < builder.most_runs]
            for builder in turn:
                builder.reset()
            for phase in PHASES[:1] if name == "nosteps" else PHASES:
                if phase == "edit":
                    if not edit:
                        continue
                    # Not the bytes that an earlier run has left.
                    edit(int(time.time()))
                for builder in turn:
                    if phase in builder.phases:
                        row = {"workload": name, "phase": phase, "builder": builder.name, "run": run}
                        out = work / f"out-{builder.name}.tar"
                        # Memory is looked at in the first run alone: with two processors that slows what is timed.
                        attempt(results, row, lambda: one_phase(builder, phase, context, out, run == 0))
            for floor in floors:
                if alone := getattr(floor, name, None):
                    attempt(results, {"workload": name, "phase": "cold", "builder": floor.name, "run": run}, alone)
        show(results, name)
    return results


def show(results, name):
    for phase in PHASES:
        cells = []
        for builder in dict.fromkeys(row["builder"] for row in results):
            walls = [row["wall_seconds"] for row in results
                     if (row["workload"], row["phase"], row["builder"]) == (name, phase, builder) and "wall_seconds" in row]
            if walls:
                cells.append(f"{builder} {statistics.median(walls):8.3f} s")
        if cells:
            print(f"{name:8}{phase:9}{'   '.join(cells)}", flush=True)


def processors():
    """The ticks that this machine's processors had, and those of them that its host gave to others."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[7]


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1 << 20)
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_gib": memory, "kernel": platform.release()}


@contextlib.contextmanager
def work_folder():
    """Where contexts, states and archives are. From here on a benchmark that is told to end ends what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with disk.of_its_own(Path(os.environ.get("BENCH_DIR") or Path(tempfile.gettempdir()) / "kiln-bench")) as work:
        yield work


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln", required=True)
    a.add_argument("--peers", default="buildah,docker", help=f"of {', '.join(PEERS)}; empty for none")
    a.add_argument("--targets", action="store_true", help="Docker alone: all that the targets need, in less time")
    a.add_argument("--only", default=",".join(workloads.ALL))
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--json", required=True)
    a = a.parse_args()
    names, peers = a.only.split(","), ["docker"] if a.targets else list(filter(None, a.peers.split(",")))
    unknown = [name for name in names if name not in workloads.ALL] + [p for p in peers if p not in PEERS]
    if unknown:
        sys.exit(f"bench.py: no workload or builder is called {', '.join(unknown)}; workloads: {', '.join(workloads.ALL)}; "
                 f"builders: {', '.join(PEERS)}")
    if "steps" in names and "nosteps" not in names:
        names.insert(names.index("steps") + 1, "nosteps")
    with work_folder() as work:
        return write(work, a, names, peers)


def write(work, a, names, peers):
    """Measures and writes what was found."""
    started, clock, before = time.strftime("%Y-%m-%d %H:%M"), time.monotonic(), processors()
    builders, floors = [], []
    try:
        builders.append(Kiln(work, a.kiln))
        for peer in peers:
            builders.append(PEERS[peer](work))
        floors += [floor(work) for floor in (Runc, Shell, Overlay) if any(hasattr(floor, name) for name in names)]
        results = measure(builders, floors, work, names, a.runs)
    finally:
        for ended in [*builders, *floors]:
            ended.stop()
    ticks, stolen = (now - then for now, then in zip(processors(), before))
    document = {"date": started, "machine": machine(), "stolen": round(stolen / ticks, 3), "runs": a.runs,
                "minutes": round((time.monotonic() - clock) / 60, 1),
                "command": f"tests/bench/run.sh --runs {a.runs} --only {','.join(names)} --peers {','.join(peers)}",
                "builders": {builder.name: builder.version for builder in builders},
                "runc": next((floor.version for floor in floors if isinstance(floor, Runc)), None), "results": results}
    Path(a.json).write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any("error" in row for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
