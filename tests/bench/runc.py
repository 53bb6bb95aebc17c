"""The floor of a step: the same commands as those of the workload `steps`, each by a `runc run` of its own on one folder,
with no layers, no cache and no image."""
import json
import os
import shutil
import subprocess

from meter import Meter, measured
from workloads import BUSYBOX, STEPS


class Runc:
    name = "runc"

    def __init__(self, work):
        self.meter, self.bundle = Meter(self.name), work / f"runc-{os.getpid()}"
        self.version = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]

    def _prepare(self):
        shutil.rmtree(self.bundle, ignore_errors=True)
        root = self.bundle / "rootfs"
        (root / "bin").mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        subprocess.run(["runc", "spec", "--bundle", self.bundle], check=True)
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", "echo $0 > /f"]}
        spec["root"]["readonly"] = False
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def steps(self):
        """One measurement: all steps, one after the other."""
        self._prepare()
        each = f'for i in $(seq {STEPS}); do runc run --bundle "$1" "$2-$i" || exit; done'
        return measured(self.meter, ["/bin/sh", "-c", each, "sh", self.bundle, self.bundle.name], dict(os.environ))

    def stop(self):
        shutil.rmtree(self.bundle, ignore_errors=True)
        self.meter.close()
