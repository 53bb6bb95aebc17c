//! `kiln artifact fetch`, `kiln referrers`: artifacts that are no images.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::StreamExt;
use oci::{Descriptor, Digest, Hasher, Manifest, Reference};
use registry::{Document, Parsed};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};

use super::{
    origin::{ImageSource, Origin},
    transfer::TransferError,
};
use crate::{
    build::internal::Internal,
    cancel::Cancel,
    client::Client,
    effect::Effects,
    engine::Engine,
    error::{Cause, Error},
    progress::{Event, SharedSink, Status},
};

/// The annotation of a blob that names its file (image-spec v1.1, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";

/// The blob of an artifact that has none: two braces.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The longest name of a file that Linux takes.
const NAME_BYTES: usize = 255;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size_bytes: u64,
}

impl Engine {
    /// Writes the blobs of an artifact into a folder, each under the name that it has, else under its digest. A file gets
    /// its name when its digest was right.
    ///
    /// # Errors
    /// It is an image or an index, a name leads out of the folder, or what a registry or the disk did.
    pub async fn fetch_artifact(
        &self,
        source: &ImageSource,
        folder: &Path,
        client: Arc<dyn Client>,
        sink: SharedSink,
        cancel: &Cancel,
    ) -> Result<Vec<FetchedFile>, Error> {
        let effects = Arc::new(self.effects(client, sink, false)?);
        let origin = Origin::find(self, &effects, source)?;
        let shown = Internal::start(&effects, &format!("fetching {}", origin.name));
        let fetch = Fetch { effects: &effects, origin: &origin, vertex: shown.digest(), folder };
        let fetched = cancel.unless(fetch.run()).await;
        shown.end(fetched.as_ref().err());
        Ok(fetched?)
    }

    /// What refers to the manifest or index that a name stands for.
    ///
    /// # Errors
    /// What the registry did.
    pub async fn referrers(
        &self,
        name: &Reference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let subject = match name.digest {
            Some(digest) => digest,
            None => {
                let top = self.registry.manifest(name, None, registry::Whom::Itself).await;
                top.map_err(Cause::from)?.descriptor.digest
            }
        };
        Ok(self.registry.referrers(name, subject, artifact_type).await.map_err(Cause::from)?)
    }
}

struct Fetch<'a> {
    effects: &'a Effects,
    origin: &'a Origin,
    vertex: Digest,
    folder: &'a Path,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<Vec<FetchedFile>, Cause> {
        let files = self.files(self.origin.top().await?)?;
        std::fs::create_dir_all(self.folder).map_err(Cause::io("create", self.folder))?;
        let root =
            openat(CWD, self.folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|errno| Cause::io("open", self.folder)(errno.into()))?;
        let mut fetched = Vec::new();
        for (name, blob) in files {
            self.fetch(&root, &name, &blob).await?;
            let (path, digest, size_bytes) = (self.folder.join(&name), blob.digest, blob.size);
            fetched.push(FetchedFile { path, digest, size_bytes });
        }
        Ok(fetched)
    }

    /// The files of an artifact, each with a name that stays in the folder.
    fn files(&self, top: Document) -> Result<Vec<(String, Descriptor)>, Cause> {
        let name = self.origin.name.clone();
        let manifest: Box<Manifest> = match top.parsed {
            Parsed::Manifest(manifest) => manifest,
            Parsed::Index(index) => {
                let (count, first) = (index.manifests.len(), index.manifests.first().map(|one| one.digest));
                return Err(TransferError::Several { name, count, first }.into());
            }
        };
        if registry::is_image(&manifest)
            && !manifest.layers.iter().any(|one| one.annotations.contains_key(TITLE))
        {
            return Err(TransferError::Container { name }.into());
        }
        let mut files: Vec<(String, Descriptor)> = Vec::new();
        for blob in manifest.layers.into_iter().filter(|blob| blob.media_type.as_str() != EMPTY) {
            let title = match blob.annotations.get(TITLE) {
                Some(title) => title.clone(),
                None => format!("sha256-{}", blob.digest.hex()),
            };
            let twice = files.iter().any(|(other, of)| *other == title && of.digest != blob.digest);
            let why = bad_title(&title).or(twice.then_some("it wants to write it twice"));
            if let Some(why) = why {
                return Err(TransferError::Title { name, title, why }.into());
            }
            if !files.iter().any(|(other, _)| *other == title) {
                files.push((title, blob));
            }
        }
        Ok(files)
    }

    async fn fetch(&self, root: &OwnedFd, name: &str, blob: &Descriptor) -> Result<(), Cause> {
        let failed = |doing| move |error: io::Error| Cause::io(doing, self.folder.join(name))(error);
        let (folders, file_name) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = folder_below(root, folders).map_err(|errno| failed("create")(errno.into()))?;
        let aside = Aside::create(&folder, &blob.digest).map_err(|errno| failed("create")(errno.into()))?;
        self.bytes(blob, &aside.file, &self.folder.join(name)).await?;
        renameat(&folder, &aside.name, &folder, file_name).map_err(|errno| failed("name")(errno.into()))?;
        Ok(())
    }

    /// Writes a blob and looks at its digest.
    async fn bytes(&self, blob: &Descriptor, mut file: &File, path: &Path) -> Result<(), Cause> {
        let named = blob.digest.to_string();
        let content = self.origin.content(blob)?;
        let mut pieces = content.as_content().open(0);
        let (mut hasher, mut size_bytes, started) = (Hasher::new(), 0, self.effects.clock.now());
        let tell = |current, done: bool| {
            self.effects.sink.event(Event::Status(Status {
                vertex: self.vertex,
                id: named.clone(),
                current,
                total: blob.size,
                started,
                completed: done.then(|| self.effects.clock.now()),
            }));
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| content.failed(Cause::io("read", &named)(error)))?;
            hasher.update(&piece);
            file.write_all(&piece).map_err(Cause::io("write", path))?;
            size_bytes += piece.len() as u64;
            tell(size_bytes, false);
        }
        tell(size_bytes, true);
        let actual = hasher.finish();
        if actual != blob.digest {
            let expected = blob.digest;
            return Err(store::Error::DigestMismatch { expected, actual, size_bytes }.into());
        }
        Ok(())
    }
}

/// What is wrong with a title as the name of a file below a folder.
fn bad_title(title: &str) -> Option<&'static str> {
    let mut parts = title.split('/');
    if title.starts_with('/') {
        Some("a name does not begin with `/`")
    } else if title.chars().any(char::is_control) {
        Some("it has control characters")
    } else if parts.clone().any(|part| part == "..") {
        Some("it leads out of the folder")
    } else if parts.clone().any(|part| part.is_empty() || part == ".") {
        Some("a part of it is empty")
    } else if parts.any(|part| part.len() > NAME_BYTES) || title.len() > 4000 {
        Some("it is too long")
    } else {
        None
    }
}

/// Opens a folder below another, making what is not there; no link is followed.
fn folder_below(root: &OwnedFd, folders: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(root, ".", flags, Mode::empty())?;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        match mkdirat(&at, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok(at)
}

/// A file that is being written; it goes where it did not get its name.
struct Aside<'a> {
    folder: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Aside<'a> {
    fn create(folder: &'a OwnedFd, blob: &Digest) -> Result<Aside<'a>, Errno> {
        let name = format!(".kiln-{}-{}", std::process::id(), blob.short());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // One of a process that was killed, and had the same number.
        let _left = unlinkat(folder, &name, AtFlags::empty());
        let file = openat(folder, &name, flags, Mode::from_raw_mode(0o666))?;
        Ok(Aside { folder, name, file: file.into() })
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // After the rename there is none of this name.
        let _gone = unlinkat(self.folder, &self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stay_in_the_folder() {
        for (title, good) in [
            ("chart.tgz", true),
            ("a/b/c.txt", true),
            ("..", false),
            ("../x", false),
            ("a/../../x", false),
            ("/etc/passwd", false),
            ("a//b", false),
            ("a/./b", false),
            ("a/", false),
            ("", false),
            ("a\0b", false),
            ("a\u{1b}[2J", false),
            ("..a", true),
            (&"n".repeat(256), false),
        ] {
            assert_eq!(bad_title(title).is_none(), good, "{title:?}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let root = place.path().join("root");
        std::fs::create_dir(&root).expect("created");
        std::os::unix::fs::symlink(place.path(), root.join("out")).expect("made");
        let root = OwnedFd::from(File::open(&root).expect("it is there"));
        assert!(folder_below(&root, "a/b").is_ok());
        assert!(folder_below(&root, "out").is_err());
        assert!(folder_below(&root, "a/../out/x").is_err());
    }
}
