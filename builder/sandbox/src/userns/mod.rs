//! User namespaces: what a user who is not root has instead of root's rights.
//!
//! Kiln enters one itself, once, before it has a second thread and before what clones steps is forked ([`enter`]). From then
//! on it is uid 0 of that namespace, and everything else is as it is for root: layers are unpacked, overlays mounted in the
//! mount namespaces of steps, which that namespace owns. There is no second process, and no program is executed but
//! `newuidmap` and `newgidmap`, where there are sub-ids.
//!
//! | File        | Holds |
//! |-------------|-------|
//! | `ranges.rs` | `/etc/subuid` and maps, as texts |
//! | `maps.rs`   | which ids the namespace is to have |
//! | `entry.rs`  | entering it |
//! | `inside.rs` | what can be done in it |
//! | `folder.rs` | what the state folder's file system can do |
//! | `choose.rs` | which mode is taken |
//! | `offers.rs` | which could be, for `kiln info` |
//! | `lack.rs`, `why.rs` | why a mode cannot be had, and what would help |

mod choose;
mod entry;
mod folder;
mod inside;
mod lack;
mod maps;
mod offers;
mod ranges;
mod why;

pub use choose::{Asked, Entered, IdsOnDisk, Note, enter};
pub use lack::{Because, Lack};
pub use offers::{Offer, Refused, offers};
