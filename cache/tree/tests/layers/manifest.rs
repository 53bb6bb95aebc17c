//! Encoding, decoding and naming of layers.

use crate::sample::{layers, path};
use oci::Digest;
use proptest::prelude::*;
use tree::{BadLayer, Kind, Layer, Mtime, Node};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_layer_reads_back_as_it_was(layer in layers()) {
        let bytes = layer.encode();
        prop_assert_eq!(Layer::decode(&bytes), Ok(layer));
    }

    #[test]
    fn whatever_is_read_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(layer) = Layer::decode(&bytes) {
            prop_assert_eq!(layer.encode(), bytes);
        }
    }

    #[test]
    fn damage_is_an_error_or_another_layer(layer in layers(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = layer.encode();
        let at = at.index(bytes.len());
        let was = std::mem::replace(&mut bytes[at], byte);
        match Layer::decode(&bytes) {
            Ok(read) => {
                prop_assert_eq!(&read.encode(), &bytes);
                prop_assert_eq!(read == layer, was == byte);
            }
            Err(_) => prop_assert_ne!(was, byte),
        }
        bytes[at] = was;
        bytes.pop();
        prop_assert!(Layer::decode(&bytes).is_err());
    }

    #[test]
    fn times_are_in_the_name_and_not_in_the_content(layer in layers(), seconds in any::<i64>()) {
        let mut touched = layer.clone();
        for node in touched.entries.values_mut().filter(|node| node.kind != Kind::Whiteout) {
            node.mtime.seconds = seconds;
        }
        prop_assert_eq!(layer.content_digest(), touched.content_digest());
        prop_assert_eq!(layer.id() == touched.id(), layer == touched);
    }
}

#[test]
fn the_encoding_is_frozen() {
    let mut layer = Layer::default();
    let mut file = Node::new(Kind::File { size: 300, content: Digest::of(b"x") }, 0o4755);
    file.mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 5 };
    file.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    layer.entries.insert(path("bin"), Node { uid: 5, gid: 70_000, ..Node::directory(0o755) });
    layer.entries.insert(path("bin/a"), file.clone());
    layer.entries.insert(path("bin/b"), Node { hardlink: Some(path("bin/a")), ..file });
    layer.entries.insert(path("gone"), Node::whiteout());
    layer.entries.insert(path("null"), Node::new(Kind::CharDevice { major: 1, minor: 3 }, 0o666));
    assert_eq!(
        layer.id().to_string(),
        "sha256:431af2a775a229a54cf9fe5e03c326952aab3d04b32e9cbfff3324645922351c",
        "raise `encode::FORMAT` if this was meant"
    );
    assert_eq!(
        layer.content_digest().to_string(),
        "sha256:4b01ec8d6c5334bba626ae6f608ce54d851e3a41ffa20f787cc0c8b22448878b"
    );
    assert_eq!(layer.size_bytes(), 300);
}

#[test]
fn bad_manifests_are_refused_by_their_fault() {
    let mut layer = Layer::default();
    layer.entries.insert(path("f"), Node::new(Kind::Fifo, 0o600));
    let good = layer.encode();
    assert_eq!(good, [1, 1, 0, 1, b'f', 6, 0x80, 3, 0, 0]);
    for (bytes, error) in [
        (vec![], BadLayer::Truncated { at: 0 }),
        (vec![9], BadLayer::Format { found: 9 }),
        (vec![1, 0, 0], BadLayer::Field { field: "end", at: 2 }),
        (vec![1, 0x80, 0], BadLayer::Field { field: "count", at: 3 }),
        (vec![1, 1, 0, 1, b'f', 0x86, 0], BadLayer::Field { field: "kind", at: 6 }),
        (vec![1, 1, 1, 1, b'f', 7], BadLayer::Field { field: "path", at: 5 }),
        (vec![1, 2, 0, 1, b'f', 7, 1, 0, 7], BadLayer::Order { path: path("f") }),
        (vec![1, 2, 0, 1, b'f', 7, 0, 1, b'e', 7], BadLayer::Order { path: path("e") }),
        (
            vec![1, 2, 0, 1, b'f', 7, 1, 2, b'/', b'x', 7],
            BadLayer::BelowFile { path: path("f/x"), above: path("f") },
        ),
        (
            vec![1, 1, 0, 1, b'f', 0x46, 0, 0, 0, 1, b'a'],
            BadLayer::Hardlink { path: path("f"), first: path("a") },
        ),
    ] {
        assert_eq!(Layer::decode(&bytes), Err(error), "{bytes:?}");
    }
    // A count that no memory could hold is found out by the bytes that do not come.
    assert!(Layer::decode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
}
