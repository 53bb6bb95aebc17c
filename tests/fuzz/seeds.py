#!/usr/bin/env python3
"""seeds.py DIR: writes what fuzzing begins from, a folder a target, from what the tests hold already.

Dockerfiles and ignore files are those of tests/conformance (written by its gen.py, which needs gcc), tests/fixtures
and examples; archives are made with Python's and GNU's tar. Files are named by their digest, so that the same seed is
there once. run.sh minimises what this writes into corpus/."""
import bz2, gzip, hashlib, io, json, lzma, os, re, shutil, subprocess, sys, tarfile, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
LONGEST = 4096


def main(out):
    def keep(target, data):
        data = data.encode() if isinstance(data, str) else data
        if 0 < len(data) <= LONGEST:
            os.makedirs(os.path.join(out, target), exist_ok=True)
            with open(os.path.join(out, target, hashlib.sha256(data).hexdigest()[:16]), "wb") as f:
                f.write(data)

    with tempfile.TemporaryDirectory() as work:
        cases = os.path.join(work, "cases")
        subprocess.run([sys.executable, os.path.join(TESTS, "conformance", "gen.py"), cases], check=True,
                       stdout=subprocess.DEVNULL)
        for top in [cases, os.path.join(TESTS, "fixtures"), os.path.join(TESTS, "..", "examples")]:
            for data in found(top, lambda name: "ockerfile" in name and not name.endswith("ignore")):
                for target in ["parser", "lower"]:
                    keep(target, data)
                for text in words(data):
                    keep("expander", text)
            for data in ignores(top):
                keep("ignore", data)
        for data in tars(work):
            keep("tar", data)
            keep("archive", data)
            for packed in [gzip.compress(data, mtime=0), bz2.compress(data), lzma.compress(data), zstd(data)]:
                keep("archive", packed)
    for data in xz_blocks():
        keep("xz", data)
    for target, seeds in SMALL.items():
        for data in seeds:
            keep(target, data)


def found(top, wanted):
    for folder, _, names in sorted(os.walk(top)):
        for name in sorted(filter(wanted, names)):
            with open(os.path.join(folder, name), "rb") as f:
                yield f.read()


def words(dockerfile):
    """The arguments of a Dockerfile's lines that have something to expand, under a few variables."""
    head = "{}\nA=alpha\nE=\nP=a/b/c.tar.gz\nV=1.2.3\nS= x  y\n"
    for line in dockerfile.decode(errors="replace").splitlines():
        text = line.partition(" ")[2].strip()
        if re.search(r"[$'\"\\`]", text):
            yield head.format("\\") + "\n" + text
            if "`" in text or "\\" in text:
                yield head.format("`") + "\n" + text


def ignores(top):
    for folder, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            if name.endswith(".dockerignore"):
                with open(os.path.join(folder, name), "rb") as f:
                    patterns = f.read().strip(b"\n")
                below = [os.path.relpath(os.path.join(at, file), folder)
                         for at, _, files in sorted(os.walk(folder)) for file in sorted(files)]
                yield re.sub(rb"\n\n+", b"\n", patterns) + b"\n\n" + "\n".join(below[:30]).encode()


def tars(work):
    kinds = [(tarfile.REGTYPE, "a/file", b"hello"), (tarfile.DIRTYPE, "a", b""), (tarfile.SYMTYPE, "a/link", b""),
             (tarfile.LNKTYPE, "hard", b""), (tarfile.CHRTYPE, "null", b""), (tarfile.BLKTYPE, "loop", b""),
             (tarfile.FIFOTYPE, "pipe", b""), (tarfile.REGTYPE, "l" * 90 + "/" + "m" * 90, b"x"),
             (tarfile.REGTYPE, "n" * 180, b"y"), (tarfile.REGTYPE, "a/.wh.gone", b""),
             (tarfile.REGTYPE, "a/.wh..wh..opq", b"")]
    for form in [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]:
        for step in [1, 4]:
            for start in range(0, len(kinds), step):
                bytes_ = io.BytesIO()
                with tarfile.open(fileobj=bytes_, mode="w", format=form) as archive:
                    for kind, name, content in kinds[start:start + step]:
                        member = tarfile.TarInfo(name)
                        member.type, member.size, member.mode, member.mtime = kind, len(content), 0o640, 1700000000
                        member.linkname = "a/file" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
                        member.uid, member.devmajor = (5, 1) if form == tarfile.USTAR_FORMAT else (3000000, 1)
                        if form == tarfile.PAX_FORMAT:
                            member.mtime = 1700000000.25
                            member.pax_headers = {"SCHILY.xattr.user.a": "v\nw"}
                        if len(name) < 100 or form != tarfile.USTAR_FORMAT or "/" in name:
                            archive.addfile(member, io.BytesIO(content))
                yield bytes_.getvalue()[:-8192]
    holes = os.path.join(work, "holes")
    with open(holes, "wb") as f:
        f.seek(1 << 16)
        f.write(b"data")
        f.truncate(1 << 17)
    for options in [["--format=gnu"], ["--format=posix", "--sparse-version=0.0"],
                    ["--format=posix", "--sparse-version=0.1"], ["--format=posix", "--sparse-version=1.0"]]:
        command = ["tar", "-c", "-b1", "--sparse", "--owner=0", "--group=0", "--mtime=@1", *options, "-C", work, "holes"]
        yield strip_data(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    longest = ["tar", "-c", "-b1", "--format=v7", "--owner=0", "--group=0", "--mtime=@1", "-C", TESTS, "skipped.txt"]
    yield subprocess.run(longest, check=True, stdout=subprocess.PIPE).stdout


def strip_data(data):
    """A sparse member's blocks of data hold mostly zeros, which seeds need not have."""
    return data[:LONGEST]


def zstd(data):
    if shutil.which("zstd") is None:
        return b""
    return subprocess.run(["zstd", "-c"], input=data, check=True, stdout=subprocess.PIPE).stdout


def xz_blocks():
    texts = [b"", b"hello", b"ab" * 500, bytes(range(256)) * 3]
    chains = [[], [{"id": lzma.FILTER_DELTA, "dist": 3}], [{"id": lzma.FILTER_X86}], [{"id": lzma.FILTER_ARM}],
              [{"id": lzma.FILTER_POWERPC}], [{"id": lzma.FILTER_SPARC}], [{"id": lzma.FILTER_IA64}],
              [{"id": lzma.FILTER_ARMTHUMB}], [{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_X86}]]
    for text in texts:
        for check in [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]:
            for chain in chains[:1] if check != lzma.CHECK_CRC32 else chains:
                filters = chain + [{"id": lzma.FILTER_LZMA2, "preset": 0}]
                file = lzma.compress(text, check=check, filters=filters)
                if file[12] == 0:
                    continue
                header = (file[12] + 1) * 4
                fields = file[13:12 + header - 4]
                yield bytes([file[7], len(fields)]) + fields + file[12 + header:]


DIGEST = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 7}
SMALL = {
    "names": [
        "alpine", "alpine:3.20", "docker.io/library/alpine:latest", "localhost:5000/a/b_c--d.e:T", f"ghcr.io/a/b@{DIGEST}",
        f"a:t@{DIGEST}", DIGEST, "linux/amd64", "linux/arm/v7", "windows", "arm64", "linux/x86-64/v1", "1h2m3.5s", "-4us",
        "80", "8000-8010/udp", "0.0.0.0:80:90/tcp", "u=rwX,go-w", "0755", "1000:1000", "root:wheel", "SIGRTMIN+3", "15",
        "/a/../b//./c", "root:x:0:0:root:/root:/bin/sh\nu:x:5:6::/h:\n\nroot:x:0:u\nwheel:x:10:root,u\n",
    ],
    "manifest": [
        bytes([1, 0]),
        bytes([1, 1, 0, 1]) + b"f" + bytes([6, 0x80, 3, 0, 0]),
        bytes([1, 3, 0, 1]) + b"d" + bytes([0x10, 0xed, 3, 5, 6, 2, 0, 1, 2]) + b"/f"
        + bytes([0x22, 0xa4, 3, 2, 5, 3]) + bytes(32) + bytes([1, 1]) + b"a" + bytes([1]) + b"v"
        + bytes([2, 1]) + b"g" + bytes([0x62, 0xa4, 3, 0, 5, 3]) + bytes(32) + bytes([1, 1]) + b"a" + bytes([1]) + b"v"
        + bytes([3]) + b"d/f",
        bytes([1, 4, 0, 1]) + b"a" + bytes([1, 0, 0, 0, 0, 1]) + b"l" + bytes([3, 0xff, 3, 1, 0, 1]) + b"t"
        + bytes([0, 1]) + b"n" + bytes([4, 0, 0, 0, 1, 3, 0, 1]) + b"w" + bytes([7]),
    ],
    "documents": [json.dumps(document) for document in [
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "config": {**DESCRIPTOR, "annotations": {"a": "b"}}, "layers": [DESCRIPTOR], "subject": {"x": [1.5, None]}},
        {"schemaVersion": 2, "manifests": [{**DESCRIPTOR, "platform": {
            "os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1"}}], "annotations": {"k": "v"}},
        {"created": "2024-01-01T00:00:00Z", "architecture": "amd64", "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": [DIGEST]}, "history": [{"created_by": "x", "empty_layer": True}],
         "config": {"Env": ["A=b"], "Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
                    "Labels": {"l": "m"}, "User": "u", "WorkingDir": "/w", "OnBuild": ["RUN x"], "Shell": ["s"],
                    "StopSignal": "15", "ArgsEscaped": True, "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}}},
        {"os": "linux", "config": None, "rootfs": {"type": "layers", "diff_ids": None}, "history": None},
    ]],
    "ignore": [
        "*\n!a/b\n\na\na/b\na/b/c\nd", "**/*.md\n!README.md\n**/x/**\n\nREADME.md\na/b.md\nx/y\na/x/y",
        "a?c\n[a-c]*\n[^x]y\n\\*z\n**b\n\nabc\nbz\nay\n*z\nab\nx/ab", "a\n!a/b\na*\n\na/b\na/c\nab",
        "/d/../e//f \n#c\n! !x\nb/**/z\n**\n\ne/f\nb/z\nb/q/z",
    ],
    "expander": [
        "\\\nA=alpha\nS=a  b\n\n" + text for text in [
            "$A ${A} ${N:-d} ${N-d} ${A:+p} ${N:?why}", "${A#al*} ${A##*a} ${A%h?} ${A%%a*} ${A/a/b} ${A//a/[$0]}",
            "\"$A 'x'\" '$A' \\$A a\\ b $S", "${A:-${N:-${S}}} $$ $1 $@ ${!}", "<<EOF <<-\"E\" ${A/\\//x} ${A//?/$A}",
        ]
    ],
}

if __name__ == "__main__":
    main(sys.argv[1])
