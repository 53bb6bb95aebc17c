//! How large a Dockerfile may make things.

/// No value may be longer: a doubling from line to line would else fill the memory. The kernel takes 128 KiB in a
/// process's arguments and variables, a label may want more.
pub(crate) const LONGEST_VALUE_BYTES: usize = 1 << 20;

/// The most that the environments of all steps and the history may take: each `RUN` has an environment of its own, so that a
/// few hundred bytes of Dockerfile could fill any memory.
pub(crate) const LARGEST_ENVIRONMENTS_BYTES: usize = 64 << 20;
