//! One member of a layer's tar: its header, and where it has any, its contents.

use std::{collections::BTreeMap, io};

use oci::Digest;
use tree::{Kind, LayerPath, Node};

use super::{LayerTarError, pass::Source};
use crate::{
    contents::Bytes,
    tar::{AppendError, Flag, Head, append_header, padding},
};

/// A regular file's contents to be.
#[derive(Clone, Copy)]
pub(super) struct Contents {
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// What follows a node's header; nothing for a further name of a file, and for what is no file.
pub(super) fn contents(node: &Node) -> Option<Contents> {
    match &node.kind {
        Kind::File { size, content } if node.hardlink.is_none() => {
            Some(Contents { size: *size, digest: *content })
        }
        _ => None,
    }
}

impl Source<'_> {
    /// Appends a member whole: its header, its contents and what fills up the last block.
    pub(super) fn append(
        &self,
        path: &LayerPath,
        node: &Node,
        out: &mut Vec<u8>,
    ) -> Result<(), LayerTarError> {
        self.append_head(path, node, out)?;
        let Some(contents) = contents(node) else { return Ok(()) };
        let start = out.len();
        let mut reader = self.open(path)?;
        let size = usize::try_from(contents.size).map_err(|_| too_large(path))?;
        let found = reader.append_to(out, size).map_err(|source| read_failed(path, source))?;
        if found != size {
            let found = u64::try_from(found).ok().filter(|found| *found < contents.size);
            return Err(AppendError::Size { path: shown(path), expected: contents.size, found }.into());
        }
        if self.options.verify && !reader.is_known(&contents.digest) {
            self.check(path, contents.digest, Digest::of(&out[start..]))?;
        }
        out.resize(out.len() + padding(contents.size) as usize, 0);
        Ok(())
    }

    /// Appends what stands before a member's contents; for what has none, all of it.
    pub(super) fn append_head(
        &self,
        path: &LayerPath,
        node: &Node,
        out: &mut Vec<u8>,
    ) -> Result<(), LayerTarError> {
        let none = BTreeMap::new();
        if let Some(target) = &node.hardlink {
            let first = self.layer.entries.get(target).filter(|first| first.hardlink.is_none());
            if first.is_none_or(|first| first.kind != node.kind) || target >= path {
                return Err(LayerTarError::LinkTarget { path: path.clone(), target: target.clone() });
            }
            // A link has its attributes from what it names.
            let head = self.head(path, node, Flag::HardLink { target: target.as_bytes() });
            return write(&Head { xattrs: &none, ..head }, out);
        }
        let flag = match &node.kind {
            Kind::Whiteout if !self.whiteouts => return Err(LayerTarError::Whiteout { path: path.clone() }),
            Kind::Whiteout => return append_marker(path, path.name(), out),
            Kind::Directory { .. } => Flag::Directory,
            Kind::File { size, .. } => Flag::File { size: *size },
            Kind::Symlink { target } => Flag::Symlink { target },
            Kind::CharDevice { major, minor } => Flag::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { major, minor } => Flag::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => Flag::Fifo,
        };
        write(&self.head(path, node, flag), out)?;
        if self.whiteouts && node.kind == (Kind::Directory { opaque: true }) {
            append_marker(&path.join(b"-"), b".wh..opq", out)?;
        }
        Ok(())
    }

    fn head<'n>(&self, path: &'n LayerPath, node: &'n Node, flag: Flag<'n>) -> Head<'n> {
        let latest = self.options.epoch.and_then(|epoch| i64::try_from(epoch.0).ok()).unwrap_or(i64::MAX);
        Head {
            path: if path.is_root() { b"./" } else { path.as_bytes() },
            flag,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime_seconds: node.mtime.seconds.min(latest),
            xattrs: &node.xattrs,
        }
    }

    pub(super) fn open(&self, path: &LayerPath) -> Result<Box<dyn Bytes + '_>, LayerTarError> {
        self.contents.open(path).map_err(|source| LayerTarError::Open { path: path.clone(), source })
    }

    /// Whether the bytes that were read are those that the manifest names.
    pub(super) fn check(
        &self,
        path: &LayerPath,
        expected: Digest,
        found: Digest,
    ) -> Result<(), LayerTarError> {
        if found == expected {
            return Ok(());
        }
        Err(LayerTarError::Changed { path: path.clone(), expected, found })
    }
}

/// `.wh.NAME` beside `path`, of mode, owner and time zero.
fn append_marker(path: &LayerPath, name: &[u8], out: &mut Vec<u8>) -> Result<(), LayerTarError> {
    let folder = path.parent().unwrap_or_default();
    let path = folder.join(&[b".wh.", name].concat());
    let Node { mode, uid, gid, mtime, xattrs, .. } = Node::whiteout();
    let flag = Flag::File { size: 0 };
    let mtime_seconds = mtime.seconds;
    write(&Head { path: path.as_bytes(), flag, mode, uid, gid, mtime_seconds, xattrs: &xattrs }, out)
}

fn write(head: &Head<'_>, out: &mut Vec<u8>) -> Result<(), LayerTarError> {
    append_header(head, out).map_err(|error| AppendError::from(error).into())
}

fn shown(path: &LayerPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

fn read_failed(path: &LayerPath, source: io::Error) -> LayerTarError {
    AppendError::Read { path: shown(path), source }.into()
}

fn too_large(path: &LayerPath) -> LayerTarError {
    read_failed(path, io::ErrorKind::FileTooLarge.into())
}

/// Reads as many bytes as there is room for, of a file of `size` bytes of which `before` were read.
pub(super) fn fill(
    path: &LayerPath,
    size: u64,
    before: u64,
    reader: &mut dyn Bytes,
    room: &mut [u8],
) -> Result<(), LayerTarError> {
    let mut filled = 0;
    while filled < room.len() {
        match read(path, reader, &mut room[filled..])? {
            0 => {
                let found = Some(before + filled as u64);
                return Err(AppendError::Size { path: shown(path), expected: size, found }.into());
            }
            read => filled += read,
        }
    }
    Ok(())
}

/// Whether a file has ended: one that grew must not pass for whole.
pub(super) fn ends(path: &LayerPath, size: u64, reader: &mut dyn Bytes) -> Result<(), LayerTarError> {
    match read(path, reader, &mut [0])? {
        0 => Ok(()),
        _ => Err(AppendError::Size { path: shown(path), expected: size, found: None }.into()),
    }
}

fn read(path: &LayerPath, reader: &mut dyn Bytes, room: &mut [u8]) -> Result<usize, LayerTarError> {
    loop {
        match reader.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(read_failed(path, source)),
            Ok(read) => return Ok(read),
        }
    }
}
