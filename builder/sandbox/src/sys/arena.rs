//! The C library's memory for all threads of this program.

/// Has all threads take memory from one place. By itself the C library gives each a place of its own, and what a thread gives
/// back there no other one can have: a build reads a context with some threads and plans with others, and would hold a third
/// more. To be called before there are threads. Other libraries than glibc have one place anyway, or none to choose.
pub fn share_memory_of_threads() {
    // SAFETY: it sets a number of the allocator's. Where that does not take it nothing changes.
    #[cfg(target_env = "gnu")]
    let _taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives the kernel all memory back that is not in use. By itself the C library does so at the end of what it holds only: what lies
/// before something that is in use stays.
pub(crate) fn give_memory_back() {
    // SAFETY: it touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    let _given = unsafe { libc::malloc_trim(0) };
}
