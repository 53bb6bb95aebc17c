#!/usr/bin/env python3
"""table.py DIR: docs/benchmarks.md, on standard output, of the newest numbers in DIR, which run.sh, growth.sh, ship.sh and modes.sh
have measured. Of run.sh's it takes the two newest of this kind, to show whether they agree."""
import json
import sys
from pathlib import Path

import plot
import targets
from targets import median, seconds, select

WORKLOADS = {
    "steps": "60 RUN steps that do nothing much: the fixed cost of a step",
    "nosteps": "the same without the 60 steps",
    "many": "40,000 small files (160 MB), copied whole",
    "big": "768 MiB in 12 files, half of it compressible",
    "stages": "16 independent stages of 0.5 s each, then a join",
    "diff": "a RUN that writes 20,000 files and one that deletes half of them",
    "mono": "a repository of 40,000 files of which 100 are used; the edit is elsewhere",
}
PHASES = {"cold": "nothing known", "noop": "nothing changed, the archive is there", "noop-new": "nothing changed, the archive is gone",
          "edit": "one file changed"}


def on(document):
    machine = document["machine"]
    return (f"{document['date']}, {document['runs']} run{'s' * (document['runs'] != 1)}; {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, Linux {machine['kernel']}{stolen(document)}.")


def stolen(document):
    """What the machine's host gave to others meanwhile; the older numbers do not know it."""
    share = document.get("stolen")
    return "" if share is None else f"; {share:.1%} of its processors' time went to others"


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


def demands(documents, growth):
    newest = documents[0]
    docker = newest["builders"].get("docker", "Docker, which was not measured").split(", github")[0]
    print(f"""
## The targets

Ratios are BuildKit's time over Kiln's: the same Dockerfile and context, the same run, an OCI archive with gzip layers at
the end. Behind each the medians, in seconds: BuildKit's : Kiln's. BuildKit is that of
{docker}; beside it stands what the newer v0.32 took on another machine
of two cores, over Kiln's seconds here: not measured in these runs, for the order of magnitude alone.
""")
    for number, document in enumerate(documents, 1):
        print(f"- {'run ' + str(number) if len(documents) > 1 else 'the run'}: {on(document)}")
    print()
    print("\n".join(targets.speed(documents)))
    print()
    print("\n".join(targets.sizes(documents, growth)))
    found = targets.apart(documents)
    if found:
        print(f"\nBetween the two runs Kiln's medians differ by {found[2]:.0%} in the middle, and by {found[0]:.0%} at most ({found[1]}).")


def steps(document):
    rows = list(targets.step_rows(document))
    if not rows:
        return
    print(f"""
## A step beside runc

60 trivial steps: milliseconds for each, and the same without what the build takes that has none of them. A `runc run` of
the same command has no layers below it, leaves no layer and keeps no record; it is in no builder ({document.get('runc') or 'not measured'}).

| program | ms a step | without what 0 steps take |
|---|---|---|""")
    for builder, whole, without in rows:
        print(f"| {builder} | {whole:.1f} | {'–' if without is None else f'{without:.1f}'} |")


def floors(document):
    rows = list(targets.floor_rows(document))
    if not any(meaning for _, meaning, _, _ in rows):
        return
    print("""
## What overlayfs takes

The two steps of `diff`, which write 20,000 files and delete half of them, without a builder: no isolation, no scan of what was
written, no layer, no image. Who gives a step its root by overlayfs, as BuildKit and Kiln do, takes at least so long.

| what | seconds | BuildKit's time over it |
|---|---|---|""")
    for name, meaning, wall, ratio in rows:
        print(f"| {name}{meaning and ': ' + meaning} | {seconds(wall)} | {'–' if ratio is None else f'{ratio:.1f}×'} |")


def table(document):
    results, builders = document["results"], list(document["builders"])
    sizes = any(row.get("archive_bytes") for row in results)
    yield "| workload | phase | " + " | ".join(builders) + (" | archive, MiB |" if sizes else " |")
    yield "|---|---|" + "---|" * (len(builders) + sizes)
    for workload in dict.fromkeys(row["workload"] for row in results):
        for phase in PHASES:
            of = {b: select(document, workload, phase, b) for b in builders}
            if not any(of.values()):
                continue
            kiln = median(of.get("kiln", []), "wall_seconds")
            cells = [cell(of[b], kiln if b != "kiln" else None) for b in builders]
            if sizes:
                cells.append(archives(of) if phase in ("cold", "edit") else "")
            yield f"| {workload} | {phase} | " + " | ".join(cells) + " |"


def archives(of):
    """The size of each builder's archive, and Kiln's beside BuildKit's."""
    found = {builder: median(rows, "archive_bytes") for builder, rows in of.items()}
    text = " : ".join("–" if size is None else f"{size / (1 << 20):.1f}" for size in found.values())
    if found.get("kiln") and found.get("docker"):
        text += f"<br>{found['kiln'] / found['docker']:.3f} of docker's"
    return text


def builds(raws, document):
    files = " and ".join(f"`docs/bench/{raw.name}`" for raw in raws)
    print(f"""
## Builds

Written by `tests/bench/run.sh`; the raw data is in {files}, the newest of which is shown here.

The same Dockerfiles through several builders, which take turns on one machine. Every build ends with an OCI archive on
disk, with gzip layers. In a cell: the median of the wall seconds (and how many times Kiln's), least and greatest; below
it the medians of the processor seconds, and the first run's peak resident memory (shared pages once), of all processes that the
builder started, its daemon and its steps included. Memory is not looked at in the other runs, for that takes processor time.
Before each timing what was written is flushed to disk, the context and the builder's programs are read into memory, and memory
for what will be written is taken and freed: a virtual machine gives its host back what it does not use. A cold build has a new
state folder (Docker a new daemon, warmed up by a build of something else), and nothing is removed between two timings. All of
it, Docker's data too, is on a new ext4 with a journal, as `mkfs.ext4` makes it, in a file of the machine's disk.

{on(document)}
""")
    for name, version in document["builders"].items():
        print(f"- {name}: {version}")
    if "buildah" in document["builders"]:
        most = 1 + max((row["run"] for row in select(document, builder="buildah")), default=0)
        print(f"- buildah builds with `--isolation chroot`, which makes fewer namespaces than the others do; it has {most} run{'s' * (most != 1)}, and refuses "
              "to write over an archive.")
    print()
    print("\n".join(table(document)))
    print("\n| workload | what it is |\n|---|---|")
    for name in dict.fromkeys(row["workload"] for row in document["results"]):
        print(f"| {name} | {WORKLOADS[name]} |")
    print("\nPhases: " + "; ".join(f"{name}, {meaning}" for name, meaning in PHASES.items()) + ".")


def grows(folder, documents):
    print("""
## Growth

Written by `tests/bench/growth.sh`. Kiln alone, to an OCI archive: against the number of files of about 1 KB, and against
the bytes, in files of 64 MiB of which a quarter is random. The axes of the times are logarithmic, those of memory are not.
An exponent of 1 is linear growth, less is a fixed cost that still counts.""")
    for document in documents:
        kind = document["kind"]
        _, scale, unit = plot.UNITS[kind]
        print(f"\n{'The number of files' if kind == 'files' else 'The bytes'}: {on(document)}\n")
        sizes = sorted({row["size"] for row in document["results"]})
        print(f"| {'files' if kind == 'files' else 'MiB'} | " + " | ".join(plot.PHASES) + " |\n|---|" + "---|" * len(plot.PHASES))
        for size in sizes:
            cells = []
            for phase in plot.PHASES:
                rows = [row for row in document["results"] if (row["size"], row["phase"]) == (size, phase)]
                wall, peak = median(rows, "wall_seconds"), median(rows, "peak_memory_bytes")
                cells.append(f"{seconds(wall)} s, {peak / (1 << 20):.0f} MiB" if wall and peak else seconds(wall))
            print(f"| {size:,} | " + " | ".join(cells) + " |")
        found, memory = plot.growth(document), plot.bytes_per_file(document) if kind == "files" else {}
        if found:
            print(f"| {unit}, by least squares | " + " | ".join(f"{found[p][0] * scale:.1f}" if p in found else "–" for p in plot.PHASES) + " |")
            print("| exponent between the two largest | " + " | ".join(f"{found[p][2]:.2f}" if p in found else "–" for p in plot.PHASES) + " |")
        if memory:
            print(f"| bytes of memory a file beyond {plot.FREE_FILES:,} | " + " | ".join(f"{memory[p]:.0f}" if p in memory else "–" for p in plot.PHASES) + " |")
        print()
        for what in ("time", "memory"):
            if (folder / f"growth-{kind}-{what}.svg").exists():
                print(f"![{what} against {kind}](bench/growth-{kind}-{what}.svg)")


def instructions(counts):
    print("""
## Instructions

What `.ci/run` compares with, by `tests/bench/instructions.sh`: instructions in user space on one core, as callgrind counts
them. They do not depend on how busy a machine is. A build that takes 10 % more fails.
""")
    for architecture, found in counts.items():
        print(f"| {architecture} | instructions |\n|---|---|")
        for name, counted in found.items():
            print(f"| {name} | {counted / 1e6:,.1f} million |")


def ship(raw, document):
    results = document["results"]
    print(f"""
## Pulls and pushes

Written by `tests/bench/ship.sh`; the raw data is in `docs/bench/{raw.name}`.

An image of {document['layers']} layers, {document['mib']} MiB before compression, half of it random bytes in large files
and half text in files of 25 kB, from a registry on the same machine and to an empty one. The programs take turns; each pull
begins without an image, and each push sends what was pulled. The registry, on the same cores, is not counted. `kiln`,
`buildah` and `docker` unpack what they pull; `kiln --no-unpack` and `skopeo` keep the blobs. Of what is pushed `buildah` makes
the blobs anew. In a cell as above: the median of the wall seconds, least and greatest; processor seconds, peak memory.

{on(document)}
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


def modes(raw, document):
    """Each mode beside root's; of `install` the number of packages is the document's."""
    results, builders = document["results"], document["builders"]
    what = {"steps": f"{document['steps']} RUN steps that do nothing much", "install": f"apt-get install of {document['packages']} packages",
            "compile": f"gcc -O2 of {document['sources']} files"}
    names = [name for name in what if any(row["workload"] == name for row in results)]
    print(f"""
## Modes

Written by `tests/bench/modes.sh`; the raw data is in `docs/bench/{raw.name}`. What the modes are: [rootless.md](rootless.md).

The same build in each mode of Kiln's, and by buildah started by a user with sub-ids; each begins with nothing known, but for the base
image's layout. The packages were downloaded before. In a cell: the median of the wall seconds, how many times that of mode `root`, least and
greatest; processor seconds, peak memory.

{on(document)}
""")
    for version in sorted(set(builders.values())):
        print(f"- {version}")
    print(f"\n| | {' | '.join(what[name] for name in names)} |\n|---|{'---|' * len(names)}")
    rows = {(name, builder): [row for row in results if (row["workload"], row["builder"]) == (name, builder)]
            for name in names for builder in builders}
    for builder in builders:
        walls = [median(rows.get((name, "kiln root"), []), "wall_seconds") for name in names]
        cells = [cell(rows[name, builder], wall if builder != "kiln root" else None) for name, wall in zip(names, walls)]
        print(f"| {builder} | {' | '.join(cells)} |")


def how():
    print("""
## Measuring it anew

    tests/bench/run.sh                     # builds beside buildah and Docker: three quarters of an hour, as root; run it twice
    tests/bench/run.sh --targets           # the same beside Docker alone: what the targets need
    tests/bench/run.sh --runs 1 --only steps,mono
    tests/bench/growth.sh                  # how time and memory grow: half an hour
    tests/bench/ship.sh                    # pulls and pushes
    tests/bench/modes.sh                   # what each mode costs, beside buildah as a user
    tests/bench/instructions.sh            # what CI compares; --renew writes what it compares with

Each writes its numbers to `docs/bench/` and this page of the newest of them; `OUT=DIR` puts both elsewhere. Nothing else may
run on the machine meanwhile. All say with `--help` what they can be told.""")


def newest(folder, pattern):
    """The newest numbers of a kind: (path, document) or None. Names begin with the date."""
    return next(((path, json.loads(path.read_text())) for path in sorted(folder.glob(pattern), reverse=True)), None)


def pair(folder, pattern):
    """The newest numbers of a kind, and the newest before them that were measured by the same command on the same machine."""
    last = newest(folder, pattern)
    found = [last] if last else []
    for path in sorted(folder.glob(pattern), reverse=True) if last else []:
        document = json.loads(path.read_text())
        if path != last[0] and all(document.get(key) == last[1].get(key) for key in ("command", "machine")):
            return [*found, (path, document)]
    return found


def main():
    if len(sys.argv) != 2:
        sys.exit("table.py DIR")
    folder = Path(sys.argv[1])
    runs = pair(folder, "*-cores.json")
    raws, documents = [path for path, _ in runs], [document for _, document in runs]
    growth = [json.loads(path.read_text()) for kind in ("files", "mebibytes") if (path := folder / f"growth-{kind}.json").exists()]
    print("# Benchmarks")
    if documents:
        demands(documents, next((document for document in growth if document["kind"] == "files"), None))
        steps(documents[0])
        floors(documents[0])
        builds(raws, documents[0])
    if growth:
        grows(folder, growth)
    shipped = newest(folder, "*-cores-ship.json")
    if shipped:
        ship(*shipped)
    measured_modes = newest(folder, "*-cores-modes.json")
    if measured_modes:
        modes(*measured_modes)
    counts = Path(__file__).resolve().with_name("instructions.json")
    if counts.exists():
        instructions(json.loads(counts.read_text()))
    how()


if __name__ == "__main__":
    main()
