"""The builders that are compared. Each builds a context into an OCI archive with gzip layers, and can forget all."""
import json
import os
import shutil
import subprocess
from pathlib import Path

from meter import Meter

HERE = Path(__file__).resolve().parent


def _words(argv, env=None):
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.strip()


class Builder:
    """What all have: a name, a version, a meter. `run` starts a command inside the meter."""

    name = None

    def __init__(self, work):
        self.work, self.meter, self.env = Path(work), Meter(self.name), dict(os.environ)

    def run(self, argv, check=True):
        done = subprocess.run([str(a) for a in argv], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, preexec_fn=self.meter.enter)
        if check and done.returncode:
            raise RuntimeError(f"{argv[0]} exited {done.returncode}\n{done.stdout.decode(errors='replace')[-1500:]}")

    def stop(self):
        self.meter.close()


class Kiln(Builder):
    name = "kiln"

    def __init__(self, work, exe):
        super().__init__(work)
        self.exe, self.root = exe, self.work / "kiln-root"
        self.version = _words([exe, "--version"])

    def reset(self):
        subprocess.run(["rm", "-rf", self.root], check=True)

    def build(self, context, out):
        self.run([self.exe, "--root", self.root, "build", "--progress", "plain", "-t", "bench", "-o", f"type=oci,dest={out}", context])


class Buildah(Builder):
    name = "buildah"

    def __init__(self, work, exe="buildah"):
        super().__init__(work)
        self.start = [exe, "--root", self.work / "buildah-root", "--runroot", self.work / "buildah-run", "--storage-driver", "overlay"]
        self.version = _words([exe, "--version"])

    def reset(self):
        self.run([*self.start, "rmi", "-a", "-f"], check=False)

    def build(self, context, out):
        Path(out).unlink(missing_ok=True)
        # chroot: the isolation that costs buildah least; limits, because it asks for more than some machines give.
        self.run([*self.start, "bud", "--layers", "--isolation", "chroot", "--network", "host", "--ulimit", "nofile=4096:4096",
                  "--ulimit", "nproc=4096:4096", "-t", f"oci-archive:{out}:bench", context])

    def stop(self):
        self.reset()
        super().stop()


class Docker(Builder):
    """`docker buildx build` against a dockerd of its own, whose BuildKit does the work."""

    name = "docker"

    def __init__(self, work):
        super().__init__(work)
        self.dir = self.work / "docker"
        self.env["CGROUP_PARENT"] = self.meter.containers if self.meter.group else ""
        self.run([HERE.parent / "peers" / "docker.sh", "start", self.dir])
        for line in (self.dir / "env").read_text().splitlines():
            key, _, value = line.removeprefix("export ").partition("=")
            self.env[key] = value
        server = json.loads(_words(["docker", "version", "--format", "{{json .Server}}"], self.env))
        buildkit = next((line.split()[-1] for line in _words(["docker", "buildx", "inspect"], self.env).splitlines()
                         if line.startswith("Buildkit")), "")
        # Debian's dockerd does not know the version of the BuildKit that it is built with.
        known = f"BuildKit {buildkit}" if buildkit and "unknown" not in buildkit else "with the BuildKit of its sources"
        self.version = f"Docker {server['Version']} {known}, {_words(['docker', 'buildx', 'version'], self.env)}"

    def reset(self):
        self.run(["docker", "buildx", "prune", "-af"])

    def build(self, context, out):
        self.run(["docker", "buildx", "build", "--network", "host", "--provenance=false", "-o", f"type=oci,dest={out}", context])

    def stop(self):
        subprocess.run([HERE.parent / "peers" / "docker.sh", "stop", self.dir], check=True)
        shutil.rmtree(self.dir / "data", ignore_errors=True)
        super().stop()
