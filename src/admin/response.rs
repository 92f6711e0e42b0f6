//! A limit for responses that take long to build.

use tokio::sync::Semaphore;

/// The most costly responses that are built concurrently, over all callers.
static COSTLY: Semaphore = Semaphore::const_new(1);

/// Builds a response that grows with the configuration, on a thread outside the runtime: a thousand
/// callers that request one delay neither a probe nor a call.
pub(super) async fn costly<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    // the semaphore is never closed
    let turn = COSTLY.acquire().await.ok();
    let made = tokio::task::spawn_blocking(make).await;
    drop(turn);
    made.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
