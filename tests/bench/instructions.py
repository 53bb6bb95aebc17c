#!/usr/bin/env python3
"""instructions.py --kiln PATH [--renew]

How many instructions the no-op build and the small-file path take, counted by callgrind, beside the baseline in
instructions.json. More than 10 % above it fails; more than 10 % below it is said. `--renew` writes the baseline.

A count says what a clock on a busy machine cannot. It hardly depends on the machine: valgrind's processor is the same
everywhere (with AVX2, without the SHA extensions), and the builder is given one core, so that no thread waits for another in
a loop. Instructions of the kernel are not in it. Each count is the least of three, and the baseline is one of an
architecture and a version of valgrind; where there is none, the counts are skipped and it is said why."""
import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workloads

BASELINE = Path(__file__).resolve().with_name("instructions.json")
# A build of a few seconds, also on a slow machine.
DEADLINE_SECONDS = 300
ROOM = 0.10
TIMES = 3
LEAST = 200_000
FILES_FROM = 1_700_000_000
SETTLED_SECONDS = 0.1
# Name: files of the context, whether the build is one in which nothing changed, the output. The archive goes to no file,
# because what is done with a file's times asks the kernel's vDSO for the time, which valgrind takes away.
CASES = {
    "noop of 10 files, cacheonly": (10, True, "type=cacheonly"),
    "noop of 1,000 files, cacheonly": (1000, True, "type=cacheonly"),
    "cold of 1,000 files, OCI archive": (1000, False, "type=oci,dest=/dev/null"),
}


def count(kiln, work, files, noop, output):
    """Instructions of one build in user space, those of all its threads: (SHA-256, all others)."""
    context, _ = workloads.files(work, files)
    # Times are in the archive: others would be compressed in another number of instructions.
    for path in context.rglob("*"):
        os.utime(path, (FILES_FROM, FILES_FROM))
    root = Path(tempfile.mkdtemp(dir=work, prefix="state-"))
    build = [kiln, "--root", root, "build", "--progress", "quiet", "-o", output, context]
    counts = work / "callgrind.out"
    # Valgrind's own are no other builds: what a build is known by has the program in it, which is valgrind to the kernel.
    build = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", *build]
    for _ in range(2 if noop else 0):
        run(build)
        # A file that changed in the instant in which it was hashed is hashed again by the next build.
        time.sleep(SETTLED_SECONDS)
    run(build)
    listed = subprocess.run(["callgrind_annotate", "--threshold=100", counts], capture_output=True, text=True, check=True).stdout
    listed = listed.replace(",", "")
    whole = int(re.search(r"(\d+) .*PROGRAM TOTALS", listed)[1])
    hashing = sum(map(int, re.findall(r"^ *(\d+) .*:sha2::sha256::.*compress", listed, re.MULTILINE)))
    return hashing, whole - hashing


def run(argv):
    # Its own settings, and none of whoever runs this.
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    try:
        done = subprocess.run([str(a) for a in argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=DEADLINE_SECONDS,
                              stderr=subprocess.STDOUT, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    except subprocess.TimeoutExpired:
        sys.exit(f"instructions.py: {' '.join(map(str, argv))} does not end")
    if done.returncode:
        sys.exit(f"instructions.py: {argv[0]} exited {done.returncode}\n{done.stdout.decode(errors='replace')[-2000:]}")


def valgrind():
    """Its version: an older one does not know all system calls, and makes a program take its second way."""
    return subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def measure(kiln):
    work = Path(tempfile.mkdtemp(prefix="kiln-instructions-"))
    try:
        found = {}
        for name, case in CASES.items():
            hashing, others = zip(*(count(kiln, work, *case) for _ in range(TIMES)))
            found[name] = min(others)
            found[f"{name}: SHA-256"] = min(hashing)
        # A build that hashes next to nothing says nothing by it.
        return {name: counted for name, counted in found.items() if counted > LEAST}
    finally:
        shutil.rmtree(work)


def compare(found, baseline):
    """Prints a line for each count; how many are more than allowed."""
    failed = 0
    for name, counted in found.items():
        if name not in baseline:
            print(f"{name}: {counted:,} instructions; not in the baseline. Renew it with tests/bench/instructions.sh --renew")
            failed += 1
            continue
        change = counted / baseline[name] - 1
        print(f"{name}: {counted:,} instructions, {change:+.1%} of the baseline's {baseline[name]:,}")
        if change > ROOM:
            print(f"  more than {ROOM:.0%} above. See where with `valgrind --tool=callgrind`; if it is meant, tests/bench/instructions.sh --renew")
            failed += 1
        elif change < -ROOM:
            print(f"  more than {ROOM:.0%} below: keep it so with tests/bench/instructions.sh --renew")
    print(f"{len(found) - failed} passed, {failed} failed")
    return failed


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln", required=True)
    a.add_argument("--renew", action="store_true")
    a = a.parse_args()
    kind = f"{platform.machine()}, {valgrind()}"
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if not a.renew and kind not in baseline:
        print(f"SKIP instructions: there is no baseline of {kind}; tests/bench/instructions.sh --renew makes one")
        return 0
    if platform.machine() == "x86_64" and " avx2 " not in Path("/proc/cpuinfo").read_text():
        print("SKIP instructions: this processor has no AVX2, and valgrind's would have none either: other code would be counted")
        return 0
    found = measure(Path(a.kiln).resolve())
    if a.renew:
        baseline[kind] = found
        BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")
        for name, counted in found.items():
            print(f"{name}: {counted:,} instructions")
        return 0
    return 1 if compare(found, baseline[kind]) else 0


if __name__ == "__main__":
    sys.exit(main())
