//! What a folder's inodes can carry of owners and devices.

/// Whether owners and devices are put on disk. They are in the manifest in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Files are chowned, devices made: needs root, or a user namespace that maps the ids.
    #[default]
    Real,
    /// Files are chowned; a device is an empty file, as no user namespace may make one.
    Mapped,
    /// Files belong to whoever runs this; a device is an empty file; attributes that may not be set are left out.
    Recorded,
}

impl Ownership {
    /// Whether files are given their owners.
    pub(crate) fn chowns(self) -> bool {
        self != Ownership::Recorded
    }

    /// Whether devices are made.
    pub(crate) fn makes_devices(self) -> bool {
        self == Ownership::Real
    }
}
