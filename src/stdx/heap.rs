//! The heap as a whole.

/// Gives memory that is free back to the system. After work that needed much for a while what is free lies scattered
/// between what stays, and the allocator keeps it.
pub fn give_back() {
    // SAFETY: looks at free memory only; every thread may allocate and free meanwhile.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
