#!/usr/bin/env python3
"""manifest.py FILE docker|podman FOLDER: the words of `docker run` or `podman run` that start the container of a Kubernetes
pod as a node with containerd would, each ended by NUL: options, image, arguments.
manifest.py FILE play FOLDER: the same pod and its config maps for `podman play kube`.

Volumes are folders of FOLDER, by their names. Those of a config map or a secret must be there, as nodes make them: the files
are in `..data`. An empty one is made. Where pods have user namespaces (`hostUsers: false`, podman alone), ids are those from BASE on, and so are
the owners of what is in volumes: nodes mount them so. A field that is not known here is an error: nothing of a manifest is
left out."""
import os
import sys
from pathlib import Path

import yaml

BASE, IDS = 300000, 65536
# As `docker run` and containerd have them without being told; podman has fewer.
CAPABILITIES = ("AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID "
                "SYS_CHROOT").split()


class Fields:
    """A mapping of which every field must be taken."""

    def __init__(self, path, fields):
        self.path, self.fields = path, dict(fields or {})

    def take(self, name, *known, default=None):
        """A field, one of these values if there are any."""
        if name not in self.fields:
            return default
        value = self.fields.pop(name)
        if known and value not in known:
            sys.exit(f"manifest.py: {self.path}.{name}: {value} is not known")
        return Fields(f"{self.path}.{name}", value) if isinstance(value, dict) else value

    def part(self, name):
        return self.take(name, default=Fields(f"{self.path}.{name}", {}))

    def end(self):
        if self.fields:
            sys.exit(f"manifest.py: {self.path}: {', '.join(self.fields)} is not known")


def volume(entry, folder, owner):
    """The folder of a volume."""
    name = entry.take("name")
    path = folder / name
    for kind in ("configMap", "secret", "emptyDir"):
        if (source := entry.take(kind)) is None:
            continue
        if kind == "emptyDir":
            path.mkdir()
            os.chown(path, owner[0], owner[1])
            # As a node gives it to the pod's group.
            path.chmod(0o2777)
        elif not (path / "..data").is_dir():
            sys.exit(f"manifest.py: there is no {path}/..data")
        if kind != "emptyDir":
            source.take("name" if kind == "configMap" else "secretName")
        source.end()
    entry.end()
    return name, path


def words(manifest, engine, folder):
    pod = Fields("", manifest)
    pod.take("apiVersion", "v1")
    pod.take("kind", "Pod")
    pod.part("metadata").take("name")
    spec = pod.part("spec")
    spec.take("restartPolicy", "Never")
    # No token is there in any case.
    spec.take("automountServiceAccountToken", False)
    out, first = [], 0
    unmasks = {"docker": "systempaths=unconfined", "podman": "unmask=ALL"}[engine]
    if spec.take("hostUsers", False) is False:
        if engine != "podman":
            sys.exit("manifest.py: hostUsers: false needs podman")
        first = BASE
        out += [f"--{kind}map=0:{BASE}:{IDS}" for kind in ("uid", "gid")]
    of_pod = spec.part("securityContext")
    user, group, of_volumes = of_pod.take("runAsUser", default=0), of_pod.take("runAsGroup", default=0), of_pod.take("fsGroup", default=0)
    if of_pod.take("runAsNonRoot") and user == 0:
        sys.exit("manifest.py: runAsNonRoot, and a user of 0")
    out += [f"--user={user}:{group}"] + ([f"--group-add={of_volumes}"] if of_volumes else [])
    of_pod.end()
    # One container: a second one would be an error here.
    [container] = [Fields("containers", each) for each in spec.take("containers")]
    container.take("name")
    context = container.part("securityContext")
    if context.take("allowPrivilegeEscalation") is False:
        out.append("--security-opt=no-new-privileges")
    if context.part("seccompProfile").take("type", "RuntimeDefault", "Unconfined") == "Unconfined":
        out.append("--security-opt=seccomp=unconfined")
    if context.take("procMount", "Unmasked"):
        out.append(f"--security-opt={unmasks}")
    dropped = context.part("capabilities").take("drop", ["ALL"], default=[])
    out += ["--cap-drop=ALL"] + ([] if dropped else [f"--cap-add={name}" for name in CAPABILITIES])
    context.end()
    resources = container.part("resources")
    # What a scheduler goes by.
    resources.take("requests")
    limits = resources.part("limits")
    # Of all that a pod writes; a node looks at it now and then.
    limits.take("ephemeral-storage")
    out.append(f"--memory={limits.take('memory').removesuffix('i').lower()}")
    limits.end()
    resources.end()
    out += [f"--env={each['name']}={each['value']}" for each in container.take("env")]
    volumes = dict(volume(Fields("volumes", each), folder, (first, first + of_volumes)) for each in spec.take("volumes"))
    for each in [Fields("volumeMounts", each) for each in container.take("volumeMounts")]:
        out.append(f"--volume={volumes[each.take('name')]}:{each.take('mountPath')}" + (":ro" if each.take("readOnly") else ""))
        each.end()
    program, *arguments = container.take("command")
    out += [f"--entrypoint={program}", container.take("image"), *arguments]
    for fields in (container, spec, pod):
        fields.end()
    return out


def play(manifest, folder):
    """A pod as podman 4.3 takes it, behind the config maps that are in files here."""
    documents = []
    for each in manifest["spec"]["volumes"]:
        files = {file.name: file.read_text() for file in sorted((folder / each["name"] / "..data").glob("*"))}
        if "configMap" in each:
            documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": each["configMap"]["name"]}, "data": files})
        if "secret" in each:
            # What it is in a cluster where nothing is said; podman ends in a panic there.
            each["secret"].setdefault("optional", False)
    return yaml.safe_dump_all([*documents, manifest])


def main():
    path, engine, folder = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        manifest = yaml.safe_load(file)
    if engine == "play":
        sys.stdout.write(play(manifest, Path(folder)))
    else:
        sys.stdout.write("".join(word + "\0" for word in words(manifest, engine, Path(folder))))


if __name__ == "__main__":
    main()
