//! Files that are there whole or not at all.

use std::{
    fs::Permissions,
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::error::Cause;

/// Writes a file beside `path` and renames it there once all is written. What is not a file (a pipe, `/dev/null`) is
/// written to as it is.
pub(crate) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Cause>,
) -> Result<(), Cause> {
    let failed = |doing| Cause::io(doing, path);
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        if path.is_dir() {
            return Err(failed("write")(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut out = std::fs::OpenOptions::new().write(true).open(path).map_err(failed("open"))?;
        return write(&mut out);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Cause::io("make the folder", folder))?;
    let aside = tempfile::Builder::new().prefix(".kiln-").tempfile_in(folder).map_err(failed("write"))?;
    let mut out = BufWriter::with_capacity(1 << 20, aside);
    write(&mut out)?;
    let aside = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    // A temporary file is its owner's alone; an output is everybody's to read.
    aside.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed("write"))?;
    aside.persist(path).map_err(|error| failed("rename")(error.error))?;
    Ok(())
}
