//! Returns freed memory to the system.
//!
//! The C library's allocator returns only what is free at the end of its heaps, so the memory of a
//! burst of large bodies would otherwise stay resident for as long as the process lives.

use std::time::Duration;

/// The interval at which memory is returned.
const PAUSE: Duration = Duration::from_secs(30);

/// Returns free memory to the system every 30 s, forever.
pub async fn keep_giving_back() {
    loop {
        tokio::time::sleep(PAUSE).await;
        give_back();
    }
}

/// Returns all free pages (`malloc_trim(3)`). Holds the allocator's locks for some milliseconds per
/// 100 MB of free memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "the standard library has no such call; this is the crate's only one"
)]
fn give_back() {
    // SAFETY: it takes no pointer, and only changes what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
