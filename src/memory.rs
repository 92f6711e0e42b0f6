//! Gives freed memory back to the system.
//!
//! The C library's allocator gives back only what is free at the end of its heaps, so a burst of
//! large bodies would otherwise stay resident for as long as the process lives.

use std::time::Duration;

/// How often memory is given back.
const PAUSE: Duration = Duration::from_secs(30);

/// Gives free memory back from time to time. Never returns.
pub async fn keep_giving_back() {
    loop {
        tokio::time::sleep(PAUSE).await;
        give_back();
    }
}

/// Gives all free pages back (`malloc_trim(3)`). Takes the allocator's locks, for some milliseconds
/// per 100 MB that are free.
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

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
