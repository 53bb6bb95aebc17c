//! Layers on top of each other.

use std::sync::Arc;

use crate::sample::{layer, layers, path, stack};
use proptest::prelude::*;
use tree::{ContentDigest, Kind, Layer, LayerPath, Node, ResolveError, Selector, Stack};

/// A stack of any layers, each with the folders that it needs.
fn stacks() -> impl Strategy<Value = Stack> {
    prop::collection::vec(layers(), 0..5).prop_map(|layers| {
        let mut stack = Stack::default();
        for mut layer in layers {
            stack.complete(&mut layer);
            stack = stack.with(Arc::new(layer));
        }
        stack
    })
}

fn plain(node: &Node) -> Node {
    let mut node = Node { hardlink: None, ..node.clone() };
    if let Kind::Directory { opaque } = &mut node.kind {
        *opaque = false;
    }
    node
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_lookup_is_one_in_the_flat_layer(stack in stacks(), other in layers()) {
        let flat = stack.flatten();
        let paths = stack.layers().iter().flat_map(|layer| layer.entries.keys()).chain(other.entries.keys());
        for path in paths {
            let found = stack.lookup(path).map(|(_, node)| plain(node));
            prop_assert_eq!(found, flat.get(path).map(plain), "{}", path);
        }
    }

    #[test]
    fn children_are_those_of_the_flat_layer(stack in stacks()) {
        let flat = stack.flatten();
        let folders = flat.entries.iter().filter(|(_, node)| node.is_directory()).map(|(path, _)| path.clone());
        for folder in folders.chain([LayerPath::root()]) {
            let seen: Vec<(LayerPath, Node)> = stack.children(&folder).into_iter().map(|e| (e.path, plain(e.node))).collect();
            let inside = flat.below(&folder).filter(|(path, _)| path.parent().as_ref() == Some(&folder));
            let mut expected: Vec<(LayerPath, Node)> = inside.map(|(path, node)| (path.clone(), plain(node))).collect();
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_walk_of_a_part_is_that_part_of_the_walk(stack in stacks(), from in layers()) {
        let whole = stack.walk(&LayerPath::root());
        for from in from.entries.keys() {
            let part: Vec<_> = whole.iter().filter(|entry| entry.path.below(from).is_some()).cloned().collect();
            prop_assert_eq!(stack.walk(from), part);
        }
    }

    #[test]
    fn a_flat_layer_is_a_layer_and_selects_the_same(stack in stacks()) {
        let flat = stack.flatten();
        prop_assert_eq!(&Layer::decode(&flat.encode()), &Ok(flat.clone()));
        let flat = Stack::new(vec![Arc::new(flat)]);
        for path in ["/", "a", "a/b", "*", "a/*", "nothing"] {
            let selector = Selector { wildcard: true, ..Selector::path(path.as_bytes()) };
            prop_assert_eq!(stack.selection_digest(&selector), flat.selection_digest(&selector));
        }
    }

    #[test]
    fn links_never_leave_the_root_nor_hang(stack in stacks(), links in prop::collection::vec("[ab./]{1,9}", 0..4), from in "[ab/]{1,9}") {
        let names = ["a", "b", "a/b", "b/a"];
        let words: Vec<String> = links.iter().zip(names).map(|(link, name)| format!("{name}->{link}")).collect();
        let stack = stack.with(Arc::new(layer(&words.join(" "))));
        if let Ok(resolved) = stack.resolve(&path(&from), true) {
            let found = stack.lookup(&resolved).map(|(_, node)| node.kind.clone());
            let is_link = matches!(found, Some(Kind::Symlink { .. }));
            prop_assert!(!is_link);
        }
    }
}

#[test]
fn upper_layers_hide_lower_ones() {
    let stack = stack(&[
        "d/ d/a d/b d/s/ d/s/x f=1 l->d w/ w/x o/ o/x t",
        "d/ !d/a d/c f=2 !w o/! o/y t/ t/x",
        "w/ w/y d/s/ d/s/z",
    ]);
    let seen: Vec<String> =
        stack.walk(&LayerPath::root()).iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(seen.join(" "), "/d /d/b /d/c /d/s /d/s/x /d/s/z /f /l /o /o/y /t /t/x /w /w/y");
    assert_eq!(stack.lookup(&path("f")).map(|(layer, _)| layer), Some(1));
    assert_eq!(stack.lookup(&path("d/b")).map(|(layer, _)| layer), Some(0));
    assert_eq!(stack.lookup(&path("w/x")), None);
    assert_eq!(stack.lookup(&path("d/b/below")), None);
    assert!(stack.lookup(&LayerPath::root()).is_some_and(|(_, root)| root.is_directory()));
    let names: Vec<String> = stack.children(&path("d")).iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/d/b", "/d/c", "/d/s"]);
}

#[test]
fn folders_that_no_layer_names_are_there() {
    let stack = stack(&["a/b/c a/b.c/d", "x/y"]);
    assert!(stack.lookup(&path("a/b")).is_some_and(|(_, node)| node.is_directory()));
    let names: Vec<String> =
        stack.children(&LayerPath::root()).iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/a", "/x"]);
    let walked: Vec<String> = stack.walk(&path("a")).iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(walked, ["/a/b", "/a/b.c", "/a/b.c/d", "/a/b/c"]);
    let mut layer = layer("a/b/e n/m/o");
    stack.complete(&mut layer);
    let names: Vec<String> = layer.entries.keys().map(LayerPath::to_string).collect();
    assert_eq!(names, ["/a/b/e", "/n", "/n/m", "/n/m/o"]);
}

#[test]
fn hard_links_stay_among_the_names_that_are_left() {
    let stack = stack(&["a b~a c~a", "!a d~b"].map(|words| if words.contains('!') { "!a" } else { words }));
    let flat = stack.flatten();
    assert_eq!(flat.get(&path("b")).and_then(|node| node.hardlink.clone()), None);
    assert_eq!(flat.get(&path("c")).and_then(|node| node.hardlink.clone()), Some(path("b")));
}

#[test]
fn links_are_followed_inside_the_root() {
    let stack = stack(&["real/ real/f lnk->/real rel->real up->../../real dang->/no/where chain->lnk \
                         loop->loop a->b b->a deep/ deep/l->../lnk/f dot->./real/../real/."]);
    for (from, to) in [
        ("lnk", "/real"),
        ("lnk/f", "/real/f"),
        ("rel/f", "/real/f"),
        ("up/f", "/real/f"),
        ("dang/x", "/no/where/x"),
        ("chain/new", "/real/new"),
        ("deep/l", "/real/f"),
        ("dot", "/real"),
        ("none/at/all", "/none/at/all"),
    ] {
        assert_eq!(stack.resolve(&path(from), true).expect(from).to_string(), to);
    }
    assert_eq!(stack.resolve(&path("deep/l"), false), Ok(path("deep/l")));
    assert_eq!(stack.resolve(&path("chain/deep"), false), Ok(path("real/deep")));
    for circle in ["loop", "a/x"] {
        assert_eq!(
            stack.resolve(&path(circle), true),
            Err(ResolveError::TooManyLinks { path: path(circle) })
        );
    }
}

fn digest(stack: &Stack, path: &str) -> ContentDigest {
    stack.selection_digest(&Selector { wildcard: true, ..Selector::path(path.as_bytes()) }).expect(path)
}

#[test]
fn a_selection_is_what_can_be_seen() {
    let base = "d/ d/a=1 d/b=2 d/l->a e/ e/a=1 e/b=2 e/l->a top->d x/ x/a1 x/a2 x/b1";
    let one = stack(&[base]);
    // Where it lies and which layers it comes from do not matter.
    assert_eq!(digest(&one, "d"), digest(&one, "/e/"));
    assert_eq!(digest(&one, "d"), digest(&stack(&["d/ d/a=0 d/l->a d/z", "d/ d/a=1 d/b=2 !d/z"]), "d"));
    assert_eq!(digest(&one, "top"), digest(&one, "d"));
    assert_eq!(digest(&one, "top/../d"), digest(&one, "d"));
    // Names, contents, link targets and what is there do.
    for change in ["d/a=2", "!d/a", "d/c", "d/l->b", "d/!"] {
        assert_ne!(digest(&one, "d"), digest(&stack(&[base, &format!("d/ {change}")]), "d"), "{change}");
    }
    assert_ne!(digest(&one, "x/a*"), digest(&stack(&[base, "x/a3"]), "x/a*"));
    assert_eq!(digest(&one, "x/a*"), digest(&stack(&[base, "x/b2"]), "x/a*"));
    assert_ne!(digest(&one, "x/a*"), digest(&one, "x/a?1"));
    // What is not there is a value too, and not that of an empty folder.
    assert_eq!(digest(&one, "no"), digest(&one, "such"));
    assert_ne!(digest(&one, "no"), digest(&stack(&["no/"]), "no"));
    // A link as such is not what it points to.
    let selector = Selector { follow_links: false, ..Selector::path(b"top") };
    assert_ne!(one.selection_digest(&selector), Ok(digest(&one, "top")));
}

#[test]
fn a_selection_leaves_out_what_is_excluded() {
    let exclude = |path: &LayerPath| path.name() == b"skip" || path.as_bytes().starts_with(b"skip/");
    let of = |words: &str| {
        let selector = Selector { exclude: Some(&exclude), ..Selector::path(b"d") };
        stack(&[words]).selection_digest(&selector).expect("no links")
    };
    assert_eq!(of("d/ d/a d/skip=1"), of("d/ d/a"));
    assert_eq!(of("d/ d/a d/skip/ d/skip/x"), of("d/ d/a"));
    assert_ne!(of("d/ d/a d/b"), of("d/ d/a"));
    let include = |path: &LayerPath| path.name() == b"c.txt";
    let of = |words: &str| {
        let selector = Selector { include: Some(&include), ..Selector::path(b"/") };
        stack(&[words]).selection_digest(&selector).expect("no links")
    };
    assert_eq!(of("a/ a/b/ a/b/c.txt a/n/ a/n/x"), of("a/ a/b/ a/b/c.txt"));
    assert_ne!(of("a/ a/b/ a/b/c.txt"), of("a/ a/b2/ a/b2/c.txt"));
}

#[test]
fn hard_links_of_a_selection_count() {
    assert_ne!(digest(&stack(&["d/ d/a=1 d/b~d/a"]), "d"), digest(&stack(&["d/ d/a=1 d/b=1"]), "d"));
    assert_eq!(digest(&stack(&["d/ d/a=1 e~d/a"]), "d"), digest(&stack(&["d/ d/a=1"]), "d"));
}

#[test]
fn forty_thousand_entries_are_named_quickly() {
    let mut layer = Layer::default();
    for folder in 0..400 {
        layer
            .entries
            .insert(path(&format!("usr/lib/python3/dist-packages/module{folder}")), Node::directory(0o755));
        for file in 0..100 {
            let kind = Kind::File { size: file, content: oci::Digest::of(&file.to_be_bytes()) };
            let name = format!("usr/lib/python3/dist-packages/module{folder}/source_file_{file}.py");
            layer.entries.insert(path(&name), Node::new(kind, 0o644));
        }
    }
    let begun = std::time::Instant::now();
    let bytes = layer.encode();
    let encoded = begun.elapsed();
    let id = layer.id();
    let named = begun.elapsed();
    assert_eq!(Layer::decode(&bytes).expect("its own bytes").id(), id);
    let read = begun.elapsed();
    let stack = Stack::new(vec![Arc::new(layer.clone()), Arc::new(layer)]);
    let flat = stack.flatten();
    let flattened = begun.elapsed();
    eprintln!(
        "{} bytes: encoded {encoded:?}, named {named:?}, read and named {read:?}, flattened {flattened:?}",
        bytes.len()
    );
    assert_eq!(flat.entries.len(), 40_404 - 4 + 4);
    // An unoptimised build on a busy machine is a hundred times slower than what matters.
    assert!(flattened.as_secs() < 20);
}
