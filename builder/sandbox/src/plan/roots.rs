//! Layers to stack, and the root made of them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Planner, absolute};
use crate::{Call, Error, OverlayCall, OverlayMethod, Rootfs, Slot, Writable};

/// `OVL_MAX_STACK`: how many layers overlayfs stacks.
const LAYERS: usize = 500;
/// What `mount(2)` takes of its options: a page, with the NUL at the end.
const OPTION_BYTES: usize = 4095;
/// Options of every writable stack. The first four keep the upper folder portable: everything in it is
/// then a plain file, a whiteout or an opaque folder. `xino` off keeps inode numbers those of the layers.
pub(crate) const WRITABLE_OPTIONS: &str = "index=off,redirect_dir=off,metacopy=off,xino=off,volatile";
/// The same with `userxattr`, which makes the two others so and does not bear that they are said.
const USER_OPTIONS: &str = "index=off,xino=off,volatile";

impl Planner<'_> {
    /// Keeps the root file system, not yet attached.
    pub(super) fn open_root(&mut self) -> Result<Slot, Error> {
        match &self.spec.rootfs {
            Rootfs::Overlay { lowers, writable } => self.stack(lowers, Some(writable)),
            Rootfs::Directory { path } => {
                let root = absolute("the root folder", path)?;
                let keep = self.slot();
                self.calls.push(Call::Bind { root, path: c"".into(), readonly: false, keep });
                Ok(keep)
            }
        }
    }

    /// Keeps a stack of layers. Fills up with the empty folder what the kernel wants at least: one layer
    /// below an upper folder, two without one.
    pub(super) fn stack(&mut self, lowers: &[PathBuf], writable: Option<&Writable>) -> Result<Slot, Error> {
        if lowers.len() > LAYERS {
            return Err(Error::TooManyLayers { count: lowers.len(), limit: LAYERS });
        }
        let mut paths = lowers.to_vec();
        let least = if writable.is_some() { 1 } else { 2 };
        while paths.len() < least {
            paths.push(self.spec.empty.clone());
        }
        let method = if self.kernel.lowerdir_append {
            OverlayMethod::Append
        } else {
            let at = absolute("the empty folder", &self.spec.empty)?;
            options(&paths, writable, self.spec.mode.has_user_namespace(), at)?
        };
        let keep = self.slot();
        self.calls.push(Call::Overlay(OverlayCall {
            lowers: paths.iter().map(|path| absolute("a layer", path)).collect::<Result<_, _>>()?,
            writable: writable
                .map(|folders| -> Result<_, Error> {
                    Ok((
                        absolute("the upper folder", &folders.upper)?,
                        absolute("the work folder", &folders.work)?,
                    ))
                })
                .transpose()?,
            user_marks: self.spec.mode.has_user_namespace(),
            method,
            keep,
        }));
        Ok(keep)
    }
}

/// All options in one string, with paths relative to the deepest folder that holds them all: they must
/// fit into one page.
fn options(
    paths: &[PathBuf],
    writable: Option<&Writable>,
    user_marks: bool,
    at: CString,
) -> Result<OverlayMethod, Error> {
    let folders: Vec<&Path> = writable.map_or(vec![], |folders| vec![&folders.upper, &folders.work]);
    let directory = common_folder(paths.iter().map(PathBuf::as_path).chain(folders));
    let relative = |path: &Path, special: &[u8]| {
        let short = path.strip_prefix(&directory).unwrap_or(path);
        let short = if short.as_os_str().is_empty() { Path::new(".") } else { short };
        escape(short.as_os_str().as_bytes(), special)
    };
    let mut text = b"lowerdir=".to_vec();
    for (index, path) in paths.iter().enumerate() {
        if index > 0 {
            text.push(b':');
        }
        text.extend(relative(path, b"\\:,"));
    }
    if let Some(folders) = writable {
        for (name, path) in [(b",upperdir=".as_slice(), &folders.upper), (b",workdir=", &folders.work)] {
            text.extend(name);
            text.extend(relative(path, b"\\,"));
        }
        text.push(b',');
        text.extend(if user_marks { USER_OPTIONS } else { WRITABLE_OPTIONS }.as_bytes());
    }
    if user_marks {
        text.extend(b",userxattr");
    }
    if text.len() > OPTION_BYTES {
        return Err(Error::LayersTooLong { count: paths.len(), bytes: text.len(), limit: OPTION_BYTES });
    }
    let options = CString::new(text)
        .map_err(|error| Error::Nul { what: "a layer", value: format!("{:?}", error.into_vec()) })?;
    Ok(OverlayMethod::Options { directory: absolute("a layer", &directory)?, options, at })
}

/// overlayfs splits at `:` and `,` unless a backslash stands before them.
fn escape(text: &[u8], special: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text {
        if special.contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// The deepest folder which is, or holds, each of these absolute paths.
fn common_folder<'p>(mut paths: impl Iterator<Item = &'p Path>) -> PathBuf {
    let mut common = paths.next().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("/"));
    for path in paths {
        while !path.starts_with(&common) && common.pop() {}
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(method: OverlayMethod) -> (String, String) {
        let OverlayMethod::Options { directory, options, .. } = method else { panic!("not by options") };
        (
            directory.into_string().expect("the test's paths are UTF-8"),
            options.into_string().expect("the test's paths are UTF-8"),
        )
    }

    #[test]
    fn paths_are_short_and_escaped() {
        let lowers = ["/k/s/b:1", "/k/s/a,\\"].map(PathBuf::from);
        let writable = Writable { upper: "/k/u:,".into(), work: "/k/w".into() };
        let (directory, options) =
            text(options(&lowers, Some(&writable), false, c"/e".into()).expect("the options fit"));
        assert_eq!(directory, "/k");
        assert_eq!(
            options,
            format!("lowerdir=s/b\\:1:s/a\\,\\\\,upperdir=u:\\,,workdir=w,{WRITABLE_OPTIONS}")
        );
    }

    #[test]
    fn a_layer_that_is_the_common_folder_is_a_dot() {
        let (directory, options) =
            text(options(&["/k/a".into(), "/k".into()], None, true, c"/e".into()).expect("the options fit"));
        assert_eq!((directory.as_str(), options.as_str()), ("/k", "lowerdir=a:.,userxattr"));
    }

    #[test]
    fn too_long_says_how_much() {
        let lowers: Vec<PathBuf> = (0..300).map(|n| PathBuf::from(format!("/k/layer-number-{n}"))).collect();
        let Err(Error::LayersTooLong { count, bytes, limit }) = options(&lowers, None, false, c"/e".into())
        else {
            panic!("300 long names do not fit into a page")
        };
        assert_eq!((count, limit), (300, OPTION_BYTES));
        assert!(bytes > limit);
    }
}
