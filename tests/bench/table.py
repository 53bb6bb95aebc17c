#!/usr/bin/env python3
"""table.py RAW.json...: docs/benchmarks.md, on standard output, of what run.sh and ship.sh measured."""
import json
import statistics
import sys
from pathlib import Path

WORKLOADS = {
    "steps": "60 RUN steps that do nothing much: the fixed cost of a step",
    "many": "40,000 small files (160 MB), copied whole",
    "big": "768 MiB in 12 files, half of it compressible",
    "stages": "16 independent stages of 0.5 s each, then a join",
    "diff": "a RUN that writes 20,000 files and one that deletes half of them",
    "mono": "a repository of 40,000 files of which 100 are used; the edit is elsewhere",
}
PHASES = {"cold": "nothing known", "noop": "nothing changed", "edit": "one file changed"}


def median(rows, key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(values) if values else None


def seconds(value):
    return "–" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def cell(rows, wall_of_kiln):
    wall = median(rows, "wall_seconds")
    if wall is None:
        return "failed" if any("error" in row for row in rows) else "–"
    walls = [row["wall_seconds"] for row in rows if "wall_seconds" in row]
    ratio = f" ({wall / wall_of_kiln:.1f}×)" if wall_of_kiln else ""
    memory = median(rows, "peak_memory_bytes")
    memory = "–" if memory is None else f"{memory / (1 << 20):.0f}"
    return (f"**{seconds(wall)}**{ratio} {seconds(min(walls))}–{seconds(max(walls))}<br>"
            f"{seconds(median(rows, 'cpu_seconds'))} cpu, {memory} MiB")


def table(document):
    results, builders = document["results"], list(document["builders"])
    yield "| workload | phase | " + " | ".join(builders) + " |"
    yield "|---|---|" + "---|" * len(builders)
    for workload in dict.fromkeys(row["workload"] for row in results):
        for phase in PHASES:
            of = {b: [row for row in results if (row["workload"], row["phase"], row["builder"]) == (workload, phase, b)]
                  for b in builders}
            if not any(of.values()):
                continue
            kiln = median(of.get("kiln", []), "wall_seconds")
            cells = [cell(of[b], kiln if b != "kiln" else None) for b in builders]
            yield f"| {workload} | {phase} | " + " | ".join(cells) + " |"


def builds(raw, document):
    machine = document["machine"]
    print(f"""
## Builds

Written by `tests/bench/run.sh`; the raw data is in `docs/bench/{raw.name}`.

The same Dockerfiles through several builders, which take turns on one machine. Every build ends with an OCI archive on
disk, with gzip layers. In a cell: the median of the wall seconds (and how many times Kiln's), least and greatest; below
it the medians of the processor seconds, and of the peak resident memory, of all processes that the builder started, its
daemon and its steps included. What was written before is flushed to disk before each timing.

{document['date']}, {document['runs']} runs; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}.
""")
    for name, version in document["builders"].items():
        print(f"- {name}: {version}")
    print("- buildah builds with `--isolation chroot`, which makes fewer namespaces than the others do.\n")
    print("\n".join(table(document)))
    print("\n| workload | what it is |\n|---|---|")
    for name in dict.fromkeys(row["workload"] for row in document["results"]):
        print(f"| {name} | {WORKLOADS[name]} |")
    print("\nPhases: " + "; ".join(f"{name}, {meaning}" for name, meaning in PHASES.items()) + ".")


def ship(raw, document):
    machine, results = document["machine"], document["results"]
    print(f"""
## Pulls and pushes

Written by `tests/bench/ship.sh`; the raw data is in `docs/bench/{raw.name}`.

An image of {document['layers']} layers, {document['mib']} MiB before compression, half of it random bytes in large files
and half text in files of 25 kB, from a registry on the same machine and to an empty one. The programs take turns; each pull
begins without an image, and each push sends what was pulled. The registry, on the same cores, is not counted. `kiln`,
`buildah` and `docker` unpack what they pull; `kiln --no-unpack` and `skopeo` keep the blobs. Of what is pushed `buildah` makes
the blobs anew. In a cell as above: the median of the wall seconds, least and greatest; processor seconds, peak memory.

{document['date']}, {document['runs']} runs; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}.
""")
    for name, version in document["builders"].items():
        print(f"- {name}: {version}")
    print("\n| program | pull | push |\n|---|---|---|")
    of = {(phase, name): [row for row in results if (row["phase"], row["builder"]) == (phase, name)]
          for phase in ("pull", "push") for name in document["builders"]}
    walls = {phase: median(of[phase, "kiln"], "wall_seconds") for phase in ("pull", "push")}
    for name in document["builders"]:
        cells = [cell(of[phase, name], walls[phase] if name != "kiln" else None) for phase in ("pull", "push")]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


def main():
    print("# Benchmarks")
    for raw in map(Path, sys.argv[1:]):
        document = json.loads(raw.read_text())
        (ship if "layers" in document else builds)(raw, document)


if __name__ == "__main__":
    main()
