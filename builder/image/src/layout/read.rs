//! Reads a layout, which is hostile: no file outside it is opened, and nothing is believed before its digest was right.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
};

use oci::{Descriptor, Digest, Index, Manifest, MediaType, Reference};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::Deserialize;
use tree::LayerPath;

use super::{IMAGE_NAME, LayoutError, REF_NAME};
use crate::{
    blobs::{Blob, BlobReader, BlobSource, MAX_DOCUMENT},
    detect::Format,
    tar::{EntryKind, Reader, padding},
};

/// The most members of an archive: the blobs of a thousand images.
const MAX_MEMBERS: u32 = 100_000;

/// A layout, open for reading.
pub struct Layout {
    files: Files,
    index: Index,
    path: String,
}

/// Where a layout's files are.
pub(super) enum Files {
    /// Below a folder.
    Folder(OwnedFd),
    /// In an archive: offset and length of each.
    Archive { file: Arc<File>, members: BTreeMap<LayerPath, (u64, u64)> },
}

/// Which image of a layout is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The only one there is.
    Only,
    /// That of a name: the annotation `org.opencontainers.image.ref.name` as it stands, or containerd's full name.
    Name(String),
    /// That of a digest: an entry of the index, or any manifest among the blobs.
    Digest(Digest),
}

impl Wanted {
    /// Reads what people write behind a layout's path: nothing, `@sha256:…`, or a name.
    pub fn parse(text: &str) -> Wanted {
        if text.is_empty() {
            return Wanted::Only;
        }
        let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest);
        digest.parse().map_or_else(|_| Wanted::Name(text.to_owned()), Wanted::Digest)
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Only => f.write_str("that is the only one"),
            Wanted::Name(name) => write!(f, "`{name}`"),
            Wanted::Digest(digest) => digest.fmt(f),
        }
    }
}

/// `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: String,
}

impl Layout {
    /// Opens a layout: a folder, or an archive that is not compressed.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn open(path: &Path) -> Result<Layout, LayoutError> {
        let files = Files::open(path)?;
        let path = path.display().to_string();
        let not = |why: String| LayoutError::NotALayout { path: path.clone(), why };
        let version =
            files.document("oci-layout")?.ok_or_else(|| not("it has no file `oci-layout`".to_owned()))?;
        let version: Version =
            serde_json::from_slice(&version).map_err(|error| not(format!("`oci-layout`: {error}")))?;
        if !version.image_layout_version.starts_with("1.") {
            return Err(not(format!("its version is {}", version.image_layout_version)));
        }
        let index =
            files.document("index.json")?.ok_or_else(|| not("it has no file `index.json`".to_owned()))?;
        let index = Index::parse(&index);
        let index =
            index.map_err(|source| LayoutError::Document { path: format!("{path}/index.json"), source })?;
        Ok(Layout { files, index, path })
    }

    /// Its `index.json`.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The descriptor of an image: of a manifest, or of an index of several platforms.
    ///
    /// # Errors
    /// [`LayoutError::NoSuchImage`]; for a digest that only a blob has, what is wrong with that blob.
    pub fn select(&self, wanted: &Wanted) -> Result<Descriptor, LayoutError> {
        let images = || self.index.manifests.iter();
        let named = |key: &str, name: &str| {
            images().find(|image| image.annotations.get(key).is_some_and(|own| own == name))
        };
        let found = match wanted {
            Wanted::Only if self.index.manifests.len() == 1 => images().next(),
            Wanted::Only => None,
            Wanted::Name(name) => named(REF_NAME, name).or_else(|| named(IMAGE_NAME, name)).or_else(|| {
                let full = Reference::parse(name).ok()?.to_string();
                named(IMAGE_NAME, &full).or_else(|| named(REF_NAME, &full))
            }),
            Wanted::Digest(digest) => images().find(|image| image.digest == *digest),
        };
        match (found, wanted) {
            (Some(found), _) => Ok(found.clone()),
            (None, Wanted::Digest(digest)) => self.describe(*digest),
            (None, _) => Err(self.no_such_image(wanted)),
        }
    }

    fn no_such_image(&self, wanted: &Wanted) -> LayoutError {
        let name = |image: &Descriptor| {
            let named = image.annotations.get(IMAGE_NAME).or_else(|| image.annotations.get(REF_NAME));
            named.cloned().unwrap_or_else(|| image.digest.to_string())
        };
        LayoutError::NoSuchImage {
            path: self.path.clone(),
            wanted: wanted.to_string(),
            names: self.index.manifests.iter().map(name).collect(),
        }
    }

    /// The descriptor of a manifest or index that is a blob of the layout.
    fn describe(&self, digest: Digest) -> Result<Descriptor, LayoutError> {
        let missing = || self.no_such_image(&Wanted::Digest(digest));
        let bytes = self.files.document(&blob_path(&digest))?.ok_or_else(missing)?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(crate::blobs::BlobError::Digest { expected: digest, found }.into());
        }
        // An index may leave its media type out; then its shape tells.
        let (stated, plain) = match Index::parse(&bytes) {
            Ok(index) if !index.manifests.is_empty() => (index.media_type, MediaType::index()),
            _ => match Manifest::parse(&bytes) {
                Ok(manifest) => (manifest.media_type, MediaType::manifest()),
                Err(_) => return Err(missing()),
            },
        };
        let media_type = stated.filter(|stated| stated.is_index() || stated.is_manifest()).unwrap_or(plain);
        Ok(Descriptor::of(media_type, &bytes))
    }
}

impl BlobSource for Layout {
    fn open(&self, digest: &Digest) -> io::Result<Blob> {
        let not_found =
            || io::Error::new(io::ErrorKind::NotFound, format!("the layout has no blob {digest}"));
        self.files.file(&blob_path(digest))?.ok_or_else(not_found)
    }
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Files, LayoutError> {
        let shown = path.display().to_string();
        let failed = |source| LayoutError::File { path: shown.clone(), source };
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Ok(Files::Folder(file.into()));
        }
        let mut start = Vec::new();
        file.by_ref().take(6).read_to_end(&mut start).map_err(failed)?;
        if Format::of(&start) != Format::Plain {
            let why = format!("it is compressed with {:?}", Format::of(&start)).to_lowercase();
            return Err(LayoutError::NotALayout { path: shown, why });
        }
        let members = members(&mut file, &shown, metadata.len())?;
        Ok(Files::Archive { file: Arc::new(file), members })
    }

    /// A file by its path; `None` where it is not there.
    pub(super) fn file(&self, path: &str) -> io::Result<Option<Blob>> {
        match self {
            Files::Folder(root) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                // Links inside the layout are as good as files; none leads out of it.
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = match openat2(root, path, flags, Mode::empty(), resolve) {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT) => return Ok(None),
                    Err(errno) => return Err(errno.into()),
                };
                if !file.metadata()?.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
                }
                Blob::file(file).map(Some)
            }
            Files::Archive { file, members } => {
                let path = LayerPath::parse(path.as_bytes());
                let found = path.ok().and_then(|path| members.get(&path));
                Ok(found.map(|(offset, size)| {
                    let region = Region { file: Arc::clone(file), at: *offset, end: offset + size };
                    Blob { reader: BlobReader::Stream(Box::new(region)), size_bytes: *size }
                }))
            }
        }
    }

    /// A whole document by its path; `None` where it is not there.
    pub(super) fn document(&self, path: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        let failed = |source| LayoutError::File { path: path.to_owned(), source };
        let Some(blob) = self.file(path).map_err(failed)? else { return Ok(None) };
        let mut bytes = Vec::new();
        blob.reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a document")));
        }
        Ok(Some(bytes))
    }
}

/// Where each regular file of an archive is. Contents are not read; a later member of a name replaces an earlier one.
/// A link is one more name of a member: archives of old Dockers name layers so that two images share.
fn members(file: &mut File, path: &str, length: u64) -> Result<BTreeMap<LayerPath, (u64, u64)>, LayoutError> {
    let failed = |source| LayoutError::File { path: path.to_owned(), source };
    let (mut members, mut links) = (BTreeMap::new(), BTreeMap::new());
    let (mut at, mut count) = (0, 0);
    loop {
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut reader = Reader::new(BufReader::new(&mut *file));
        let entry =
            reader.next_entry().map_err(|source| LayoutError::Archive { path: path.to_owned(), source })?;
        let Some(entry) = entry else { break };
        count += 1;
        if count > MAX_MEMBERS {
            let why = format!("it has more than {MAX_MEMBERS} members");
            return Err(LayoutError::NotALayout { path: path.to_owned(), why });
        }
        let start = at + reader.position();
        let mut size = 0;
        if let EntryKind::File { size: stored } = entry.kind {
            if !reader.is_contiguous() || start.saturating_add(stored) > length {
                let name = String::from_utf8_lossy(&entry.path);
                let why = format!("its member `{name}` has holes or is cut off");
                return Err(LayoutError::NotALayout { path: path.to_owned(), why });
            }
            size = stored;
        }
        at = start + size + padding(size);
        // A name that leaves the archive names nothing in it.
        let Ok(name) = LayerPath::parse(&entry.path) else { continue };
        let folder = name.parent().unwrap_or_default();
        let target = match &entry.kind {
            EntryKind::File { .. } => {
                members.insert(name, (start, size));
                continue;
            }
            EntryKind::HardLink { target } => LayerPath::parse(target),
            EntryKind::Symlink { target } => LayerPath::parse(&[folder.as_bytes(), b"/", target].concat()),
            _ => continue,
        };
        links.extend(target.ok().map(|target| (name, target)));
    }
    for (name, target) in links {
        if let Some(found) = members.get(&target).copied() {
            members.entry(name).or_insert(found);
        }
    }
    Ok(members)
}

/// A part of a file, read without moving the file's own position.
struct Region {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Region {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
