//! What overlayfs calls its marks.

/// In which namespace of attributes overlayfs keeps its marks: `trusted.` is closed to those who mount in a user
/// namespace of their own, so that they mount with `userxattr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`
    #[default]
    Trusted,
    /// `user.overlay.*`
    User,
    /// There are no marks at all, and no whiteouts: for layers whose folders are copied and never stacked. What they hide is in
    /// their manifests.
    Nowhere,
}

impl OverlayXattrs {
    /// The attribute that makes a folder opaque; its value is `y`.
    pub fn opaque(self) -> Option<&'static str> {
        match self {
            OverlayXattrs::Trusted => Some("trusted.overlay.opaque"),
            OverlayXattrs::User => Some("user.overlay.opaque"),
            OverlayXattrs::Nowhere => None,
        }
    }

    /// Whether whiteouts are made.
    pub(crate) fn has_whiteouts(self) -> bool {
        self != OverlayXattrs::Nowhere
    }
}

/// Whether an attribute is one of overlayfs's own, in either namespace. Such a one never belongs to an image.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
