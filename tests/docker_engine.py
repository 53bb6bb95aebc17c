#!/usr/bin/env python3
"""docker_engine.py KILN WORK: does Kiln give images to Docker as it says? Against two Docker Engines of Debian 13, one that
keeps its images itself and one that lets containerd keep them: `--load`, `docker-daemon:`, what is sent when something is
there already, several platforms, and what is said where no engine is. Prints one line a claim; as root."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

KILN, WORK = sys.argv[1], pathlib.Path(sys.argv[2]).absolute() / "docker-engine"
TESTS = pathlib.Path(__file__).parent
passed = failed = 0


def claim(what, holds, shown=""):
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    print(f"{'holds' if holds else 'FAILED'}: {what}")
    if not holds:
        print(shown)


class Engine:
    """A Docker Engine, started for this."""

    def __init__(self, name, containerd):
        self.dir = WORK / name
        self.name = name
        self.dir.mkdir(parents=True)
        fetched = os.environ.get("DOCKER_FETCHED")
        if fetched:
            subprocess.run(["cp", "-al", f"{fetched}/root", self.dir / "root"], check=True)
            (self.dir / "fetched").touch()
        variables = dict(os.environ, CONTAINERD_STORE="true" if containerd else "false")
        subprocess.run([TESTS / "peers/docker.sh", "start", self.dir], check=True, env=variables)
        self.environment = {
            "PATH": f"{self.dir}/root/usr/bin:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{self.dir}/run/docker.sock",
            "DOCKER_CONFIG": f"{self.dir}/config",
        }

    def docker(self, *words):
        done = subprocess.run(["docker", *words], env={**os.environ, **self.environment}, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else f"docker {words[0]}: {done.stderr}"

    def run(self, image):
        return self.docker("run", "--rm", "--network", "host", image)

    def stop(self):
        subprocess.run([TESTS / "peers/docker.sh", "stop", self.dir], check=True)


def kiln(*words, environment=None, root="root"):
    variables = {**os.environ, "BUILDKIT_PROGRESS": "plain", **(environment or {})}
    done = subprocess.run([KILN, "--root", WORK / root, *words], env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def context(text):
    folder = WORK / "context"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox"), folder / "busybox")
    (folder / "text").write_text(text + "\n")
    (folder / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY text /text\n" 'CMD ["/bin/busybox", "cat", "/text"]\n'
    )
    return folder


def loads(engine):
    name, environment = engine.name, engine.environment
    status, said = kiln("build", "--load", "-t", "app:1", context("one"), environment=environment)
    claim(f"{name}: --load", status == 0 and engine.run("app:1") == "one", said)
    status, said = kiln("build", "--load", "-t", "app:1", context("one"), environment=environment)
    claim(f"{name}: again, and nothing is sent", status == 0 and "has the image already" in said, said)
    status, said = kiln("build", "-o", "type=docker", "-t", "app:1", "-t", "r.example/a/b:x", context("one"), environment=environment)
    claim(f"{name}: a further name, and nothing is sent", "has the image already" in said and engine.run("r.example/a/b:x") == "one", said)
    status, said = kiln("build", "--load", "-t", "app:1", context("two"), environment=environment)
    claim(f"{name}: another image under the name", status == 0 and engine.run("app:1") == "two", said)
    claim(f"{name}: the old one keeps its other name", engine.run("r.example/a/b:x") == "one")
    if name == "layers":
        claim("layers: one layer of two is sent", re.search("sending the 1 layers", said), said)
        identity = engine.docker("image", "inspect", "-f", "{{.Id}}", "app:1")
        kiln("build", "-t", "app:1", context("two"))
        claim("layers: its id is the config's digest", identity in kiln("inspect", "app:1")[1] or identity in kiln("images", "--json")[1], identity)
    kiln("build", "-t", "app:1", context("two"))
    status, said = kiln("push", "app:1", "docker-daemon:other:2", environment=environment)
    claim(f"{name}: docker-daemon:", status == 0 and engine.run("other:2") == "two", said)
    engine.docker("rmi", "-f", "app:1", "other:2", "r.example/a/b:x")
    status, said = kiln("push", "app:1", "docker-daemon:app:1", environment=environment)
    claim(f"{name}: after its images were removed", status == 0 and engine.run("app:1") == "two", said)
    socket = environment["DOCKER_HOST"]
    made = engine.docker("context", "create", "there", "--docker", f"host={socket}")
    only = {**environment, "DOCKER_HOST": ""}
    status, said = kiln("build", "-o", "type=docker,context=there", "-t", "app:3", context("three"), environment=only)
    claim(f"{name}: a context of Docker's", status == 0 and engine.run("app:3") == "three", made + said)
    several(engine)


def several(engine):
    words = ["build", "--load", "--platform", "linux/amd64,linux/arm64", "-t", "app:several", context("four")]
    status, said = kiln(*words, environment=engine.environment)
    if engine.name == "containerd":
        claim("containerd: several platforms", status == 0 and engine.run("app:several") == "four", said)
    else:
        early = status == 1 and "one platform" in said and "COPY" not in said
        claim("layers: several platforms are refused before anything is built", early, said)


def without():
    nobody = {"DOCKER_HOST": f"unix://{WORK}/nobody.sock", "DOCKER_CONFIG": str(WORK)}
    status, said = kiln("build", "--load", "-t", "app:1", context("one"), environment=nobody, root="other")
    clear = status == 1 and "no Docker Engine answers" in said and "DOCKER_HOST" in said and "COPY" not in said
    claim("no engine: an error before anything is built", clear, said)
    status, said = kiln("build", "-o", "type=docker,context=none", context("one"), environment={**nobody, "DOCKER_HOST": ""})
    claim("no context: an error that names it", status == 1 and "`none`" in said, said)


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    without()
    for name, containerd in [("layers", False), ("containerd", True)]:
        engine = Engine(name, containerd)
        try:
            loads(engine)
        finally:
            engine.stop()
    print(f"{passed} passed, {failed} failed")
    shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(failed > 0)


main()
