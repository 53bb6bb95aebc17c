//! Where the bytes of a plan's files are.

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use tree::LayerPath;

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// In the folder of an input's layer.
    File {
        /// Which input of the op: [`Input::index`](super::Input::index).
        input: usize,
        /// Which of its layers, counted from the bottom.
        layer: usize,
        /// The file's path in that layer.
        path: LayerPath,
    },
    /// Here.
    Inline(Arc<[u8]>),
}

/// The bytes of all files of a plan: of single ones, and of whole folders that were copied from one layer, of whose files
/// nothing need be held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedContents {
    single: BTreeMap<LayerPath, ContentSource>,
    /// By where they are copied to.
    folders: BTreeMap<LayerPath, CopiedFolder>,
}

/// A folder of which all files below were copied, each from its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFolder {
    /// Which input of the op.
    pub input: usize,
    /// Which of its layers.
    pub layer: usize,
    /// The folder's path in that layer.
    pub path: LayerPath,
}

impl PlannedContents {
    /// Where the bytes of a file of the plan are. Of what the plan says to be no file, or a further name of one, it means
    /// nothing.
    pub fn get(&self, path: &LayerPath) -> Option<ContentSource> {
        if let Some(source) = self.single.get(path) {
            return Some(source.clone());
        }
        if self.folders.is_empty() {
            return None;
        }
        let bytes = path.as_bytes();
        let slashes = (0..bytes.len()).rev().filter(|at| bytes[*at] == b'/');
        let above = slashes.map(|at| &bytes[..at]).chain((!bytes.is_empty()).then_some(&b""[..]));
        let (to, folder) = above.filter_map(|above| self.folders.get_key_value(above)).next()?;
        let path = folder.path.append(&path.below(to)?);
        Some(ContentSource::File { input: folder.input, layer: folder.layer, path })
    }

    /// Says where the bytes of a file are.
    pub fn insert(&mut self, path: LayerPath, source: ContentSource) {
        self.single.insert(path, source);
    }

    /// Says where the bytes of all files below a folder are, of which nothing was said before.
    pub fn insert_folder(&mut self, path: LayerPath, folder: CopiedFolder) {
        let bytes = path.as_bytes();
        let is_below = |other: &LayerPath| *other == path || other.below(&path).is_some();
        // What was said of an earlier folder of this name, or below it, is over.
        let over = self.folders.range::<[u8], _>((Included(bytes), Unbounded)).map(|(other, _)| other);
        let over =
            over.take_while(|other| other.as_bytes().starts_with(bytes)).filter(|other| is_below(other));
        for folder in over.cloned().collect::<Vec<_>>() {
            self.folders.remove(&folder);
        }
        self.folders.insert(path, folder);
    }

    /// Forgets what was said of a single file.
    pub fn remove(&mut self, path: &LayerPath) {
        self.single.remove(path);
    }
}

impl FromIterator<(LayerPath, ContentSource)> for PlannedContents {
    fn from_iter<T: IntoIterator<Item = (LayerPath, ContentSource)>>(single: T) -> PlannedContents {
        PlannedContents { single: single.into_iter().collect(), folders: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_folder_tells_and_a_file_by_itself_first() {
        let path = |text: &str| LayerPath::parse(text.as_bytes()).expect("a path");
        let folder = |input, text| CopiedFolder { input, layer: 0, path: path(text) };
        let file = |input, text| Some(ContentSource::File { input, layer: 0, path: path(text) });
        let mut contents = PlannedContents::default();
        assert_eq!(contents.get(&path("a/x")), None);
        contents.insert_folder(path("a/b/c"), folder(3, "lost"));
        contents.insert_folder(path("a/b"), folder(1, "from"));
        contents.insert_folder(path("a/b.c"), folder(2, ""));
        contents.insert(path("a/b/y"), ContentSource::Inline(Arc::from(&b"y"[..])));
        for (at, expected) in [
            ("a/b/c/x", file(1, "from/c/x")),
            ("a/b.c/x", file(2, "x")),
            ("a/b/y", Some(ContentSource::Inline(Arc::from(&b"y"[..])))),
            ("a/b", None),
            ("a/x", None),
        ] {
            assert_eq!(contents.get(&path(at)), expected, "{at}");
        }
        contents.remove(&path("a/b/y"));
        assert_eq!(contents.get(&path("a/b/y")), file(1, "from/y"));
        contents.insert_folder(LayerPath::root(), folder(0, "all"));
        assert_eq!(contents.get(&path("a/b/y")), file(0, "all/a/b/y"));
    }
}
