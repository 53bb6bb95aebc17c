"""The floor of the workload `diff`: its two commands by the host's own shell, with no isolation, no layers and no image. Once in
memory, on a plain folder; once on the disk, each on an overlay as builders make one for a step."""
import os
import shutil
import subprocess
import tempfile

from meter import Meter, measured
from workloads import BUSYBOX, DELETE, WRITE


class Shell:
    """In memory, where no file system of a disk takes its part."""

    name = "shell in memory"

    def __init__(self, work):
        self.meter = Meter("shell")
        self.folders = []

    def diff(self):
        folder = tempfile.mkdtemp(prefix="kiln-bench-", dir="/dev/shm")
        self.folders.append(folder)
        commands = f"cd {folder}; {WRITE.replace('/w', 'w')}; cd ..; cd {folder}; {DELETE.replace('/w', 'w')}"
        return measured(self.meter, [BUSYBOX, "sh", "-c", commands], dict(os.environ))

    def stop(self):
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.meter.close()


class Overlay:
    """Each command with the root folder of an overlay as its own, the second on what the first one wrote."""

    name = "shell on overlayfs"

    def __init__(self, work):
        self.meter, self.work, self.states = Meter("overlay"), work, []

    def diff(self):
        state = self.work / f"overlayfs-state-{os.getpid()}-{len(self.states)}"
        self.states.append(state)
        for name in ("base/bin", "written", "deleted", "work1", "work2", "root"):
            (state / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, state / "base/bin/busybox")
        subprocess.run(["chroot", state / "base", "/bin/busybox", "--install", "-s", "/bin"], check=True)
        step = ('mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" root && chroot root /bin/sh -c "$4"; '
                'status=$?; umount root; return $status')
        commands = (f"step() {{ {step}; }}; cd {state} && step base written work1 '{WRITE}' && "
                    f"step written:base deleted work2 '{DELETE}'")
        return measured(self.meter, ["/bin/sh", "-c", commands], dict(os.environ))

    def stop(self):
        for state in self.states:
            subprocess.run(["umount", state / "root"], stderr=subprocess.DEVNULL, check=False)
        self.meter.close()
