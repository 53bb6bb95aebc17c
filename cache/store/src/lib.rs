//! The state folder: what Kiln has. Blobs, layers, tree manifests, records, images, cache mounts, and the locks and leases by
//! which processes share them.
//!
//! Three rules hold everywhere.
//!
//! - **Named by digest, made aside.** Everything half made is in the build's own folder below `tmp/` and gets its name by
//!   a rename. `kill -9` at any instant leaves a whole thing, or nothing that anybody believes.
//! - **Believed when kept, or of this boot.** The page cache survives `kill -9`, not a power cut. So what was made is valid
//!   at once in the boot that made it; [`Store::keep`] flushes once, at the end of a build, and makes it valid for ever.
//! - **What a build uses is in its lease.** Each function that finds something takes the build's [`Lease`], names it there,
//!   and the collector takes nothing that is named. A name returned without a lease could be gone when it is used.
//!
//! All calls are synchronous and may block on the disk or on another process.

mod ahead;
mod answer;
mod blob;
mod blocks;
mod built;
mod cache_mount;
mod clock;
mod collect;
mod contents;
mod database;
mod download;
mod error;
mod filter;
mod finish;
mod flock;
mod format;
mod growing;
mod hash_cache;
mod image;
mod keep;
mod layer;
mod layer_blob;
mod layout;
mod lease;
mod ledger;
mod lock;
mod marks;
mod measure;
mod memo;
mod others;
mod policy;
mod record;
mod remote;
mod remove;
mod repository;
mod room;
mod secret_key;
mod store;
mod survey;
mod tag_history;
mod tidy;
mod unique;
mod usage;
mod worth;

pub use answer::Answer;
pub use blob::{BlobFile, BlobWriter, NewBlob};
pub use blocks::EarlierBlob;
pub use cache_mount::{CacheMount, CacheMountInfo, CacheMountSpec, Sharing};
pub use clock::{BootId, Clock};
pub use collect::{Collection, Freed};
pub use download::{Download, Follower, Partial};
pub use error::{Error, Result};
pub use filter::{BadFilter, Filter};
pub use finish::LateRecord;
pub use format::{FORMAT, IdMap};
pub use growing::Growing;
pub use hash_cache::{HashCache, KnownFiles, StatKey};
pub use image::{ImageLayer, ImageRow, TagChange};
pub use keep::Kept;
pub use layer::{Interned, Origin};
pub use layer_blob::{Codec, LayerBlob};
pub use lease::Lease;
pub use lock::{Lock, LockName, Waiting};
pub use memo::{Claims, Memos};
pub use policy::{Caps, Disk, Rule, Space, default_policy};
pub use record::{Ingredient, Record, ResultLayer, Took};
pub use repository::Repository;
pub use room::Watched;
pub use secret_key::SecretKey;
pub use store::{Options, Store};
pub use tag_history::{TagEvent, TagPlace, TaggedBy};
pub use usage::{DiskUsage, Usage, UsageType};
