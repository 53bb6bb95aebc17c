"""The builders that are compared. Each builds a context into an OCI archive with gzip layers, and can begin anew: with a new
state folder. The old ones stay until all is measured; disk.py says why."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import disk
from meter import Meter

HERE = Path(__file__).resolve().parent
# Debian's dockerd does not know the version of the BuildKit that it is built with; its vendor.mod says it.
VENDORED = {"26.1": "v0.13", "28.5": "v0.25"}


def _words(argv, env=None):
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.strip()


class Builder:
    """What all have: a name, a version, a meter, state folders. `run` starts a command inside the meter."""

    name = None
    # How often one is measured at most, and in which phases; None is no limit.
    most_runs = None
    phases = ("cold", "noop", "noop-new", "edit")

    def __init__(self, work):
        self.work, self.meter, self.env = Path(work), Meter(self.name), dict(os.environ)
        self.states = 0
        self.root = self._next_state()

    def _next_state(self):
        self.states += 1
        return self.work / f"{self.name.replace(' ', '')}-state-{os.getpid()}-{self.states}"

    @property
    def programs(self):
        """Files, and folders of them, that are executed for a build."""
        return [shutil.which(self.exe)]

    def run(self, argv):
        done = subprocess.run([str(a) for a in argv], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, preexec_fn=self.meter.enter)
        if done.returncode:
            raise RuntimeError(f"{argv[0]} exited {done.returncode}\n{done.stdout.decode(errors='replace')[-1500:]}")

    def reset(self):
        """Begins anew: the builder knows nothing. To be called before all that is timed, not between."""
        old, self.root = self.root, self._next_state()
        self.unmount(old)
        disk.hollow(old)

    def unmount(self, state):
        """What of a state folder must end before it is removed."""

    def before(self, out):
        """What must be done before a build that may find `out` there; not timed."""

    def stop(self):
        self.unmount(self.root)
        self.meter.close()


class Kiln(Builder):
    name = "kiln"

    def __init__(self, work, exe):
        super().__init__(work)
        self.exe = exe
        self.version = f"{_words([exe, '--version'])}, {Path(exe).stat().st_size / (1 << 20):.0f} MiB"

    def build(self, context, out):
        return [self.exe, "--root", self.root, "build", "--progress", "plain", "-t", "bench", "-o", f"type=oci,dest={out}", context]


class Buildah(Builder):
    name = "buildah"
    most_runs = 2
    # It refuses to write over an archive, so that there is no build that finds it.
    phases = ("cold", "noop", "edit")

    def __init__(self, work, exe="buildah"):
        super().__init__(work)
        self.exe = exe
        self.version = _words([exe, "--version"])

    @property
    def start(self):
        return [self.exe, "--root", self.root, "--runroot", f"{self.root}/run", "--storage-driver", "overlay"]

    def before(self, out):
        Path(out).unlink(missing_ok=True)

    def build(self, context, out):
        # chroot: the isolation that costs buildah least; limits, because it asks for more than some machines give.
        return [*self.start, "bud", "--layers", "--isolation", "chroot", "--network", "host", "--ulimit", "nofile=4096:4096",
                "--ulimit", "nproc=4096:4096", "-t", f"oci-archive:{out}:bench", context]

    def unmount(self, state):
        # The store keeps its folder mounted on itself.
        subprocess.run(["umount", "-l", state / "overlay"], stderr=subprocess.DEVNULL, check=False)


class Docker(Builder):
    """`docker buildx build` against a dockerd of its own, whose BuildKit does the work. It begins anew with a new data
    folder, and is warmed up by a build of something else."""

    name = "docker"
    # Debian 13, whose packages these are.
    suite = "trixie"

    def __init__(self, work):
        super().__init__(work)
        self.dir = self.work / self.name
        self.env["SUITE"] = self.suite
        self.env["CGROUP_PARENT"] = self.meter.containers if self.meter.group else ""
        self.warm = self.work / "warm"
        self.warm.mkdir(exist_ok=True)
        (self.warm / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        self._stop()
        self._start()
        server = json.loads(_words(["docker", "version", "--format", "{{json .Server}}"], self.env))
        buildkit = next((line.split()[-1] for line in _words(["docker", "buildx", "inspect"], self.env).splitlines()
                         if line.startswith("Buildkit")), "")
        if not buildkit or "unknown" in buildkit:
            buildkit = VENDORED.get(".".join(server["Version"].split(".")[:2]), "of its sources")
        store = "containerd's" if self.env.get("CONTAINERD_STORE", "true") == "true" else "its own"
        self.version = (f"Docker {server['Version']}, BuildKit {buildkit}, {_words(['docker', 'buildx', 'version'], self.env)}, "
                        f"with {store} image store")

    @property
    def programs(self):
        return [self.dir / "root" / "usr", shutil.which("runc")]

    def _start(self):
        self.run([HERE.parent / "peers" / "docker.sh", "start", self.dir])
        for line in (self.dir / "env").read_text().splitlines():
            key, _, value = line.removeprefix("export ").partition("=")
            self.env[key] = value
        self.run(["docker", "buildx", "build", "--provenance=false", "-o", f"type=oci,dest={self.work}/warm.tar", self.warm])

    def _stop(self):
        subprocess.run([HERE.parent / "peers" / "docker.sh", "stop", self.dir], check=True)

    def reset(self):
        self._stop()
        if (self.dir / "data").exists():
            (self.dir / "data").rename(self.root)
        super().reset()
        self._start()

    def build(self, context, out):
        return ["docker", "buildx", "build", "--network", "host", "--provenance=false", "-o", f"type=oci,dest={out}", context]

    def stop(self):
        self._stop()
        super().stop()


class NewerDocker(Docker):
    """The Docker of Debian's next release. Its runc wants a newer C library; it takes this system's, as the other does."""

    name = "docker-next"
    suite = "forky"
