"""What Kiln is to reach beside BuildKit, and whether it did: the first part of docs/benchmarks.md."""
import statistics

import plot

# Workload, phase, how many times faster at least, BuildKit v0.32's seconds on another machine of two cores, the limit.
DEMANDS = [
    ("steps", "cold", 20, 5.7, "clone, mount, exec: 2–3 ms a step"),
    ("steps", "noop", 15, 0.22, "process start and a few stats: under 10 ms"),
    ("steps", "noop-new", 15, 0.22, "the same"),
    ("many", "cold", 10, 28, "one read, one hash, one compression of the bytes"),
    ("many", "noop", 12, 2.2, "`statx` of every file at 1–2 µs"),
    ("many", "noop-new", 12, 2.2, "and the copy of the archive"),
    ("many", "edit", 12, 18, "unchanged parts of a layer reuse their compressed blocks"),
    ("big", "cold", 10, 61, "parallel gzip of the same tar by the fastest library, all cores"),
    ("big", "noop", 10, 7, "a few stats"),
    ("big", "noop-new", 10, 7, "`cp` of the archive"),
    ("big", "edit", 20, 61, "compression of what changed"),
    ("stages", "cold", 2.5, 1.5, "the critical path: 0.5 s"),
    ("diff", "cold", 4, 4.5, "the shell itself, run on the host"),
    ("mono", "cold", 6, 0.63, "reads only what the graph can reach"),
    ("mono", "edit", 5, 0.07, "the same"),
]
MOST_ARCHIVE = 1.05


def median(rows, key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(values) if values else None


def select(document, workload=None, phase=None, builder=None):
    wanted = {"workload": workload, "phase": phase, "builder": builder}
    return [row for row in document["results"] if all(value is None or row[key] == value for key, value in wanted.items())]


def seconds(value):
    return "–" if value is None else f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def mark(answers):
    """✓ where every run reached it, ✗ where one did not, – where one did not measure it."""
    return "–" if not answers or None in answers else "✓" if all(answers) else "✗"


def ratio_of(document, workload, phase):
    """BuildKit's median, Kiln's, and how many times faster Kiln was; None for what was not measured."""
    theirs, ours = (median(select(document, workload, phase, builder), "wall_seconds") for builder in ("docker", "kiln"))
    return theirs, ours, theirs / ours if theirs and ours else None


def speed(documents):
    runs = [f"run of {document['date']}" if len(documents) == 1 else f"run {number}"
            for number, document in enumerate(documents, 1)]
    yield "| work | phase | at least | " + " | ".join(runs) + " | met | v0.32 elsewhere | limit to approach |"
    yield "|---|---|---|" + "---|" * len(runs) + "---|---|---|"
    for workload, phase, least, elsewhere, limit in DEMANDS:
        cells, answers = [], []
        for document in documents:
            theirs, ours, ratio = ratio_of(document, workload, phase)
            cells.append(f"**{ratio:.1f}×** {seconds(theirs)} : {seconds(ours)}" if ratio else f"– : {seconds(ours)}")
            answers.append(ratio >= least if ratio else None)
        ours = median([row for document in documents for row in select(document, workload, phase, "kiln")], "wall_seconds")
        apart = f"{elsewhere} s ({elsewhere / ours:.1f}×)" if ours else f"{elsewhere} s"
        yield f"| {workload} | {phase} | {least}× | " + " | ".join(cells) + f" | {mark(answers)} | {apart} | {limit} |"


def greatest_memory(document, builder):
    """(bytes, workload, phase) of the greatest peak of any run."""
    peaks = [(row["peak_memory_bytes"], row["workload"], row["phase"]) for row in select(document, builder=builder)
             if row.get("peak_memory_bytes")]
    return max(peaks, default=None)


def archive_ratios(document):
    """Workload: Kiln's archive over BuildKit's, after a cold build."""
    found = {}
    for workload in dict.fromkeys(row["workload"] for row in document["results"]):
        ours, theirs = (median(select(document, workload, "cold", builder), "archive_bytes") for builder in ("kiln", "docker"))
        if ours and theirs:
            found[workload] = ours / theirs
    return found


def sizes(documents, growth):
    """The demands that are no time."""
    runs = [f"run {number}" for number in range(1, len(documents) + 1)]
    yield "| what | at most | " + " | ".join(runs) + " | met |"
    yield "|---|---|" + "---|" * len(runs) + "---|"
    peaks = [greatest_memory(document, "kiln") for document in documents]
    cells = [f"{peak[0] / (1 << 20):.0f} MiB ({peak[1]} {peak[2]})" if peak else "–" for peak in peaks]
    met = mark([peak[0] < plot.MOST_MEMORY_MIB << 20 if peak else None for peak in peaks])
    yield f"| peak memory, any workload | {plot.MOST_MEMORY_MIB} MiB | {' | '.join(cells)} | {met} |"
    worst = [max(((ratio, name) for name, ratio in archive_ratios(document).items()), default=None) for document in documents]
    cells = [f"{found[0]:.3f} ({found[1]})" if found else "–" for found in worst]
    met = mark([found[0] <= MOST_ARCHIVE if found else None for found in worst])
    yield f"| archive beside BuildKit's, any workload | {MOST_ARCHIVE} | {' | '.join(cells)} | {met} |"
    if growth:
        most = max(plot.bytes_per_file(growth).items(), key=lambda item: item[1], default=None)
        if most:
            same = " | ".join([f"{most[1]:.0f} bytes ({most[0]})"] + ["the same" for _ in documents[1:]])
            yield f"| memory for each file beyond {plot.FREE_FILES:,} | {plot.MOST_BYTES_A_FILE} bytes | {same} | {mark([most[1] <= plot.MOST_BYTES_A_FILE])} |"


def apart(documents):
    """By how much Kiln's medians of two runs differ: (greatest, where, median of all). None for one run."""
    if len(documents) < 2:
        return None
    found = []
    for workload, phase, *_ in DEMANDS:
        walls = [median(select(document, workload, phase, "kiln"), "wall_seconds") for document in documents]
        if None not in walls:
            found.append((max(walls) / min(walls) - 1, f"{workload} {phase}"))
    return (*max(found), statistics.median(value for value, _ in found)) if found else None


def step_rows(document):
    """Builder, milliseconds for each of the 60 steps, the same without what 0 steps take."""
    for builder in [*document["builders"], "runc"]:
        whole, none = (median(select(document, workload, "cold", builder), "wall_seconds") for workload in ("steps", "nosteps"))
        if whole:
            yield builder, whole / 60 * 1000, (whole - none) / 60 * 1000 if none else None


# What floor.py measures.
FLOORS = {"shell in memory": "the two commands by the host's shell, on a plain folder in memory",
          "shell on overlayfs": "the same, each on an overlay on the disk, as builders make one for a step"}


def floor_rows(document):
    """Name, meaning, seconds, and BuildKit's seconds over them, of the floors of `diff` and of the builders."""
    theirs = median(select(document, "diff", "cold", "docker"), "wall_seconds")
    for name in [*FLOORS, *document["builders"]]:
        wall = median(select(document, "diff", "cold", name), "wall_seconds")
        if wall:
            yield name, FLOORS.get(name, ""), wall, theirs / wall if theirs else None
