#!/usr/bin/env python3
"""examples.py KILN WORK [NAME…]: the promises about the cache, seen on the real programs of examples/.

For each: build; build again (no step runs, same digest); new times on every file, a comment and blank lines in the
Dockerfile (no step runs, same digest); an edit of one source file that changes nothing in what is made (the rerun stops
there, same digest); one that does (only what depends on it runs). Then two builds at the same time of a state that has
not seen the step (both succeed, it runs once). KILN_REGISTRIES names the settings by which the base is found."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# What is edited: a file, then a text and its replacement that change nothing in the result, the parts of the names of
# the steps that run for it, then an edit that does change it, and the steps for that.
EDITS = {
    "c": ("src/main.c", ("int main(", "int /* here it begins */ main("), ["COPY src/", "RUN make"],
          ("usage: tally FILE", "usage: tally TEXT"), ["COPY src/", "RUN make", "COPY --from=build", "COPY sample.txt"]),
    "python": ("requirements.txt", ("Jinja2==", "# templates\nJinja2=="), ["COPY requirements.txt", "pip install"],
               ("0.9.0", "0.8.10"), ["COPY requirements.txt", "pip install", "COPY --from=build", "COPY report/",
                                     "COPY measurements.csv", "WORKDIR", "useradd"]),
    "node": ("src/main.js", None, None, ("best:", "the best:"), ["COPY src/", "node --check", "COPY --from=build"]),
    "rust": ("src/main.rs", ("ExitCode::FAILURE", "ExitCode::FAILURE /* the end */"), ["COPY src/", "cargo build"],
             ("-- {} lines", "== {} lines"), ["COPY src/", "cargo build", "COPY --from=build", "COPY sample.txt"]),
}


class Built:
    """What one build said."""

    def __init__(self, run, iidfile):
        self.status, self.stderr = run.returncode, run.stderr
        self.id = iidfile.read_text().strip() if iidfile.exists() else None
        names = {}
        for line in run.stderr.splitlines():
            if not line.startswith("{"):
                continue
            for vertex in json.loads(line).get("vertexes") or []:
                state = names.setdefault(vertex["digest"], {})
                state.update({key: value for key, value in vertex.items() if value})
        ran = (v["name"] for v in names.values() if v.get("completed") and not v.get("cached"))
        self.ran = sorted(name for name in ran if is_instruction(name))


def is_instruction(name):
    """As kiln_tests::program::Step::is_instruction has it."""
    place, _, instruction = name.partition("] ")
    return "/" in place.split(" ")[-1] and place.startswith("[") and not instruction.startswith("FROM ")


def command(kiln, state, context, iidfile, extra=()):
    secret = ["--secret", f"id=ca,src={CERTIFICATES}"] if os.path.exists(CERTIFICATES) else []
    iidfile.unlink(missing_ok=True)
    return [kiln, "--root", str(state), "build", "--progress", "rawjson", "--iidfile", str(iidfile), *secret, *extra, str(context)]


def build(kiln, state, context, extra=()):
    iidfile = context.parent / "iid"
    run = subprocess.run(command(kiln, state, context, iidfile, extra), capture_output=True, text=True, errors="replace")
    built = Built(run, iidfile)
    if built.status:
        words = "\n".join(line for line in built.stderr.splitlines() if not line.startswith("{"))
        raise SystemExit(f"{context.name}: exit {built.status}\n{words[-3000:]}")
    return built


def must(condition, what):
    if not condition:
        raise SystemExit(f"FAILED {what}")
    print(f"ok     {what}", flush=True)


def only(ran, allowed):
    return bool(ran) and all(any(part in name for part in allowed) for name in ran)


def check(kiln, work, name):
    context = work / "contexts" / name
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(HERE.parent / "examples" / name, context)
    state = work / "cache-state"
    first = build(kiln, state, context)
    again = build(kiln, state, context)
    must(again.ran == [] and again.id == first.id, f"{name}: the second build runs no step and gives the same digest {again.ran}")

    for path in context.rglob("*"):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("# another comment\n\n\n" + dockerfile.read_text())
    again = build(kiln, state, context)
    must(again.ran == [] and again.id == first.id, f"{name}: new times, a comment and other lines rerun nothing {again.ran}")

    file, same, same_steps, other, other_steps = EDITS[name]
    source = context / file
    before = source.read_text()
    if same:
        source.write_text(before.replace(*same))
        again = build(kiln, state, context)
        must(only(again.ran, same_steps) and again.id == first.id, f"{name}: a rerun with the same result stops there {again.ran}")
    must(other[0] in before, f"{name}: {file} has what is to be edited")
    source.write_text(before.replace(*other))
    again = build(kiln, state, context)
    must(only(again.ran, other_steps) and again.id != first.id, f"{name}: an edit of {file} reruns only what depends on it {again.ran}")


def together(kiln, work):
    """Two builds of the C program at the same time, in a state folder that has seen neither."""
    context, state = work / "contexts" / "c", work / "together-state"
    shutil.rmtree(state, ignore_errors=True)
    started = []
    for number in ("one", "two"):
        iidfile = work / f"iid-{number}"
        # Into a file: a pipe that nobody reads while the other build is waited for fills up, and both stand still.
        progress = work / f"progress-{number}"
        with progress.open("w") as stderr:
            run = subprocess.Popen(command(kiln, state, context, iidfile), stdout=subprocess.DEVNULL, stderr=stderr)
        started.append((run, iidfile, progress))
    results = []
    for run, iidfile, progress in started:
        run.wait()
        stderr = progress.read_text(errors="replace")
        results.append(Built(subprocess.CompletedProcess([], run.returncode, "", stderr), iidfile))
    must(all(built.status == 0 for built in results), "two builds at once: both succeed")
    must(results[0].id == results[1].id, "two builds at once: the same digest")
    for part in ("apt-get", "RUN make"):
        times = sum(any(part in name for name in built.ran) for built in results)
        must(times == 1, f"two builds at once: `{part}` ran once ({times})")
    shutil.rmtree(state)


def main():
    kiln, work, *names = sys.argv[1:]
    work = Path(work)
    # What an earlier run has built would answer the edits of this one.
    shutil.rmtree(work / "cache-state", ignore_errors=True)
    for name in names or EDITS:
        check(kiln, work, name)
    together(kiln, work)


if __name__ == "__main__":
    main()
