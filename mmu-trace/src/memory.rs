//! What a process that runs for months keeps of the memory that it needed for a moment.
//!
//! Starting takes tens of megabytes, for the kernel's types and symbols, and a scrape of a thousand VMs ten.
//! Left to itself glibc's allocator keeps much of that: it has an arena for each thread, and raises its
//! thresholds with the largest block that was ever freed. Other C libraries are left as they are.

/// Has the allocator give freed memory back to the kernel. To be called before any thread is started.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        /// From here on a block is mapped on its own, and unmapped when it is freed; as much may lie free at
        /// the end of an arena. Setting them keeps glibc from changing them.
        const THRESHOLD: i32 = 256 << 10;
        for (parameter, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, THRESHOLD), (libc::M_TRIM_THRESHOLD, THRESHOLD)]
        {
            // SAFETY: sets a number; what it does not take it refuses.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Gives back what is free. To be called after something large is over.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
