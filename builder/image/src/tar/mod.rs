//! The tar codec.
//!
//! Its own, because the bytes that are written must never change by an upgrade, and because the readers at hand
//! take PAX-sparse members for plain files without a word and fail on an attribute that holds a newline. What is read
//! is hostile: where two readers of the same archive would see different members, it is refused.
//!
//! | Form                               | read                          | written                       |
//! |------------------------------------|-------------------------------|-------------------------------|
//! | ustar, with prefix                 | yes                           | whenever the entry fits       |
//! | V7, star                           | yes                           | no                            |
//! | GNU long names, base-256 numbers   | yes                           | no                            |
//! | PAX records                        | yes                           | only for what ustar cannot hold |
//! | sparse: old GNU, PAX 0.0, 0.1, 1.0 | yes                           | no                            |
//! | PAX global records                 | skipped, as Go does; refused where they would move names or sizes | no |
//! | volumes, incremental dumps         | refused                       | no                            |

mod entry;
mod error;
mod header;
mod pax;
mod read;
mod scan;
mod sparse;
mod write;

pub use entry::{Entry, EntryKind};
pub use error::TarError;
pub use read::{Chunk, Contents, Reader};
pub(crate) use scan::{Member, Part, Scanner};
pub use write::{AppendError, Builder, Unwritable, header};
pub(crate) use write::{Flag, Head, append_header};

/// Everything in a tar is aligned to this many bytes.
pub const BLOCK: usize = 512;

/// Whether a block is a member's header: whether its checksum is right.
pub fn is_header(block: &[u8; BLOCK]) -> bool {
    header::Block::new(block, 0).is_ok()
}

/// How many bytes of zeros follow `size` bytes of contents.
pub fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
