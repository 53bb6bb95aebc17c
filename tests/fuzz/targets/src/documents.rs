//! Documents and names: what is read is written as one form, and that form is read as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use dockerfile_parser::{chmod::Chmod, goduration, owner::Owner, port, signal, text};
use oci::{Digest, ImageConfig, Index, Manifest, MediaType, Platform, Reference};
use tree::{Accounts, Layer, LayerPath, Stack};

/// A tree manifest: what is accepted is the one encoding of its layer.
pub fn manifest(data: &[u8]) {
    match Layer::decode(data) {
        Err(error) => drop(error.to_string()),
        Ok(layer) => {
            assert!(layer.encode() == data, "two encodings of one layer");
            let stack = Stack::new(vec![std::sync::Arc::new(layer.clone())]);
            for path in layer.entries.keys() {
                let found = stack.lookup(path).map(|(_, node)| node);
                assert!(found.is_none_or(|node| Some(node) == layer.get(path)));
                let _resolved = stack.resolve(path, true);
            }
            let flat = stack.flatten();
            assert_eq!(Layer::decode(&flat.encode()).as_ref(), Ok(&flat), "flattened, it is no layer");
        }
    }
}

/// The JSON documents of an image.
pub fn documents(data: &[u8]) {
    if let Ok(found) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(&found.bytes()).expect("it was written"), found);
    }
    if let Ok(found) = Index::parse(data) {
        assert_eq!(Index::parse(&found.bytes()).expect("it was written"), found);
        let _selected = found.select(&Platform::new("linux", "arm", Some("v7")));
    }
    if let Ok(found) = ImageConfig::parse(data) {
        let bytes = found.bytes();
        assert_eq!(ImageConfig::parse(&bytes).expect("it was written").bytes(), bytes);
        let _platform = found.platform().to_string();
    }
}

/// Small grammars, all of them at once: a name is read, shown, and read again.
pub fn names(data: &[u8]) {
    let decoded = text::decode(data);
    let name = &*decoded;
    stays::<Reference>(name);
    stays::<Platform>(name);
    stays::<Digest>(name);
    if let Ok(reference) = Reference::parse(name) {
        let short = reference.familiar();
        assert_eq!(Reference::parse(&short).as_ref(), Ok(&reference), "{short}");
    }
    let _compression = MediaType(name.to_owned()).layer_compression();
    let _mode = Chmod::parse(name);
    let _owner = Owner::parse(name);
    let _signal = signal::parse(name);
    let _duration = goduration::parse(name);
    if let Ok(ports) = port::parse(name) {
        assert!(ports.len() <= 65536);
    }
    for path in [LayerPath::parse(data), LayerPath::clamp(data)].into_iter().flatten() {
        assert_eq!(LayerPath::parse(path.as_bytes()).as_ref(), Ok(&path));
        assert!(path.parts().all(|part| !matches!(part, b"" | b"." | b"..")));
    }
    let (passwd, group) = crate::parts(data);
    let accounts = Accounts::parse(passwd, group);
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let user = text::decode(line.split(|byte| *byte == b':').next().unwrap_or_default());
        let _identity = accounts.identity(&user);
        let _ids = accounts.chown(&user);
    }
}

fn stays<T: FromStr + Display + Debug + PartialEq>(name: &str) {
    if let Ok(value) = name.parse::<T>() {
        let shown = value.to_string();
        assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&value), "{name:?} shown as {shown:?}");
    }
}
