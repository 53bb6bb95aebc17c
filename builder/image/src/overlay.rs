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
}

impl OverlayXattrs {
    /// The attribute that makes a folder opaque; its value is `y`.
    pub fn opaque(self) -> &'static str {
        match self {
            OverlayXattrs::Trusted => "trusted.overlay.opaque",
            OverlayXattrs::User => "user.overlay.opaque",
        }
    }
}

/// Whether an attribute is one of overlayfs's own, in either namespace. Such a one never belongs to an image.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
