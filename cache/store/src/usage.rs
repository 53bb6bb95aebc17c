//! What the state folder holds: an entry for each thing that can go on its own, its bytes counted once.

use oci::Epoch;

use crate::Took;

/// What an entry is. The words are BuildKit's, but for `image`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageType {
    /// A layer that a step made, or of an image, in all its forms; or a blob that is no layer yet.
    Regular,
    /// An image's documents.
    Image,
    /// A cache mount.
    CacheMount,
    /// A copy of a git repository.
    GitCheckout,
    /// What is remembered of a build context.
    Local,
    /// What Kiln itself needs, and what running builds have half made.
    Internal,
}

impl UsageType {
    const ALL: [UsageType; 6] = [
        UsageType::Regular,
        UsageType::Image,
        UsageType::CacheMount,
        UsageType::GitCheckout,
        UsageType::Local,
        UsageType::Internal,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            UsageType::Regular => "regular",
            UsageType::Image => "image",
            UsageType::CacheMount => "exec.cachemount",
            UsageType::GitCheckout => "source.git.checkout",
            UsageType::Local => "source.local",
            UsageType::Internal => "internal",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<UsageType> {
        UsageType::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// All words, for messages.
    pub(crate) fn names() -> String {
        UsageType::ALL.map(UsageType::as_str).join(", ")
    }
}

/// One thing that the state folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name: a digest's hex digits, or a word.
    pub id: String,
    /// What it is.
    pub kind: UsageType,
    /// What made it, or what it is for.
    pub description: String,
    /// The entries right below it; they stay as long as it does.
    pub parents: Vec<String>,
    /// When it was made, where that is known.
    pub created: Option<Epoch>,
    /// When it was last used, where that is known. Stamps of use are renewed once a day.
    pub last_used: Option<Epoch>,
    /// What it takes on the disk, in bytes. What another entry counts is not in it.
    pub size_bytes: u64,
    /// How much of that goes when it is removed, in bytes: what an image with a name needs stays.
    pub reclaimable_bytes: u64,
    /// Whether a running build uses it.
    pub in_use: bool,
    /// Whether an image with a name needs it, or a part of it.
    pub shared: bool,
    /// Whether it changes.
    pub mutable: bool,
    /// What it would cost to have it again, in milliseconds; an estimate where nothing was measured.
    pub cost_ms: u64,
    /// What the last step took of the machine that made it, if a process of it ran.
    pub took: Option<Took>,
}

impl Usage {
    /// An entry of nothing.
    pub(crate) fn of(kind: UsageType) -> Usage {
        Usage {
            id: String::new(),
            kind,
            description: String::new(),
            parents: Vec::new(),
            created: None,
            last_used: None,
            size_bytes: 0,
            reclaimable_bytes: 0,
            in_use: false,
            shared: false,
            mutable: false,
            cost_ms: 0,
            took: None,
        }
    }
}

/// All that the state folder holds, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The entries.
    pub entries: Vec<Usage>,
}

impl DiskUsage {
    /// What all of it takes on the disk, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.sum(|entry| entry.size_bytes)
    }

    /// What removing all that can be removed would free, in bytes.
    pub fn reclaimable_bytes(&self) -> u64 {
        self.sum(|entry| entry.reclaimable_bytes)
    }

    /// What images with a name have a part in, in bytes.
    pub fn shared_bytes(&self) -> u64 {
        self.sum(|entry| if entry.shared { entry.size_bytes } else { 0 })
    }

    fn sum(&self, of: impl Fn(&Usage) -> u64) -> u64 {
        self.entries.iter().map(of).fold(0, u64::saturating_add)
    }
}
