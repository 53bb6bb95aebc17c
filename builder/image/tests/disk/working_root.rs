use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use image::{
    apply::Ownership,
    folder::{Form, SourceFolder},
    overlay::OverlayXattrs,
    scan::Purpose,
    working_root::{Stamps, changes, fill, lay, settle, take, walk},
};
use tempfile::{TempDir, tempdir};
use tree::{Kind, Layer, Mtime, Stack};

use crate::scratch::{is_root, make, path, scanned, shown};

fn stored(folder: &Path) -> SourceFolder {
    SourceFolder::stored(folder).expect("a folder")
}

/// A copy of layers that a step has written to.
pub struct Stepped {
    folder: TempDir,
    pub layer: Layer,
    pub stamps: Stamps,
}

impl Stepped {
    pub fn on(lower: &Path, stack: &Stack, step: impl FnOnce(&Path)) -> Stepped {
        let folder = tempdir().expect("a folder");
        let root = folder.path().join("root");
        copy(&root, lower, stack);
        let before = walk(&root).expect("walked");
        step(&root);
        let stamps = walk(&root).expect("walked");
        let layer = changes(&root, &before, &stamps, stack, None).expect("compared");
        Stepped { folder, layer, stamps }
    }
}

fn copy(to: &Path, lower: &Path, stack: &Stack) {
    fs::create_dir(to).expect("a folder");
    fill(to, stack, vec![stored(lower)], Ownership::Real).expect("filled");
    assert_eq!(still(to), still(lower), "a copy");
}

/// The layer of a step on a copy of `lower`; laid on another copy it makes what the step left.
pub fn after(lower: &Path, stack: &Stack, step: impl FnOnce(&Path)) -> Layer {
    let Stepped { folder, layer, stamps } = Stepped::on(lower, stack, step);
    assert!(!stamps.has_more_than_a_layer());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("layer")).expect("a folder");
    let form = Form::Upper { overlay: OverlayXattrs::Nowhere, ownership: Ownership::Real };
    take(&at("root"), &layer, &at("layer"), form).expect("taken");
    copy(&at("other"), lower, stack);
    lay(&at("other"), stack, &layer, stored(&at("layer")), Ownership::Real).expect("laid");
    assert_eq!(still(&at("other")), still(&at("root")), "with the layer laid on it");
    layer
}

/// What is in a folder, without links that a layer has broken and times of folders that it does not name.
fn still(root: &Path) -> Layer {
    let mut layer = scanned(root, Purpose::Snapshot).expect("scanned");
    for node in layer.entries.values_mut() {
        node.hardlink = None;
        if node.is_directory() {
            node.mtime = Mtime::default();
        }
    }
    layer
}

/// Layers of folders made of words, and what the topmost one hides.
fn stack(folder: &Path, layers: &[(&str, &[&str])]) -> (Stack, Vec<SourceFolder>) {
    let (mut manifests, mut folders) = (Vec::new(), Vec::new());
    for (number, (words, hidden)) in layers.iter().enumerate() {
        let at = folder.join(number.to_string());
        fs::create_dir(&at).expect("a folder");
        make(&at, words);
        let mut layer = scanned(&at, Purpose::Snapshot).expect("scanned");
        for name in *hidden {
            match layer.entries.get_mut(&path(name)) {
                Some(node) => node.kind = Kind::Directory { opaque: true },
                None => drop(layer.entries.insert(path(name), tree::Node::whiteout())),
            }
        }
        manifests.push(Arc::new(layer));
        folders.push(stored(&at));
    }
    (Stack::new(manifests), folders)
}

#[test]
fn layers_are_laid_on_each_other_as_they_are_stacked() {
    if !is_root("owners") {
        return;
    }
    let folder = tempdir().expect("a folder");
    let layers: &[(&str, &[&str])] = &[
        ("a/ a/x a/y a/z b/ b/1 b/2 f l->f h g~h", &[]),
        ("a/ a/x=new c", &["a/y", "f"]),
        ("b/ b/3 f/ f/in l", &["b", "c", "a/z"]),
    ];
    let (all, folders) = stack(folder.path(), layers);
    let made = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect(name);
        path
    };
    let (at_once, one_by_one) = (made("at-once"), made("one-by-one"));
    fill(&at_once, &all, folders, Ownership::Real).expect("filled");
    let (first, rest) = all.layers().split_first().expect("there are three");
    let folder_of = |number: usize| stored(&folder.path().join(number.to_string()));
    let mut below = Stack::new(vec![first.clone()]);
    fill(&one_by_one, &below, vec![folder_of(0)], Ownership::Real).expect("filled");
    for (number, layer) in rest.iter().enumerate() {
        lay(&one_by_one, &below, layer, folder_of(number + 1), Ownership::Real).expect("laid");
        below = below.with(layer.clone());
    }
    let seen = |root: &Path| scanned(root, Purpose::Snapshot).expect("scanned");
    assert_eq!(seen(&at_once), seen(&one_by_one));
    let flat = all.flatten();
    assert_eq!(shown(&seen(&at_once)), [vec!["dir /".to_owned()], below_root(&flat)].concat());
    let times = |layer: &Layer| -> Vec<Mtime> {
        layer.entries.iter().filter(|(path, _)| !path.is_root()).map(|(_, node)| node.mtime).collect()
    };
    assert_eq!(times(&seen(&one_by_one)), times(&flat));
}

fn below_root(layer: &Layer) -> Vec<String> {
    let mut layer = layer.clone();
    layer.entries.retain(|path, _| !path.is_root());
    shown(&layer)
}

#[test]
fn a_file_that_is_written_in_the_moment_of_its_stamp_is_seen() {
    let folder = tempdir().expect("a folder");
    let (stack, _) = stack(folder.path(), &[("f=1 g=1", &[])]);
    let root = folder.path().join("0");
    let time = fs::metadata(root.join("f")).and_then(|found| found.modified()).expect("there");
    let before = walk(&root).expect("walked");
    // With its old time, as a kernel with a coarse clock may leave it.
    fs::write(root.join("f"), "2").expect("written");
    fs::File::open(root.join("f")).and_then(|file| file.set_modified(time)).expect("set");
    // As if the time of its last change were the same: the stamp before is the one after.
    let now = walk(&root).expect("walked");
    assert!(before_is_unsure(&root, &now, &stack), "the content counts");
    assert_eq!(shown(&changes(&root, &before, &now, &stack, None).expect("compared")), ["file /f"]);
    // Once something else has changed long after it, nothing is read.
    thread::sleep(Duration::from_millis(50));
    fs::write(root.join("g"), "1").expect("written");
    let later = walk(&root).expect("walked");
    assert_eq!(shown(&changes(&root, &later, &later, &stack, None).expect("compared")), ["file /g"]);
}

/// Whether a changed file is found although its stamp says that it did not change.
fn before_is_unsure(root: &Path, now: &Stamps, stack: &Stack) -> bool {
    shown(&changes(root, now, now, stack, None).expect("compared")) == ["file /f"]
}

#[test]
fn a_root_is_linked_as_its_layers_are() {
    if !is_root("owners") {
        return;
    }
    let folder = tempdir().expect("a folder");
    let (stack, _) = stack(folder.path(), &[("a d/ d/f", &[])]);
    let root = folder.path().join("0");
    let to = folder.path().join("to");
    fs::create_dir(&to).expect("a folder");
    let before = walk(&root).expect("walked");
    fs::hard_link(root.join("a"), root.join("b")).expect("linked");
    make(&root, "x y~x");
    let after = walk(&root).expect("walked");
    let layer = changes(&root, &before, &after, &stack, None).expect("compared");
    assert_eq!(shown(&layer), ["file /b", "file /x", "hardlink /y"]);
    let form = Form::Upper { overlay: OverlayXattrs::Nowhere, ownership: Ownership::Real };
    take(&root, &layer, &to, form).expect("taken");
    let settled = settle(&root, (&before, &after), (&layer, &to), &stack, Ownership::Real);
    assert!(settled.expect("settled"), "a file became another");
    let now = stack.with(Arc::new(layer)).flatten();
    let seen = scanned(&root, Purpose::Snapshot).expect("scanned");
    assert_eq!(below_root(&seen), below_root(&now), "/b is no other name of /a any more");
}
