#!/usr/bin/env python3
"""pods.py ONE TWO: compares the files of two images in OCI archives, as their layers leave them.

Type, mode, owner, device, link and attributes of each path must be equal, and the image's config without what tells of layers.
Files whose content differs are listed, and are no failure: what a package manager writes has times in it. The last line counts.
"""
import gzip
import hashlib
import io
import json
import sys
import tarfile


def read(path):
    """The config and the files of an image."""
    with tarfile.open(path) as archive:
        blob = lambda descriptor: archive.extractfile("blobs/" + descriptor["digest"].replace(":", "/")).read()
        document = json.load(archive.extractfile("index.json"))
        while "manifests" in document:
            document = json.loads(blob(document["manifests"][0]))
        config = json.loads(blob(document["config"]))
        files = {}
        for layer in document["layers"]:
            data = blob(layer)
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            lay(files, tarfile.open(fileobj=io.BytesIO(data)))
    return config, files


def lay(files, layer):
    members = layer.getmembers()
    for member in members:
        folder, _, name = member.name.rstrip("/").rpartition("/")
        if name == ".wh..wh..opq":
            drop(files, folder + "/", keep=True)
        elif name.startswith(".wh."):
            drop(files, (folder + "/" if folder else "") + name[4:])
    contents = {}
    for member in members:
        name = member.name.rstrip("/").removeprefix("./")
        if name.rpartition("/")[2].startswith(".wh."):
            continue
        if not member.isdir():
            drop(files, name)
        content = None
        if member.isreg() or member.islnk():
            source = member.linkname.removeprefix("./") if member.islnk() else name
            if member.isreg():
                contents[name] = hashlib.sha256(layer.extractfile(member).read()).hexdigest()
            content = contents.get(source) or files[source][1]
        kind = tarfile.REGTYPE if member.islnk() else member.type
        attributes = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
        link = member.linkname if member.issym() else ""
        device = (member.devmajor, member.devminor) if member.isdev() and not member.isfifo() else ()
        files[name] = ((kind, member.mode, member.uid, member.gid, link, device, attributes), content)


def drop(files, path, keep=False):
    below = path if keep else path + "/"
    for known in [known for known in files if known.startswith(below) or not keep and known == path]:
        del files[known]


def main():
    (one_config, one), (two_config, two) = read(sys.argv[1]), read(sys.argv[2])
    wrong = 0
    for key in ("architecture", "os", "config"):
        if one_config.get(key) != two_config.get(key):
            wrong += 1
            print(f"config: {key}: {one_config.get(key)} / {two_config.get(key)}")
    differ = []
    for path in sorted(one.keys() | two.keys()):
        if path not in one or path not in two:
            wrong += 1
            print(f"only in the {'second' if path in two else 'first'}: {path}")
        elif one[path][0] != two[path][0]:
            wrong += 1
            print(f"{path}: {one[path][0]} / {two[path][0]}")
        elif one[path][1] != two[path][1]:
            differ.append(path)
    for path in differ:
        print(f"other content: {path}")
    print(f"{len(one)} files, {wrong} differ, {len(differ)} have other content")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
