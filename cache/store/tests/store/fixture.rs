//! What the tests of the state folder share: a store in a temporary folder, a clock that is set, small layers.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use oci::{BlobDigest, Descriptor, DiffId, Digest, Epoch, Manifest, MediaType, media_type::Compression};
use store::{
    BootId, Clock, Codec, Collection, Filter, IdMap, Ingredient, LayerBlob, Lease, Options, Origin, Record,
    ResultLayer, Rule, Store,
};
use tree::{Kind, Layer, LayerId, LayerPath, Node};

/// A clock that stands at what it was set to, in seconds.
#[derive(Clone)]
pub struct SetClock(Arc<AtomicU64>);

impl SetClock {
    pub fn new(seconds: u64) -> SetClock {
        SetClock(Arc::new(AtomicU64::new(seconds)))
    }

    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }
}

/// A time long after any file of a test was written.
pub const NOW: u64 = 4_000_000_000;

pub fn options(root: &Path, boot: &str) -> Options {
    let clock = SetClock::new(NOW).clock();
    Options {
        root: root.to_owned(),
        id_map: IdMap::Root,
        clock,
        boot: BootId::named(boot),
        keep_free_bytes: 0,
    }
}

pub fn open(root: &Path, boot: &str) -> Store {
    Store::open(options(root, boot)).expect("opens")
}

/// The tree manifest of a layer that holds one file, and its folder.
pub fn layer(lease: &Lease, text: &str) -> (Layer, std::path::PathBuf) {
    let folder = lease.new_folder().expect("a folder");
    fs::write(folder.join("file"), text).expect("written");
    (manifest(text, 0), folder)
}

/// The tree manifest of a layer that holds one file.
pub fn manifest(text: &str, mtime_seconds: i64) -> Layer {
    let content = Digest::of(text.as_bytes());
    let mut node = Node::new(Kind::File { size: text.len() as u64, content }, 0o644);
    node.mtime.seconds = mtime_seconds;
    let path = LayerPath::parse(b"file").expect("a path");
    Layer { entries: [(path, node)].into() }
}

/// Adds a layer that holds one file.
pub fn add_layer(store: &Store, lease: &Lease, text: &str, origin: Option<Origin>) -> LayerId {
    let (layer, folder) = layer(lease, text);
    store.commit_layer(lease, &layer, Some(&folder), origin).expect("added")
}

/// A record of these layers, whose keys and op are made of `name`.
pub fn record(name: &str, layers: &[LayerId]) -> Record {
    let digest = |what: &str| Digest::of(format!("{what} {name}").as_bytes());
    let part = |layer: &LayerId| ResultLayer { layer: *layer, created: Some(Epoch(7)) };
    Record {
        definition_key: digest("definition"),
        content_key: Some(digest("content")),
        op: digest("op"),
        ingredients: vec![Ingredient { name: "argv".to_owned(), value: name.to_owned() }],
        result: layers.iter().map(part).collect(),
        created: Epoch(8),
        duration_ms: 9,
        took: store::Took::default(),
        stage: "stage".to_owned(),
        instruction: format!("RUN {name}"),
        stays_here: false,
    }
}

/// Adds an image whose one layer's blob is `layer`, and returns its manifest's descriptor; not yet kept or listed.
pub fn add_image(store: &Store, lease: &Lease, name: &str, layer: &[u8]) -> Descriptor {
    let config = format!("{{\"name\":\"{name}\"}}");
    store.add_blob(lease, config.as_bytes()).expect("added");
    store.add_blob(lease, layer).expect("added");
    let layer_type = MediaType::layer(oci::media_type::Compression::Gzip);
    let manifest = Manifest::new(
        Descriptor::of(MediaType::config(), config.as_bytes()),
        vec![Descriptor::of(layer_type, layer)],
    );
    store.add_blob(lease, &manifest.bytes()).expect("added");
    Descriptor::of(MediaType::manifest(), &manifest.bytes())
}

/// A collection that takes the entries that a filter means, with a policy's help.
pub fn taking(filter: &str) -> Collection {
    let filters = vec![Filter::parse(filter).expect("a filter")];
    Collection { rules: vec![Rule { filters, ..Rule::default() }], ..Collection::default() }
}

/// A collection that takes all that may go.
pub fn taking_all() -> Collection {
    Collection { rules: vec![Rule { all: true, ..Rule::default() }], ..Collection::default() }
}

/// How many names a folder of the state folder has; none where it is not there.
pub fn count(store: &Store, folder: &str) -> usize {
    fs::read_dir(store.root().join(folder)).map_or(0, Iterator::count)
}

/// Adds a blob that is a layer encoded with this codec.
pub fn add_form(store: &Store, lease: &Lease, layer: &LayerId, codec: &str, blob: &[u8]) -> LayerBlob {
    let mut new = store.new_blob(lease).expect("begun");
    new.write_all(blob).expect("written");
    let blob = new.commit(&Digest::of(blob)).expect("added");
    let form = LayerBlob {
        diff_id: DiffId::of_tar(Digest::of(b"the tar")),
        blob: BlobDigest::of_blob(blob.digest),
        size_bytes: blob.size_bytes,
        diff_size_bytes: 7,
        media_type: MediaType::layer(Compression::Gzip),
        annotations: [("made.with".to_owned(), codec.to_owned())].into(),
    };
    store.add_layer_blob(lease, layer, &Codec(codec.to_owned()), &form).expect("added");
    form
}
