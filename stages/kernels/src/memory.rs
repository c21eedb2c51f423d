//! Keeps freed memory in the process, and clears it.
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

/// Sets every element to zero.
pub fn clear(buffer: &mut [f32]) {
    const PIECE: usize = 1 << 16;
    // A second thread helps only because each core reaches memory on its own.
    let operations = buffer.len();
    crate::parallel::for_each_row(buffer, PIECE, operations, |_, piece| piece.fill(0.0));
}
