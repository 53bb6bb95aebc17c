#!/usr/bin/env python3
"""modes.py --kiln PATH --base LAYOUT [--runs 3] [--only steps,install,compile] [--modes root subids single root,copy chroot] [--peers buildah] --json FILE

What a build costs in each of Kiln's modes: steps that do nothing much, the installation of Debian packages (downloaded before,
so that no network is measured), and a compilation. Each begins with nothing known. In modes of a user's Kiln is started by one
(tests/as-user.sh); buildah, without root too, is the peer. The programs take turns run by run; all stands on a new file system, in a
file in BENCH_DIR (disk.py)."""
import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import disk
import workloads
from bench import machine, work_folder
from builders import Buildah, Kiln
from meter import measured

AS_USER = Path(__file__).resolve().parents[1] / "as-user.sh"
USER = 61183
MODES = ("root", "subids", "single", "root,copy", "chroot")
# With all that they depend on fifty or so that the base has not, some with users of their own.
PACKAGES = "git less rsync procps openssh-client cron sqlite3 jq tmux zip unzip dbus"
SOURCES, FUNCTIONS = 5, 160
# Of what one builder leaves: there are many, and each has whole root file systems.
BLOCK_BYTES = 4096
# One build; the longest takes half a minute.
MOST_SECONDS = 600


def as_user(mode, program):
    """The words that start a program as the user of a mode."""
    return ["unshare", "--mount", "sh", AS_USER, str(USER), mode, "", *program]


def give(path):
    os.chown(path, USER, USER)


class InMode(Kiln):
    """Kiln in a mode."""

    def __init__(self, work, exe, mode):
        self.mode, self.name = mode, f"kiln {mode}"
        self.folder = Path(work) / ("of-user" if self.is_of_user else "of-root")
        self.folder.mkdir(exist_ok=True)
        if self.is_of_user:
            give(self.folder)
        super().__init__(self.folder, exe)

    @property
    def is_of_user(self):
        return self.mode.split(",")[0] in ("subids", "single")

    def _next_state(self):
        return Path(str(super()._next_state()).replace(",", "-"))

    def build(self, context, out):
        words = [self.exe, "--root", self.root, "--sandbox", self.mode, "build", "--progress", "plain", "-o", f"type=oci,dest={out}", context]
        return as_user(self.mode.split(",")[0], words) if self.is_of_user else words


class RootlessBuildah(Buildah):
    """buildah as a user with sub-ids."""

    name = "buildah as a user"

    def __init__(self, work):
        self.home = Path(work) / "of-buildah"
        (self.home / "run").mkdir(parents=True, exist_ok=True)
        give(self.home)
        give(self.home / "run")
        super().__init__(self.home)
        self.env.update(HOME=str(self.home), XDG_RUNTIME_DIR=str(self.home / "run"), TMPDIR=str(self.home))

    def build(self, context, out):
        return as_user("subids", super().build(context, out))


def source(number):
    """A C file: arithmetic that the optimizer has to think about."""
    lines = ["#include <stdint.h>"]
    for at in range(FUNCTIONS):
        a, b = number * 7919 + at * 104729, number * 31 + at
        lines.append(f"uint64_t f{number}_{at}(uint64_t *p, uint64_t n) {{ uint64_t s = {a}u; for (uint64_t i = 0; i < n; i++) {{ "
                     f"s ^= p[i] * {b | 1}u; s = (s << {1 + b % 31}) | (s >> {64 - (1 + b % 31)}); if (s % {3 + b % 17} == 0) p[i] += s; "
                     f"else switch (s & 7) {{ case 0: s += i; break; case 1: s -= i; break; case 2: s *= 3; break; default: p[i] ^= s; }} }} return s; }}")
    return "\n".join(lines) + "\n"


def prepare(kiln, base, work):
    """An image with a compiler and the packages' archives, as an OCI layout; and how many packages there are to be installed."""
    context, layout, state = work / "base-context", work / "base", work / "base-state"
    context.mkdir()
    install = "apt-get install -y --no-install-recommends"
    (context / "Dockerfile").write_text(
        "FROM debian:bookworm-slim\nENV DEBIAN_FRONTEND=noninteractive\n"
        f"RUN rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update && {install} gcc libc6-dev && {install} --download-only {PACKAGES}\n"
        f"RUN {install} --no-download -s {PACKAGES} | grep -c ^Inst > /packages\n")
    # Archives are kept for the steps that are measured, though the base image may say otherwise.
    subprocess.run([kiln, "--root", state, "build", "--progress", "plain", "--build-context",
                    f"debian:bookworm-slim=oci-layout://{base}:debian:bookworm-slim", "-t", "base:latest",
                    "-o", f"type=oci,dest={layout},tar=false", "-o", f"type=local,dest={work / 'base-files'}", context],
                   check=True, stdin=subprocess.DEVNULL)
    count = int((work / "base-files" / "packages").read_text())
    shutil.rmtree(work / "base-files")
    disk.hollow(state, BLOCK_BYTES)
    return layout, count


def contexts(names, layout, work):
    """A context for each workload, and what buildah builds, which names a layout in another way."""
    made = {}
    for name in names:
        context = work / f"context-{name}"
        if name == "steps":
            made[name] = workloads.steps(work)[0]
            continue
        context.mkdir()
        if name == "install":
            lines = ["ENV DEBIAN_FRONTEND=noninteractive", f"RUN apt-get install -y --no-install-recommends --no-download {PACKAGES}"]
        else:
            for number in range(SOURCES):
                (context / f"s{number}.c").write_text(source(number))
            lines = ["COPY *.c /src/", "RUN cd /src && for f in *.c; do gcc -O2 -c $f || exit 1; done"]
        (context / "Dockerfile").write_text("\n".join(["FROM base", *lines]) + "\n")
        (context / "Containerfile.oci").write_text("\n".join([f"FROM oci:{layout}:latest", *lines]) + "\n")
        made[name] = context
    return made


def words_of(builder, name, context, layout, out):
    words = builder.build(context, out)
    if name == "steps":
        return words
    # The context is the last word.
    if isinstance(builder, InMode):
        return [*words[:-1], "--build-context", f"base=oci-layout://{layout}:latest", words[-1]]
    return [*words[:-1], "-f", context / "Containerfile.oci", words[-1]]


def measure(builders, layout, made, runs, results):
    for name, context in made.items():
        for run in range(runs):
            # Whoever goes first now goes last next time.
            turn = builders[run % len(builders):] + builders[:run % len(builders)]
            for builder in [each for each in turn if each.most_runs is None or run < each.most_runs]:
                old = builder.root
                builder.reset()
                disk.hollow(old, BLOCK_BYTES)
                out = builder.work / f"out-{name}.tar"
                out.unlink(missing_ok=True)
                row = {"workload": name, "builder": builder.name, "run": run}
                try:
                    words = ["timeout", "--kill-after=10", MOST_SECONDS, *words_of(builder, name, context, layout, out)]
                    row |= measured(builder.meter, words, builder.env)
                except (RuntimeError, OSError) as error:
                    row["error"] = str(error)
                results.append(row)
                told = {key: row[key] for key in row if key != "error"} | ({"failed": row["error"][-300:]} if "error" in row else {})
                print(json.dumps(told), flush=True)


def end(builder):
    """Ends what a builder has started and not waited for."""
    for pid in builder.meter.processes() if builder.meter.group else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def write(a, started, builders, results, count):
    document = {"date": started, "machine": machine(), "runs": a.runs, "packages": count, "steps": workloads.STEPS,
                "sources": SOURCES, "command": f"tests/bench/modes.sh --runs {a.runs}",
                "builders": {builder.name: builder.version for builder in builders}, "results": results}
    Path(a.json).write_text(json.dumps(document, indent=1) + "\n")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln", required=True)
    a.add_argument("--base", required=True, help="an OCI layout with debian:bookworm-slim, as examples/base/make.sh makes it")
    a.add_argument("--only", default="steps,install,compile")
    a.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    a.add_argument("--peers", default="buildah", help="buildah; empty for none")
    a.add_argument("--runs", type=int, default=3)
    a.add_argument("--json", required=True)
    a = a.parse_args()
    names = a.only.split(",")
    if unknown := set(names) - {"steps", "install", "compile"}:
        sys.exit(f"modes.py: there is no {', '.join(unknown)}")
    with work_folder() as work:
        os.chmod(work, 0o755)
        started, builders, results, count = time.strftime("%Y-%m-%d %H:%M"), [], [], 0
        try:
            layout, count = prepare(a.kiln, Path(a.base), work) if set(names) - {"steps"} else (None, 0)
            made = contexts(names, layout, work)
            builders += [InMode(work, a.kiln, mode) for mode in a.modes]
            builders += [RootlessBuildah(work) for peer in filter(None, a.peers.split(",")) if peer == "buildah"]
            measure(builders, layout, made, a.runs, results)
        finally:
            for builder in builders:
                end(builder)
                builder.stop()
            # Also what was measured before somebody stopped it.
            if results:
                write(a, started, builders, results, count)
        return 1 if any("error" in row for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
