//! Why an archive cannot be read.

use std::io;

/// An archive that cannot be read, or must not be. Offsets count bytes from the start of the tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be had.
    #[error("reading a tar at byte {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// Why; of kind `UnexpectedEof` never.
        source: io::Error,
    },
    /// The archive ends inside a member.
    #[error("a tar ends at byte {offset}, in the middle of {what}")]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// A header whose checksum is wrong: no tar, or a damaged one.
    #[error("the tar header at byte {offset} has a wrong checksum")]
    Checksum {
        /// Where the header starts.
        offset: u64,
    },
    /// A header field that holds no number, or one outside its range.
    #[error("the tar header at byte {offset} has a bad {field}: `{value}`")]
    Number {
        /// Where the header starts.
        offset: u64,
        /// Which field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Malformed PAX records.
    #[error("the PAX records at byte {offset} are malformed: {why}")]
    Pax {
        /// Where the header of the records starts.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// An extension that is larger than any honest archiver makes it.
    #[error("the {what} at byte {offset} is {size} bytes long; {limit} is the limit")]
    TooLarge {
        /// Where its header starts.
        offset: u64,
        /// Which extension.
        what: &'static str,
        /// Its length.
        size: u64,
        /// The longest that is taken.
        limit: u64,
    },
    /// A kind of member that has no place in an image.
    #[error("the tar entry `{path}` at byte {offset} is of a kind that is not supported: {what}")]
    Unsupported {
        /// Where its header starts.
        offset: u64,
        /// Its name.
        path: String,
        /// Which kind.
        what: String,
    },
    /// Something that two readers would understand in two ways.
    #[error("the tar entry `{path}` at byte {offset} is ambiguous: {why}")]
    Ambiguous {
        /// Where its header starts.
        offset: u64,
        /// Its name.
        path: String,
        /// What could be read in two ways.
        why: &'static str,
    },
    /// A sparse map that does not fit its file.
    #[error("the sparse map of the tar entry `{path}` at byte {offset} is wrong: {why}")]
    Sparse {
        /// Where the member's header starts.
        offset: u64,
        /// Its name.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> io::Error {
        match error {
            TarError::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
