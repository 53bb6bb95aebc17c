//! Layers that mean harm: bombs, names that lead away, links, devices, headers that lie. What is no error is harmless.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use kiln_tests::{
    hostile::{
        bomb::{self, Bomb, gzip},
        image::{Content, Layer, digest},
        place::Place,
        tar::{Header, Tar},
    },
    machine,
    program::program,
};

/// Says why a test cannot run here, and whether.
fn cannot(test: &str, needs: &[&str]) -> bool {
    machine::cannot(test, ["steps"].iter().chain(needs).copied())
}

const BUILD: &str = "build --pull --progress plain PLACE/context";
const PULL: &str = "pull --progress plain IMAGE";
const OF_LAYOUT: &str = "build --progress plain --build-context evil=oci-layout://PLACE/layout:1 -f PLACE/context/of-layout PLACE/context";
const LOAD: &str = "load -q -i PLACE/layout";
const RUN: &str = "run evil.example/evil:1 /x";

/// Layers that no way of unpacking them takes, each with the words of which one is said.
fn refused(place: &Place, case: &str, layer: Layer, says: &[&str]) {
    let content = Content::of(vec![Layer::honest(), layer]);
    place.serve(&content);
    let layout = place.path("layout");
    let _earlier = fs::remove_dir_all(&layout);
    content.write_layout(&layout).expect("a layout");
    let named = content.json("1")["layers"][1]["digest"].as_str().expect("a digest").to_owned();
    for words in [PULL, BUILD, OF_LAYOUT] {
        let ended = place.refuses(case, words, says);
        let error = ended.stderr.lines().find(|line| line.starts_with("error[")).unwrap_or_default();
        assert!(error.contains(&named), "{case}: the layer is not named:\n{ended:#?}");
    }
    // What is loaded is packed, and comes to light when it is used.
    let loaded = place.kiln(LOAD);
    place.harmless(case, &loaded);
    let ran = place.kiln(RUN);
    place.harmless(case, &ran);
    assert_eq!(ran.status, Some(1), "{case}: {ran:#?}");
    assert!(says.iter().any(|said| ran.stderr.contains(said)), "{case}: none of {says:?} is said:\n{ran:#?}");
    let removed = place.kiln("rmi evil.example/evil:1");
    assert_eq!(removed.status, Some(0), "{case}: {removed:#?}");
}

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn names_and_links_that_lead_away() {
    if cannot("hostile_layers::names_and_links_that_lead_away", &[]) {
        return;
    }
    let place = Place::new();
    let outside = place.path("outside").display().to_string();
    let dots = "../".repeat(30);
    let cases: Vec<(&str, Tar, &[&str])> = vec![
        ("a name that climbs", tar().file(&format!("{dots}{outside}/new"), b"x"), &["leaves its root"]),
        ("a name that climbs later", tar().folder("a/").file("a/../../canary", b"x"), &["leaves its root"]),
        ("a folder that climbs", tar().folder("a/../../outside/new"), &["leaves its root"]),
        ("a link's target that climbs", tar().hard_link("l", "../../outside/file"), &["leaves its root"]),
        ("a hard link outside", tar().hard_link("l", &format!("{outside}/file")), &["not in the archive"]),
        (
            "a hard link through a link",
            tar().symlink("s", &outside).hard_link("l", "s/file"),
            &["not in the archive"],
        ),
        (
            "a hard link to what comes later",
            tar().hard_link("l", "f").file("f", b""),
            &["not in the archive"],
        ),
        ("a hard link to a folder", tar().folder("d/").hard_link("l", "d"), &["is a folder"]),
        ("a hard link to itself", tar().hard_link("l", "l"), &["not in the archive"]),
        ("a loop of links", tar().symlink("a", "b").symlink("b", "a").file("a/f", b""), &["loop"]),
        ("a file in a file", tar().file("f", b"").file("f/g", b""), &["no folder"]),
        ("a whiteout of nothing", tar().file(".wh.", b""), &["whiteout"]),
        ("a whiteout of the folder", tar().file("etc/.wh..", b""), &["whiteout"]),
        ("a whiteout of the folder above", tar().file("etc/.wh...", b""), &["whiteout"]),
        ("a whiteout above the root", tar().file("../.wh.outside", b""), &["leaves its root"]),
        ("an opaque folder above the root", tar().file("../.wh..wh..opq", b""), &["leaves its root"]),
        ("something in a whiteout", tar().file(".wh.etc/passwd", b"x"), &["whiteout"]),
        ("a root that is a link", tar().symlink("./", &outside), &["root is no folder"]),
        ("a whiteout as a device", tar().member(Header::new(b"etc", b'3', 0), b""), &["0:0"]),
        ("a name of 300 letters", tar().pax(&[("path", &[b'x'; 300])]).file("x", b""), &["longer than"]),
        (
            "a name of a megabyte",
            tar().pax(&[("path", &vec![b'x'; 900_000])]).file("x", b""),
            &["longer than"],
        ),
        ("a NUL in a name", tar().pax(&[("path", b"a\0b")]).file("x", b""), &["cannot be"]),
    ];
    for (case, tar, says) in cases {
        refused(&place, case, Layer::of(tar), says);
    }
}

#[test]
fn headers_that_lie() {
    if cannot("hostile_layers::headers_that_lie", &[]) {
        return;
    }
    let place = Place::new();
    let header =
        |flag: u8, at: usize, bytes: &[u8]| tar().member(Header::new(b"f", flag, 0).field(at, bytes), b"");
    let sparse = |real: &str| {
        let records: &[(&str, &[u8])] = &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", real.as_bytes()),
        ];
        tar().pax(records).member(Header::new(b"f", b'0', 512), &[&b"0\n"[..], &[0; 510]].concat())
    };
    let minus_one = [0xff; 12];
    let cases: Vec<(&str, Tar, &[&str])> = vec![
        ("a size below 0", header(b'0', 124, &minus_one), &["bad size"]),
        ("a size that is no number", header(b'0', 124, b"zzzzzzzzzzz\0"), &["bad size"]),
        (
            "a size of all there is",
            header(b'0', 124, &bomb::size(i64::MAX as u64)),
            &["more than", "larger than", "ends at"],
        ),
        ("a size above that", tar().pax(&[("size", b"99999999999999999999")]).file("f", b""), &["cannot be"]),
        ("an owner below 0", header(b'0', 108, &[0xff; 8]), &["bad uid", "uid"]),
        ("a size on a link", header(b'2', 124, b"00000001000\0"), &["ambiguous"]),
        ("a sparse file of 9 EB", sparse("9000000000000000000"), &["more than"]),
        ("a sparse file that is smaller than its parts", sparse("-5"), &["cannot be"]),
        ("an unknown kind", header(b'V', 100, b"0000644\0"), &["not supported"]),
        ("a long name of 4 GiB", tar().member(Header::new(b"L", b'L', 4 << 30), b""), &["is the limit"]),
        ("PAX records of 4 GiB", tar().member(Header::new(b"x", b'x', 4 << 30), b""), &["is the limit"]),
        (
            "global PAX records of 4 GiB",
            tar().member(Header::new(b"g", b'g', 4 << 30), b""),
            &["is the limit"],
        ),
        (
            "an attribute of a megabyte",
            tar().pax(&[("SCHILY.xattr.user.x", &vec![b'x'; 1 << 20])]).file("f", b""),
            &["is the limit"],
        ),
        ("an attribute without a name", tar().pax(&[("SCHILY.xattr.", b"x")]).file("f", b""), &["cannot be"]),
        ("PAX records that are none", tar().member(Header::new(b"x", b'x', 4), b"9 a="), &["malformed"]),
    ];
    for (case, tar, says) in cases {
        refused(&place, case, Layer::of(tar), says);
    }
    let broken = |bytes: Vec<u8>| Layer::packed(bytes.clone(), &digest(&bytes));
    let half = gzip(&tar().file("f", &[7; 4096]).end());
    for (case, layer, says) in [
        ("no archive", broken(gzip(&[b'x'; 2048])), &["checksum"][..]),
        ("half an archive", broken(half[..half.len() / 2].to_vec()), &["incomplete deflate stream"]),
        ("gzip in gzip", broken(gzip(&gzip(&tar().file("f", b"").end()))), &["checksum", "ends at"]),
        ("a cut file", broken(tar().member(Header::new(b"f", b'0', 4096), b"x").cut()), &["ends at"]),
    ] {
        refused(&place, case, layer, says);
    }
}

#[test]
fn bombs() {
    if cannot("hostile_layers::bombs", &["program:zstd"]) {
        return;
    }
    let mut place = Place::new();
    let layer = |bomb: Bomb| Layer::packed(bomb.blob, &bomb.diff_id.to_string());
    // Some 100 KB of gzip that are 100 MiB of zeros.
    place.env = vec![("KILN_LIMITS", "layer-expansion-from=60m".to_owned())];
    place.serve(&Content::of(vec![Layer::honest(), layer(bomb::zeros(100, gzip))]));
    place.refuses("100 MiB of one byte", PULL, &["layer-expansion"]);
    place.env = vec![("KILN_LIMITS", "layer-entries=20000".to_owned())];
    refused(&place, "30,000 entries", layer(bomb::entries(30)), &["more than 20000 entries"]);
    place.env = vec![("KILN_LIMITS", "layer-size=10m".to_owned())];
    refused(&place, "100 MiB in gzip", layer(bomb::zeros(100, gzip)), &["more than 10485760 bytes"]);
    refused(&place, "100 MiB in zstd", layer(bomb::zeros(100, bomb::zstd)), &["more than 10485760 bytes"]);
    // What a limit does not forbid is unpacked.
    place.env = vec![("KILN_LIMITS", "layer-size=20m".to_owned())];
    place.serve(&Content::of(vec![layer(bomb::zeros(11, gzip))]));
    let ended = place.kiln(BUILD);
    place.harmless("11 MiB", &ended);
    assert!(ended.stderr.contains("no such file"), "{ended:#?}");
}

#[test]
fn a_disk_that_is_nearly_full_is_not_filled() {
    const NAME: &str = "hostile_layers::a_disk_that_is_nearly_full_is_not_filled";
    if cannot(NAME, &["program:mount", "root: it mounts a small disk"]) {
        return;
    }
    let mut place = Place::new();
    let root = place.path("root");
    fs::create_dir(&root).expect("its parent is there");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=200m", "tmpfs"])
        .arg(&root)
        .output();
    if !mount.as_ref().is_ok_and(|mounted| mounted.status.success()) {
        machine::skip(NAME, &format!("no tmpfs can be mounted: {mount:?}"));
        return;
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            // The test has ended; a mount that stays is seen by the next one.
            let _ = std::process::Command::new("umount").arg(self.0).status();
        }
    }
    let mounted = Mounted(&root);
    let bomb = bomb::zeros(400, gzip);
    place.serve(&Content::of(vec![Layer::packed(bomb.blob, &bomb.diff_id.to_string())]));
    place.refuses("a full disk", BUILD, &["are kept free"]);
    // As much as was kept free can be left to nobody.
    place.env = vec![("KILN_LIMITS", "free-space=0".to_owned())];
    place.refuses("a full disk, with all of it allowed", BUILD, &["No space left"]);
    drop(mounted);
}

/// Where the folder of a layer is that holds a file of this name.
fn folder_with(place: &Path, name: &str) -> std::path::PathBuf {
    let mut folders = vec![place.join("root")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder").map(|entry| entry.expect("read")) {
            if entry.file_name().as_encoded_bytes() == name.as_bytes() {
                return folder;
            }
            if entry.file_type().expect("it is known").is_dir() {
                folders.push(entry.path());
            }
        }
    }
    panic!("no layer holds {name}");
}

#[test]
fn what_is_strange_and_no_harm_is_kept() {
    if cannot("hostile_layers::what_is_strange_and_no_harm_is_kept", &[]) {
        return;
    }
    let place = Place::new();
    let outside = place.path("outside").display().to_string();
    let strange = tar()
        .folder("marker-of-this-layer/")
        // Writes where the link points to, inside the root.
        .symlink("out", &outside)
        .file("out/through-a-link", b"inside")
        .file(&format!("{outside}/absolute"), b"inside")
        .member(
            Header::new(b"zero", b'3', 0).mode(0o666).field(329, b"0000001\0").field(337, b"0000005\0"),
            b"",
        )
        .member(
            Header::new(b"disk", b'4', 0).mode(0o666).field(329, b"0000010\0").field(337, b"0000000\0"),
            b"",
        )
        .member(Header::new(b"pipe", b'6', 0), b"")
        .member(Header::new(b"set-id", b'0', 2).mode(0o6755), b"#!")
        .member(Header::new(b"bytes-\xff\xfe", b'0', 0), b"")
        .member(Header::new(b"new\nline\x1b[2J", b'0', 0), b"")
        .member(Header::new(b"old", b'0', 0).field(136, &[0xff; 12]), b"")
        .member(Header::new(b"future", b'0', 0).field(136, &bomb::size(1 << 60)), b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.kept", b"1")])
        .folder("etc/")
        .file(".wh..wh..opq", b"")
        .file(".wh..wh.aufs", b"")
        .file(".wh.gone", b"");
    place.serve(&Content::of(vec![Layer::honest(), Layer::of(strange)]));
    let ended = place.kiln(BUILD);
    place.harmless("strange things", &ended);
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("no such file"), "all is unpacked, and /x is not in it: {ended:#?}");
    let folder = folder_with(&place.path(""), "marker-of-this-layer");
    let metadata = |name: &str| fs::symlink_metadata(folder.join(name)).expect(name);
    let inside = folder.join(outside.trim_start_matches('/'));
    for name in ["through-a-link", "absolute"] {
        assert_eq!(fs::read(inside.join(name)).expect(name), b"inside");
    }
    let [zero, disk] = ["zero", "disk"].map(|name| metadata(name).file_type());
    // A user has none, and empty files stand for them.
    let are_files = zero.is_file() && disk.is_file();
    assert!(if machine::is_user() { are_files } else { zero.is_char_device() && disk.is_block_device() });
    assert!(metadata("pipe").file_type().is_fifo());
    // The state folder is closed to everybody else, so that nobody can use what is kept in it.
    assert_eq!(metadata("set-id").mode() & 0o7777, 0o6755);
    assert_eq!(fs::metadata(place.path("root")).expect("it is there").mode() & 0o077, 0);
    assert_eq!(metadata("old").mtime(), -1);
    let listed = place.kiln("images -q");
    assert_eq!(listed.stdout, "", "{listed:#?}");
}

/// An archive as `docker save` wrote it before version 25, with the names that its `manifest.json` gives.
fn saved(config_name: &str, layer_name: &str, layer: &[u8]) -> Vec<u8> {
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    });
    let manifest = serde_json::json!([
        {"Config": config_name, "RepoTags": ["evil.example/evil:1"], "Layers": [layer_name]}
    ]);
    tar()
        .file("config.json", config.to_string().as_bytes())
        .file("layer.tar", layer)
        .symlink("link.tar", "/etc/passwd")
        .symlink("climbs.tar", "../../../../../../etc/passwd")
        .file("manifest.json", manifest.to_string().as_bytes())
        .end()
}

#[test]
fn archives_of_docker_that_mean_harm() {
    if cannot("hostile_layers::archives_of_docker_that_mean_harm", &[]) {
        return;
    }
    const LOAD_FILE: &str = "load -i PLACE/work";
    let mut place = Place::new();
    let layer = tar().file("f", b"x").end();
    let outside = place.path("outside/file").display().to_string();
    for (case, config, of_layer, says) in [
        ("a config elsewhere", outside.as_str(), "layer.tar", &["no file", "cannot be read"][..]),
        ("a config that climbs", "../canary", "layer.tar", &["no file"]),
        ("a layer elsewhere", "config.json", outside.as_str(), &["not found"]),
        ("a layer that climbs", "config.json", "../canary", &["not found"]),
        ("a layer that links away", "config.json", "link.tar", &["not found"]),
        ("a layer that links above", "config.json", "climbs.tar", &["not found"]),
        ("a layer that is the config", "config.json", "config.json", &["expected content"]),
    ] {
        fs::write(place.path("work"), saved(config, of_layer, &layer)).expect("written");
        place.refuses(case, LOAD_FILE, says);
    }
    let many = bomb::entries(101);
    fs::write(place.path("work"), many.blob).expect("written");
    place.refuses("very many members", LOAD_FILE, &["more than 100000 members"]);
    // A bomb around the archive, and one in it.
    let zeros = bomb::zeros(100, gzip);
    place.env = vec![("KILN_LIMITS", "layer-expansion-from=60m".to_owned())];
    fs::write(place.path("work"), &zeros.blob).expect("written");
    place.refuses("100 MiB around", LOAD_FILE, &["layer-expansion"]);
    fs::write(place.path("work"), saved("config.json", "layer.tar", &zeros.blob)).expect("written");
    place.refuses("100 MiB inside", LOAD_FILE, &["layer-expansion"]);
    fs::write(place.path("work"), saved("config.json", "layer.tar", &layer)).expect("written");
    assert_eq!(place.kiln(LOAD_FILE).status, Some(0));
}

#[test]
fn a_layer_that_stands_more_often_than_there_are_threads() {
    if cannot("hostile_layers::a_layer_that_stands_more_often_than_there_are_threads", &[]) {
        return;
    }
    let place = Place::new();
    let content = Content::of(vec![Layer::honest(); 600]);
    let layer = content.json("1")["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    place.registry.answer_with(move |asked| {
        // So long that all who want it wait.
        if asked.target.ends_with(&layer) {
            thread::sleep(Duration::from_secs(1));
        }
        content.answer(asked)
    });
    let pulled = place.kiln(PULL);
    place.harmless("one layer 600 times", &pulled);
    assert_eq!(pulled.status, Some(0), "{pulled:#?}");
    assert_eq!(pulled.stderr.matches("extracting").count(), 2, "it is unpacked once: {pulled:#?}");
}

#[test]
fn a_layer_that_is_here_is_refused_as_it_is_where_it_is_not() {
    if cannot("hostile_layers::a_layer_that_is_here_is_refused_as_it_is_where_it_is_not", &[]) {
        return;
    }
    let place = Place::new();
    place.serve(&Content::of(vec![Layer::honest()]));
    for words in [PULL, "rmi IMAGE"] {
        let done = place.kiln(words);
        assert_eq!(done.status, Some(0), "{done:#?}");
    }
    let mut other = Layer::honest();
    other.diff_id = digest(b"another tar");
    place.serve(&Content::of(vec![other]));
    for words in [PULL, BUILD] {
        place.refuses("another diff id", words, &["expected content"]);
    }
    let mut longer = Layer::honest();
    longer.descriptor["size"] = 5000.into();
    place.serve(&Content::of(vec![longer]));
    for words in [PULL, "pull --progress plain --no-unpack IMAGE", BUILD] {
        place.refuses("another size", words, &["its descriptor says 5000"]);
    }
}

#[test]
fn what_two_images_of_a_build_share_is_unpacked_once() {
    if cannot("hostile_layers::what_two_images_of_a_build_share_is_unpacked_once", &[]) {
        return;
    }
    let place = Place::new();
    let (first, late) = (Layer::honest(), Layer::of(tar().folder("late/").file("late/file", b"came\n")));
    let named = late.descriptor["digest"].as_str().expect("a digest").to_owned();
    // Each has for its last what the other has for its first: nobody may wait for what the other has settled.
    let mut content = Content::of(vec![late.clone(), first.clone()]);
    let other = Content::of(vec![first, late]);
    content.tags.insert("2".to_owned(), other.tags["1"].clone());
    content.blobs.extend(other.blobs);
    place.registry.answer_with(move |asked| {
        if asked.target.ends_with(&named) {
            thread::sleep(Duration::from_secs(1));
        }
        content.answer(asked)
    });
    let host = place.registry.host();
    fs::create_dir(place.path("work")).expect("its parent is there");
    let dockerfile =
        format!("FROM {host}/evil:1 AS one\nFROM {host}/evil:2\nCOPY --from=one /late/file /copied\n");
    fs::write(place.path("work/Dockerfile"), dockerfile).expect("written");
    let built = place.kiln("build --progress plain PLACE/work");
    place.harmless("two images of the same layers", &built);
    assert_eq!(built.status, Some(0), "{built:#?}");
    let unpacked = built.stderr.lines().filter(|line| line.contains("extracting") && line.ends_with("done"));
    assert_eq!(unpacked.count(), 2, "{built:#?}");
}

#[test]
fn many_layers_need_few_files() {
    if cannot("hostile_layers::many_layers_need_few_files", &[]) {
        return;
    }
    let place = Place::new();
    let layers = (0..150).map(|at| Layer::of(tar().file(&format!("file-{at}"), b"one of many\n")));
    let content = Content::of(layers.collect());
    place.serve(&content);
    content.write_layout(&place.path("layout")).expect("a layout");
    let context = place.path("context");
    fs::write(place.path("work"), "FROM evil\nCOPY file /file\n").expect("written");
    let named = format!("evil=oci-layout://{}:1", place.path("layout").display());
    for (at, words) in [
        &["pull", "--no-unpack", &place.image()][..],
        &["pull", &place.image()],
        &["build", "--build-context", &named, "-f", "-", &context.display().to_string()],
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 256; exec \"$@\"", "sh"]).arg(program()).arg("--root");
        command.arg(place.path(&format!("root-{at}"))).args(words);
        let stdin = fs::File::open(place.path("work")).expect("just written");
        let done = command.stdin(stdin).output().expect("there is a shell");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
