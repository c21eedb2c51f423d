//! Keeps freed memory in the process.
//!
//! A step allocates and frees the same few dozen buffers. The C library would give the larger ones back to the system
//! each time and then fault their pages in again, a tenth of a step's time.

/// Tells the C library's allocator to keep freed memory for the next allocation. Harmless to call again.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TRIM: libc::c_int = 1 << 30;
        // The largest value the allocator accepts.
        const MMAP: libc::c_int = 32 << 20;
        // SAFETY: `mallopt` only sets parameters of the allocator, under its own lock; both values are in range.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP);
        }
    }
}
