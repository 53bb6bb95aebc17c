//! What BuildKit makes of `COPY` and `ADD`, case by case: names are those of its conformance cases.

use std::{collections::BTreeMap, sync::Arc};

use ::tree::{Kind, Layer, LayerPath, Mtime, Node, Stack, glob::Pattern};
use oci::Digest;

mod any;

use super::*;

const BUILD: Mtime = Mtime { seconds: 9, nanoseconds: 0 };

fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).expect("a path")
}

/// A layer from words: `d/` a folder, `f` a file, `f=x` one that holds `x`, `l->t` a link, `!p` a whiteout,
/// `a~f` another name of the file `f`, `|p` a pipe; each may end in `:mode`, then `@uid:gid`, then `+mtime`.
fn layer(words: &str) -> Layer {
    let mut layer = Layer::default();
    let mut groups: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
    for word in words.split_whitespace() {
        let (word, mtime) = word.split_once('+').unwrap_or((word, "0"));
        let (word, owner) = word.split_once('@').unwrap_or((word, "0:0"));
        let (word, mode) = word.split_once(':').map_or((word, None), |(word, mode)| (word, Some(mode)));
        let (name, mut node) = if let Some(name) = word.strip_prefix('!') {
            (name, Node::whiteout())
        } else if let Some(name) = word.strip_prefix('|') {
            (name, Node::new(Kind::Fifo, 0o644))
        } else if let Some(name) = word.strip_suffix('/') {
            (name, Node::directory(0o755))
        } else if let Some((name, target)) = word.split_once("->") {
            (name, Node::new(Kind::Symlink { target: target.into() }, 0o777))
        } else if let Some((name, first)) = word.split_once('~') {
            groups.entry(path(first)).or_insert_with(|| vec![path(first)]).push(path(name));
            (name, layer.get(&path(first)).expect("named before").clone())
        } else {
            let (name, text) = word.split_once('=').unwrap_or((word, word));
            let kind = Kind::File { size: text.len() as u64, content: Digest::of(text.as_bytes()) };
            (name, Node::new(kind, 0o644))
        };
        if let Some(mode) = mode {
            node.mode = u32::from_str_radix(mode, 8).expect("octal");
        }
        let (uid, gid) = owner.split_once(':').expect("two ids");
        if owner != "0:0" {
            (node.uid, node.gid) = (uid.parse().expect("an id"), gid.parse().expect("an id"));
        }
        node.mtime.seconds = mtime.parse().expect("seconds");
        layer.entries.insert(path(name), node);
    }
    layer.link(groups.into_values());
    layer
}

/// Where the bytes of each file of a plan are.
fn told(plan: &Plan) -> BTreeMap<LayerPath, ContentSource> {
    let is_first = |node: &Node| matches!(node.kind, Kind::File { .. }) && node.hardlink.is_none();
    let files = plan.layer.entries.iter().filter(|(_, node)| is_first(node));
    files.map(|(path, _)| (path.clone(), plan.contents.get(path).expect("bytes"))).collect()
}

fn stack(words: &str) -> Stack {
    if words.is_empty() { Stack::default() } else { Stack::new(vec![Arc::new(layer(words))]) }
}

/// A layer as the conformance references write it, with what is not the default.
fn shown(layer: &Layer) -> Vec<String> {
    let one = |(path, node): (&LayerPath, &Node)| {
        let (kind, usual) = match &node.kind {
            _ if node.hardlink.is_some() => ("hardlink", 0o644),
            Kind::Directory { opaque: false } => ("dir", 0o755),
            Kind::Directory { opaque: true } => ("opaque", 0o755),
            Kind::File { .. } => ("file", 0o644),
            Kind::Symlink { .. } => ("symlink", 0o777),
            Kind::Fifo => ("fifo", 0o644),
            Kind::Whiteout => ("whiteout", 0),
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => ("device", 0o644),
        };
        let mut text = format!("{kind} {}", &path.to_string()[1..]);
        if node.mode != usual {
            text += &format!(" {:o}", node.mode);
        }
        if (node.uid, node.gid) != (0, 0) {
            text += &format!(" {}:{}", node.uid, node.gid);
        }
        text
    };
    layer.entries.iter().map(one).collect()
}

fn spec<'a>(words: &str) -> CopySpec<'a> {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    let destination = words.pop().expect("a destination");
    CopySpec {
        sources: words.into_iter().map(|word| Source::new(word.as_bytes())).collect(),
        destination: Destination::parse(destination.as_bytes()).expect("a path"),
        chown: None,
        chmod: None,
        exclude: None,
        created: BUILD,
        timestamp: None,
        contents_only: true,
        create_destination: true,
        replace: false,
        archives: BTreeMap::new(),
    }
}

/// One `COPY`: the destination, the source, the sources' and destination's text.
fn copy(destination: &str, source: &str, words: &str) -> Result<Vec<String>, CopyError> {
    Ok(shown(&plan(&stack(destination), &stack(source), &spec(words))?.layer))
}

fn check(destination: &str, source: &str, words: &str, expected: &[&str]) {
    assert_eq!(copy(destination, source, words).expect(words), expected, "COPY {words}");
}

#[test]
fn destinations_have_forms() {
    // copy-file-dest-forms
    check("isdir/", "f", "f /isdir", &["dir isdir", "file isdir/f"]);
    check("", "f", "f /newfile", &["file newfile"]);
    check("", "f", "f /newdir/", &["dir newdir", "file newdir/f"]);
    check("", "f", "f /deep/er/name", &["dir deep", "dir deep/er", "file deep/er/name"]);
    check("", "f", "f /", &["file f"]);
    check("w/", "f", "f /w/.", &["dir w", "file w/f"]);
    check("w/", "f", "f /w/../up", &["file up"]);
    check("", "f", "../f /a", &["file a"]);
    check("", "f d/ d/x", "d/../f /c", &["file c"]);
    // copy-multi-src-no-slash, copy-glob-multi-no-slash, copy-glob-single-no-slash: the last one wins
    let plan = plan(&stack(""), &stack("a b"), &spec("a b /d")).expect("planned");
    assert_eq!(shown(&plan.layer), ["file d"]);
    let from = ContentSource::File { input: 0, layer: 0, path: path("b") };
    assert_eq!(plan.contents, [(path("d"), from)].into_iter().collect());
    check("", "a.t b.t", "*.t /d", &["file d"]);
    check("", "a.t b", "*.t /d", &["file d"]);
    check("", "a", "*.t /d", &[]);
    // from-glob, add-dir-and-file, from-scratch-stage
    let source = "d/ d/a1 d/a2 d/b1 d/a3/ d/a3/x";
    check("", source, "/d/a* /o/", &["dir o", "file o/a1", "file o/a2", "file o/x"]);
    check("", "d/ d/g f", "f d /e/", &["dir e", "file e/f", "file e/g"]);
    check("", "f", "/ /all/", &["dir all", "file all/f"]);
    // copy-spaces-json: names are bytes
    check("", "sp/ sp/x", "sp /y", &["dir y", "file y/x"]);
}

#[test]
fn folders_merge() {
    // copy-dir-merge-modes: the folder itself has 0755 when made, nested ones follow the source
    let first =
        plan(&stack(""), &stack("d1/:711 d1/sub/:700 d1/sub/a:600"), &spec("d1 /d")).expect("planned");
    assert_eq!(shown(&first.layer), ["dir d", "dir d/sub 700", "file d/sub/a 600"]);
    let below = Stack::new(vec![Arc::new(first.layer)]);
    let source = stack("d2/:775+4 d2/sub/+5 d2/sub/b:640+6");
    let second = plan(&below, &source, &spec("d2 /d")).expect("planned");
    assert_eq!(shown(&second.layer), ["dir d", "dir d/sub", "file d/sub/b 640"]);
    // The top folder takes the source's time, and so does all below it.
    let times = second.layer.entries.values().map(|node| node.mtime.seconds);
    assert_eq!(times.collect::<Vec<i64>>(), [4, 5, 6]);
    // Folders that had to be made have the build's time, as has none that was there.
    let made = plan(&stack("was/+3"), &stack("f+2"), &spec("f /was/new/f")).expect("planned");
    let times = made.layer.entries.values().map(|node| node.mtime.seconds);
    assert_eq!(times.collect::<Vec<i64>>(), [3, 9, 2]);
}

#[test]
fn some_things_cannot_be_copied() {
    let fails = |destination, source, words| copy(destination, source, words).expect_err(words);
    // copy-over-file-with-dir, copy-file-onto-file-as-dir, copy-dangling-symlink, ignore-copy-ignored-fails
    assert_eq!(fails("target", "d/ d/f", "d /target"), CopyError::FolderOverFile { path: path("target") });
    assert_eq!(fails("target", "f", "f /target/"), CopyError::NotAFolder { path: path("target") });
    assert_eq!(fails("a", "f", "f /a/b/c"), CopyError::NotAFolder { path: path("a") });
    assert_eq!(
        fails("", "lndang->nowhere", "lndang /g"),
        CopyError::SourceNotFound { source_text: "lndang".into(), path: path("nowhere") }
    );
    assert_eq!(
        fails("", "x", "no/where /g"),
        CopyError::SourceNotFound { source_text: "no/where".into(), path: path("no/where") }
    );
    assert_eq!(
        fails("", "x", "no/* /g"),
        CopyError::SourceNotFound { source_text: "no/*".into(), path: path("no") }
    );
    assert_eq!(fails("d/ d/f/", "d/ d/f", "d /d"), CopyError::FileOverFolder { path: path("d/f") });
    assert!(matches!(fails("l->l", "f", "f /l/x"), CopyError::Resolve(_)));
    for bad in ["[a-", "x[", "a\\[/[]"] {
        let words = format!("{bad} /g");
        assert!(matches!(copy("", "x", &words), Err(CopyError::Pattern(_))), "{bad}");
    }
    let mut one = spec("a* /x");
    one.sources[0].allow_no_match = false;
    let missing = plan(&stack(""), &stack("b"), &one).expect_err("no match");
    assert_eq!(missing, CopyError::NoMatch { source_text: "a*".into() });
}

#[test]
fn links_are_followed_at_the_top_only() {
    // copy-symlinks
    let source = "real rdir/ rdir/in lnfile->real lndir->rdir lnabs->/real \
                  tree/ tree/lnup->../real tree/lnup2->../rdir tree/lnabs->/etc/passwd tree/lndangling->nowhere";
    check("", source, "lnfile /asfile", &["file asfile"]);
    check("", source, "lndir /asdir", &["dir asdir", "file asdir/in"]);
    check("", source, "lnfile lnabs /into/", &["dir into", "file into/lnabs", "file into/lnfile"]);
    let tree = [
        "dir tree",
        "symlink tree/lnabs",
        "symlink tree/lndangling",
        "symlink tree/lnup",
        "symlink tree/lnup2",
    ];
    check("", source, "tree /tree", &tree);
    check("", source, "tree/lnu* /globbed/", &["dir globbed", "file globbed/in", "file globbed/lnup"]);
    // copy-through-symlink-dest
    let destination = "real/ lnk->/real rellnk->real dangling->/nowhere";
    check(destination, "f", "f /lnk/", &["dir real", "file real/f"]);
    check(destination, "f", "f /rellnk/f2", &["dir real", "file real/f2"]);
    check(destination, "d/ d/g", "d /lnk", &["dir real", "file real/g"]);
    check(destination, "f", "f /dangling/x", &["dir nowhere", "file nowhere/x"]);
    check(destination, "f", "f /dangling", &["file nowhere"]);
    // A link inside the destination folder is replaced, not followed.
    check("d/ d/f->/etc/x etc/", "f", "f /d/", &["dir d", "file d/f"]);
    // copy-link-over-symlink-dir: --link plans on nothing
    check("", "f", "f /lnk/", &["dir lnk", "file lnk/f"]);
}

#[test]
fn hard_links_are_kept_within_one_source() {
    // copy-hardlinks-in-context
    let source = "d/ d/a d/b~d/a d/s/ d/s/c~d/a";
    let one = plan(&stack(""), &stack(source), &spec("d /d")).expect("planned");
    assert_eq!(shown(&one.layer), ["dir d", "file d/a", "hardlink d/b", "dir d/s", "hardlink d/s/c"]);
    assert_eq!(told(&one).into_keys().collect::<Vec<_>>(), [path("d/a")]);
    check("", source, "d/a d/b /e/", &["dir e", "file e/a", "file e/b"]);
    // A first name that something else replaces is no first name any more.
    let planned = plan(&stack(""), &stack("d/ d/a d/b~d/a d/c~d/a x"), &spec("d /d")).expect("planned");
    assert_eq!(planned.layer.get(&path("d/c")).and_then(|node| node.hardlink.clone()), Some(path("d/a")));
    let below = stack("d/ d/a d/b~d/a d/c~d/a n/ n/a=n");
    let mut planner = Planner::new(&below);
    let input = Input { stack: &below, index: 0, planned: None };
    planner.copy(&input, &spec("d n /z")).expect("planned");
    let done = planner.finish();
    assert_eq!(shown(&done.layer), ["dir z", "file z/a", "file z/b", "hardlink z/c"]);
    assert_eq!(done.layer.get(&path("z/c")).and_then(|node| node.hardlink.clone()), Some(path("z/b")));
    // copy-link-from-stage: links across folders, owners kept
    let stage = "o/@5:6 o/p/@5:6 o/p/q@5:6 o/ln->p@5:6 o/hard~o/p/q";
    let expected = ["dir z", "file z/hard 5:6", "symlink z/ln 5:6", "dir z/p 5:6", "hardlink z/p/q 5:6"];
    check("", stage, "/o /z", &expected);
    check("", stage, "/o/ln /y/", &["dir y", "file y/q 5:6"]);
}

#[test]
fn parents_are_kept_when_asked() {
    let parents = |source: &str, words: &str, exclude: Option<&dyn Fn(&LayerPath) -> bool>| {
        let mut spec = spec(words);
        for source in &mut spec.sources {
            *source = Source::with_parents(&source.path).expect("a pattern");
        }
        let spec = CopySpec { exclude, ..spec };
        plan(&stack(""), &stack(source), &spec).map(|plan| shown(&plan.layer))
    };
    // copy-parents
    let source = "a/ a/b/ a/b/c.txt a/b2/ a/b2/c.txt a/b2/n.txt a/top x/ x/y/ x/y/z.txt";
    assert_eq!(
        parents(source, "a/b/c.txt x/./y/z.txt /out/", None).expect("planned"),
        ["dir out", "dir out/a", "dir out/a/b", "file out/a/b/c.txt", "dir out/y", "file out/y/z.txt"]
    );
    assert_eq!(
        parents(source, "./a/** /star/", None).expect("planned"),
        [
            "dir star",
            "dir star/a",
            "dir star/a/b",
            "file star/a/b/c.txt",
            "dir star/a/b2",
            "file star/a/b2/c.txt",
            "file star/a/b2/n.txt",
            "file star/a/top"
        ]
    );
    assert_eq!(
        parents(source, "a/*/c.txt /g/", None).expect("planned"),
        ["dir g", "dir g/a", "dir g/a/b", "file g/a/b/c.txt", "dir g/a/b2", "file g/a/b2/c.txt"]
    );
    assert_eq!(
        parents(source, "x /w/.", None).expect("planned"),
        ["dir w", "dir w/x", "dir w/x/y", "file w/x/y/z.txt"]
    );
    assert!(parents(source, "a/no /w/", None).is_err());
    assert_eq!(parents(source, "a/no* /w/", None).expect("planned"), ["dir w"]);
    // copy-parents-exclude
    let source = "pkgs/ pkgs/a/ pkgs/a/x pkgs/a/node_modules/ pkgs/a/node_modules/y pkgs/b/ pkgs/b/s/ pkgs/b/s/z.tmp pkgs/b/s/z";
    let patterns = ["**/node_modules", "pkgs/b/**/*.tmp"]
        .map(|text| Pattern::parse(text.as_bytes()).expect("a pattern"));
    let exclude = |path: &LayerPath| patterns.iter().any(|pattern| pattern.matches(path.as_bytes()));
    assert_eq!(
        parents(source, "pkgs/*/ /w/", Some(&exclude)).expect("planned"),
        [
            "dir w",
            "dir w/pkgs",
            "dir w/pkgs/a",
            "file w/pkgs/a/x",
            "dir w/pkgs/b",
            "dir w/pkgs/b/s",
            "file w/pkgs/b/s/z"
        ]
    );
}

#[test]
fn exclusions_can_be_taken_back_below() {
    let exclude = |path: &LayerPath| path.as_bytes().starts_with(b"skip") && path.name() != b"keep";
    let mut spec = spec("/ /c/");
    spec.exclude = Some(&exclude);
    let source = stack("skip/:700 skip/a skip/keep skip2/ skip2/b x");
    let planned = plan(&stack(""), &source, &spec).expect("planned");
    assert_eq!(shown(&planned.layer), ["dir c", "dir c/skip 700", "file c/skip/keep", "file c/x"]);
    // A source that is a file is not below itself.
    let mut spec = super::tests::spec("skip /c/");
    spec.exclude = Some(&exclude);
    let planned = plan(&stack(""), &stack("skip"), &spec).expect("planned");
    assert_eq!(shown(&planned.layer), ["dir c", "file c/skip"]);
}

#[test]
fn owners_and_modes_are_set() {
    // copy-link-dest-forms, copy-chown-created-passwd
    let mut one = spec("f /new/dir/");
    one.chown = Some((11, 12));
    let planned = plan(&stack(""), &stack("f@5:5"), &one).expect("planned");
    assert_eq!(shown(&planned.layer), ["dir new 11:12", "dir new/dir 11:12", "file new/dir/f 11:12"]);
    let chmod = |destination: &str, source: &str, words: &str, chmod: Chmod<'_>| {
        let spec = CopySpec { chmod: Some(chmod), ..spec(words) };
        shown(&plan(&stack(destination), &stack(source), &spec).expect(words).layer)
    };
    let tree = "d/ d/g d/s/ d/s/h d/l->g";
    assert_eq!(
        chmod("", tree, "d /dd", Chmod::Octal(0o710)),
        ["dir dd 710", "file dd/g 710", "symlink dd/l", "dir dd/s 710", "file dd/s/h 710"]
    );
    assert_eq!(
        chmod("", tree, "d /p/dd", Chmod::Octal(0o1777))[..4],
        ["dir p 777", "dir p/dd 777", "file p/dd/g 1777", "symlink p/dd/l"]
    );
    assert_eq!(chmod("", "f", "f /new/f", Chmod::Octal(0o640)), ["dir new 640", "file new/f 640"]);
    assert_eq!(chmod("was/", "f", "f /was/f", Chmod::Octal(0o600)), ["dir was", "file was/f 600"]);
    let words = |mode: u32, is_folder: bool| if is_folder { 0o750 } else { mode | 0o111 };
    assert_eq!(
        chmod("", "d/ d/g:640 d/s/", "d /dd", Chmod::Symbolic(&words)),
        ["dir dd", "file dd/g 751", "dir dd/s 750"]
    );
    // run-xattr-copy-between-stages
    let mut source = layer("d/ d/cap");
    let cap = source.entries.get_mut(&path("d/cap")).expect("there");
    cap.xattrs.insert(b"security.capability".to_vec(), vec![1]);
    cap.xattrs.insert(b"user.u".to_vec(), vec![2]);
    let mut one = spec("/d/cap /owned");
    one.chown = Some((1, 1));
    let planned = plan(&stack(""), &Stack::new(vec![Arc::new(source)]), &one).expect("planned");
    let owned = planned.layer.get(&path("owned")).expect("copied");
    assert_eq!(owned.xattrs.keys().collect::<Vec<_>>(), [&b"security.capability".to_vec()]);
    assert_eq!((owned.uid, owned.gid), (1, 1));
}

#[test]
fn other_kinds_are_copied_too() {
    let mut source = layer("d/ d/f |d/fifo:640");
    source.entries.insert(path("d/null"), Node::new(Kind::CharDevice { major: 1, minor: 3 }, 0o644));
    let planned = plan(&stack(""), &Stack::new(vec![Arc::new(source)]), &spec("d /d")).expect("planned");
    assert_eq!(shown(&planned.layer), ["dir d", "file d/f", "fifo d/fifo 640", "device d/null"]);
}

fn unpack(destination: &str, archive: &str, words: &str, chown: Option<(u32, u32)>) -> Vec<String> {
    let archive = layer(archive);
    let mut spec = spec(words);
    spec.chown = chown;
    spec.chmod = Some(Chmod::Octal(0o700));
    spec.archives.insert(path("a.tar"), Archive { layer: &archive, index: 1 });
    shown(&plan(&stack(destination), &stack("a.tar b.tar f"), &spec).expect(words).layer)
}

#[test]
fn archives_are_unpacked() {
    // add-tar-variants, add-tar-chown-chmod: --chown counts, --chmod does not
    let archive = "dir/ dir/f:4750@101:102 dir/ln->f dir/hard~dir/f |dir/fifo dir/sub/";
    assert_eq!(
        unpack("", archive, "a.tar /m/", None),
        [
            "dir m",
            "dir m/dir",
            "file m/dir/f 4750 101:102",
            "fifo m/dir/fifo",
            "hardlink m/dir/hard 4750 101:102",
            "symlink m/dir/ln",
            "dir m/dir/sub"
        ]
    );
    let owned = unpack("", archive, "a.tar /c", Some((33, 8)));
    assert!(owned.iter().all(|line| line.ends_with(" 33:8")), "{owned:?}");
    // add-glob-tars: what is no archive is copied, and gets the mode
    assert_eq!(
        unpack("", "d1/ d1/f", "*.tar f /o/", None),
        ["dir o", "file o/b.tar 700", "dir o/d1", "file o/d1/f", "file o/f 700"]
    );
}

#[test]
fn an_archive_replaces_what_is_in_its_place() {
    // add-tar-over-existing
    let destination =
        "elsewhere/ o/ o/dir/ o/dir/f=old o/link->/elsewhere o/wasdir/ o/wasdir/x/ o/wasfile=file";
    let archive = "dir/ dir/f=new link/ link/z=through wasfile/ wasfile/in wasdir=nowfile";
    let expected = [
        "dir o",
        "dir o/dir",
        "file o/dir/f",
        "dir o/link",
        "file o/link/z",
        "file o/wasdir",
        "dir o/wasfile",
        "file o/wasfile/in",
    ];
    assert_eq!(unpack(destination, archive, "a.tar /o/", None), expected);
    // A folder that is only implied is looked for through links, with the destination as the root.
    let destination = "o/ o/lib->usr/lib o/usr/ o/usr/lib/ o/abs->/usr/lib o/up->../../usr/lib usr/ usr/lib/";
    for link in ["lib", "abs", "up"] {
        let archive = format!("{link}/x");
        let expected = ["dir o", "dir o/usr", "dir o/usr/lib", "file o/usr/lib/x"];
        assert_eq!(unpack(destination, &archive, "a.tar /o", None), expected, "{link}");
    }
    // add-tar-whiteout-names
    let destination = "x/ x/gone x/op/ x/op/kept";
    let archive = "op/ op/.wh..wh..opq .wh.gone normal";
    assert_eq!(
        unpack(destination, archive, "a.tar /x/", None),
        ["dir x", "whiteout x/gone", "file x/normal", "opaque x/op"]
    );
    assert_eq!(
        unpack(destination, "!gone normal", "a.tar /x/", None),
        ["dir x", "whiteout x/gone", "file x/normal"]
    );
}

fn mkdir(text: &str, owner: Option<(u32, u32)>) -> Mkdir {
    Mkdir { path: path(text), mode: 0o755, owner, make_parents: true, created: BUILD }
}

#[test]
fn actions_see_those_before_them() {
    // workdir-owner-mode, workdir-existing-and-symlink
    let base = stack("real/:700 ln->/real dang->/gone");
    let mut planner = Planner::new(&base);
    planner.mkdir(&mkdir("w/x", Some((65534, 65534)))).expect("made");
    planner.mkdir(&mkdir("ln/sub", None)).expect("made");
    planner.mkdir(&mkdir("real", None)).expect("is there");
    planner.mkdir(&mkdir("dang", None)).expect("made");
    let expected = ["dir gone", "dir real 700", "dir real/sub", "dir w 65534:65534", "dir w/x 65534:65534"];
    assert_eq!(shown(&planner.finish().layer), expected);
    let mut planner = Planner::new(&base);
    planner.mkdir(&mkdir("real", None)).expect("is there");
    assert_eq!(planner.finish(), Plan::default());
    // A heredoc: made in nothing, then copied from there.
    let mut planner = Planner::new(&base);
    let data: Arc<[u8]> = Arc::from(&b"text"[..]);
    let file = Mkfile { path: path("EOF"), mode: 0o644, owner: None, data: data.clone(), created: BUILD };
    planner.mkfile(&file).expect("made");
    let heredoc = planner.finish();
    let made = Stack::new(vec![Arc::new(heredoc.layer.clone())]);
    let mut planner = Planner::new(&base);
    let input = Input { stack: &made, index: 3, planned: Some(&heredoc) };
    planner.copy(&input, &spec("EOF /etc/x")).expect("copied");
    let copied = planner.finish();
    assert_eq!(shown(&copied.layer), ["dir etc", "file etc/x"]);
    assert_eq!(copied.contents.get(&path("etc/x")), Some(ContentSource::Inline(data)));
}

#[test]
fn removals_and_links_are_planned() {
    let rm = |text: &str, wildcard, allow_missing| Rm { path: path(text), wildcard, allow_missing };
    let link = |text: &str| Symlink { path: path(text), target: b"x".to_vec(), owner: None, created: BUILD };
    let base = stack("d/ d/a d/b d/s/ d/s/x l->d");
    let mut planner = Planner::new(&base);
    planner.rm(&rm("d/[ab]", true, false)).expect("removed");
    assert_eq!(planner.rm(&rm("d/a", false, false)), Err(CopyError::NothingToRemove { path: path("d/a") }));
    planner.rm(&rm("d/a", false, true)).expect("may be missing");
    planner.rm(&rm("l", false, false)).expect("the link itself");
    planner.symlink(&link("d/a")).expect("is gone");
    assert_eq!(planner.symlink(&link("d/s")), Err(CopyError::Exists { path: path("d/s") }));
    assert_eq!(planner.symlink(&link("no/s")), Err(CopyError::NoFolder { path: path("no") }));
    assert_eq!(shown(&planner.finish().layer), ["dir d", "symlink d/a", "whiteout d/b", "whiteout l"]);
    // A folder that comes back holds nothing of the old one.
    let mut planner = Planner::new(&base);
    planner.rm(&rm("d", false, false)).expect("removed");
    planner.mkdir(&mkdir("d/s", None)).expect("made");
    let layer = planner.finish().layer;
    assert_eq!(shown(&layer), ["opaque d", "dir d/s"]);
    let after = base.with(Arc::new(layer));
    assert!(after.lookup(&path("d/s/x")).is_none());
    // What was made and removed leaves nothing.
    let mut planner = Planner::new(&base);
    planner.mkdir(&mkdir("n/m", None)).expect("made");
    planner.rm(&rm("n", false, false)).expect("removed");
    assert_eq!(planner.finish(), Plan::default());
    let file =
        Mkfile { path: path("d"), mode: 0o644, owner: None, data: Arc::from(&b""[..]), created: BUILD };
    assert_eq!(Planner::new(&base).mkfile(&file), Err(CopyError::FileOverFolder { path: path("d") }));
}

#[test]
fn llb_asks_for_more_than_dockerfiles() {
    // Without `contents_only` a folder goes into one that is there, as itself.
    let mut one = spec("d /w");
    one.contents_only = false;
    let shown_in = |destination: &str, spec: &CopySpec<'_>| {
        plan(&stack(destination), &stack("d/ d/f"), spec).map(|plan| shown(&plan.layer))
    };
    assert_eq!(shown_in("w/", &one).expect("planned"), ["dir w", "dir w/d", "file w/d/f"]);
    assert_eq!(shown_in("", &one).expect("planned"), ["dir w", "file w/f"]);
    one.create_destination = false;
    one.destination = Destination::parse(b"/n/w").expect("a path");
    assert_eq!(shown_in("", &one), Err(CopyError::NoFolder { path: path("n") }));
    let mut one = spec("d /w");
    assert!(shown_in("w/ w/f/ w/f/x", &one).is_err());
    one.replace = true;
    assert_eq!(shown_in("w/ w/f/ w/f/x", &one).expect("planned"), ["dir w", "file w/f"]);
    one.timestamp = Some(Mtime { seconds: 77, nanoseconds: 0 });
    let planned = plan(&stack(""), &stack("d/ d/f"), &one).expect("planned");
    assert!(planned.layer.entries.values().all(|node| node.mtime.seconds == 77));
}
