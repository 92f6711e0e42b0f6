//! Returns freed memory to the system.
//!
//! The allocator purges free pages only while the program allocates, so the memory of a burst of
//! large bodies would otherwise stay resident until the next burst.

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

/// Purges all free pages.
#[expect(
    unsafe_code,
    reason = "the allocator has no safe interface; this is the crate's only such call"
)]
fn give_back() {
    // SAFETY: it takes no pointer, and only changes what is free.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
