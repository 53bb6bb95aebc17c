#!/usr/bin/env python3
"""ship.py --kiln PATH [--peers skopeo,buildah,docker] [--runs 5] [--mib 500] --json FILE

One image of ten layers from a registry on this machine and to it, by several programs, which take turns run by run. Each
begins with nothing: a state without images for a pull, an empty registry for a push. What was written before is flushed
before each timing. For each: wall seconds, processor seconds and peak memory of all that the program started; the
registry's own are not counted. All stands on a new file system, in a file in BENCH_DIR (disk.py)."""
import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench import machine, work_folder
from builders import Buildah, Builder, Docker, Kiln, _words
from meter import measured
from workloads import _text

LAYERS = 10


class Registry:
    """Debian's docker-registry with a folder of its own."""

    def __init__(self, folder, port):
        self.folder, self.address, self.process = Path(folder), f"127.0.0.1:{port}", None

    def start(self, empty=False):
        self.stop()
        if empty:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "config.yml"
        settings.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}\n"
                            f"http: {{addr: {self.address}}}\n")
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", settings], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        host, port = self.address.split(":")
        for _ in range(500):
            with socket.socket() as trial:
                if trial.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry does not answer: {(self.folder / 'log').read_text()}")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


class Shipper:
    """What is asked of each beside a builder's: the commands that are timed."""

    def pull(self, image):
        raise NotImplementedError

    def push(self, image, to):
        raise NotImplementedError

    def before_push(self, image, to):
        """What a push needs and is none; not timed."""


class KilnShip(Shipper, Kiln):
    """Unpacks while it pulls, as `buildah` and `docker` unpack."""

    def pull(self, image):
        return [self.exe, "--root", self.root, "pull", "-q", image]

    def push(self, image, to):
        return [self.exe, "--root", self.root, "push", "-q", image, to]


class KilnBlobs(KilnShip):
    """Keeps the blobs as they come, as `skopeo` does."""

    name = "kiln --no-unpack"

    def pull(self, image):
        return [self.exe, "--root", self.root, "pull", "-q", "--no-unpack", image]


class Skopeo(Shipper, Builder):
    """Between a registry and an OCI layout, its state folder."""

    name = "skopeo"

    def __init__(self, work):
        super().__init__(work)
        self.version = _words(["skopeo", "--version"])

    def pull(self, image):
        return ["skopeo", "copy", "--src-tls-verify=false", f"docker://{image}", f"oci:{self.root}:x"]

    def push(self, _, to):
        return ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{self.root}:x", f"docker://{to}"]


class BuildahShip(Shipper, Buildah):
    def pull(self, image):
        return [*self.start, "pull", "--tls-verify=false", image]

    def push(self, image, to):
        return [*self.start, "push", "--tls-verify=false", image, f"docker://{to}"]


class DockerShip(Shipper, Docker):
    def pull(self, image):
        return ["docker", "pull", "-q", image]

    def before_push(self, image, to):
        self.run(["docker", "tag", image, to])

    def push(self, image, to):
        return ["docker", "push", "-q", to]


def make_image(kiln, work, registry, mib):
    """An image whose layers are half random bytes in large files, half text in small ones; pushed to the registry."""
    context = work / f"ship-{mib}"
    if not context.exists():
        rng = random.Random(4)
        half = (mib << 20) // LAYERS // 2
        lines = ["FROM scratch"]
        for layer in range(LAYERS):
            folder = context / str(layer)
            folder.mkdir(parents=True)
            for part in range(5):
                (folder / f"random{part}").write_bytes(rng.randbytes(half // 5))
            text = _text(rng, half)
            small = 25_000
            for at in range(0, half, small):
                (folder / f"text{at // small}").write_bytes(text[at:at + small])
            lines.append(f"COPY {layer} /{layer}")
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    registry.start(empty=True)
    image = f"{registry.address}/ship:1"
    root = work / "ship-root"
    subprocess.run([kiln, "--root", root, "build", "-q", "--push", "-t", image, context], check=True, stdout=subprocess.DEVNULL)
    return image


def measure(shippers, image, empty, runs):
    results = []
    for run in range(runs):
        for shipper in shippers:
            for phase in ("pull", "push"):
                row = {"workload": "ship", "phase": phase, "builder": shipper.name, "run": run}
                try:
                    if phase == "pull":
                        shipper.reset()
                        argv = shipper.pull(image)
                    else:
                        # Another name for each run: nobody may know that the registry has it.
                        empty.start(empty=True)
                        to = f"{empty.address}/ship{run}:1"
                        shipper.before_push(image, to)
                        argv = shipper.push(image, to)
                    row |= measured(shipper.meter, argv, shipper.env)
                except RuntimeError as error:
                    row["error"] = str(error)
                    print(f"!! {phase} {shipper.name}: {error}", file=sys.stderr)
                results.append(row)
                if "wall_seconds" in row:
                    print(f"{run} {phase} {shipper.name:18}{row['wall_seconds']:8.3f} s {row['cpu_seconds'] or 0:8.3f} s cpu", flush=True)
    return results


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiln", required=True)
    a.add_argument("--peers", default="skopeo,buildah,docker")
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--mib", type=int, default=500)
    a.add_argument("--json", required=True)
    a = a.parse_args()
    with work_folder() as work:
        return ship(work, a)


def ship(work, a):
    """Measures and writes what was found."""
    started = time.strftime("%Y-%m-%d %H:%M")
    full, empty = Registry(work / "registry", free_port()), Registry(work / "registry-empty", free_port())
    shippers, results = [], []
    try:
        image = make_image(a.kiln, work, full, a.mib)
        shippers += [KilnShip(work, a.kiln), KilnBlobs(work, a.kiln)]
        for peer in filter(None, a.peers.split(",")):
            shippers.append({"skopeo": Skopeo, "buildah": BuildahShip, "docker": DockerShip}[peer](work))
        results = measure(shippers, image, empty, a.runs)
    finally:
        for shipper in shippers:
            shipper.stop()
        full.stop()
        empty.stop()
    document = {"date": started, "machine": machine(), "runs": a.runs, "mib": a.mib, "layers": LAYERS,
                "command": f"tests/bench/ship.sh --runs {a.runs} --mib {a.mib} --peers {a.peers}",
                "builders": {shipper.name: shipper.version for shipper in shippers}, "results": results}
    Path(a.json).write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any("error" in row for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
