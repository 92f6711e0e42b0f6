//! A listener that serves: what its connections share, and how it is told to stop.
//!
//! The state for requests can be replaced meanwhile ([`Listening::follow`]): the socket and all
//! connections stay open, and the next request on each follows the new state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::listener_state::ListenerState;
use crate::clock::Clock;
use crate::downstream::idle::Idle;
use crate::policy::limit::Limiter;

/// How many local tokens all callers that are not apps may request per second.
const STRANGERS_PER_SECOND: f64 = 100.0;

/// How long a newly opened connection may wait for its request after its listener closed.
const LINGER: Duration = Duration::from_secs(1);

/// A running listener.
#[derive(Debug)]
pub struct Listening {
    /// The state for the next request.
    pub(super) state: ArcSwap<ListenerState>,
    /// The clock for token expiry and request times.
    pub(super) clock: Arc<dyn Clock>,
    /// Limits the local tokens of callers that are not apps.
    pub(super) strangers: Arc<Limiter>,
    /// Its connections.
    pub(super) idle: Arc<Idle>,
    /// A permit per connection that may be opened.
    pub(super) permits: Arc<Semaphore>,
    max_connections: AtomicUsize,
    /// Closed once each connection ends after its request; it never has a permit.
    ending: Semaphore,
    /// Whether another process will accept the callers that wait when this one stops.
    pub(super) has_successor: AtomicBool,
}

impl Listening {
    /// Returns a listener that serves requests by `state`; `clock` decides when tokens expire.
    #[must_use]
    pub fn new(state: Arc<ListenerState>, clock: Arc<dyn Clock>) -> Listening {
        let max_connections = state.listener.max_connections;
        Listening {
            state: ArcSwap::new(state),
            idle: Idle::new(Arc::clone(&clock)),
            clock,
            strangers: Arc::new(Limiter::per_second(STRANGERS_PER_SECOND)),
            permits: Arc::new(Semaphore::new(max_connections)),
            max_connections: AtomicUsize::new(max_connections),
            ending: Semaphore::new(0),
            has_successor: AtomicBool::new(false),
        }
    }

    /// Serves later requests by `state`. Open connections keep their limits for heads. A lower
    /// limit of connections applies as soon as enough have ended.
    pub fn follow(&self, state: Arc<ListenerState>) {
        let most = state.listener.max_connections;
        let before = self.max_connections.swap(most, Ordering::Relaxed);
        self.permits.add_permits(most.saturating_sub(before));
        let surplus = u32::try_from(before.saturating_sub(most)).unwrap_or(u32::MAX);
        if surplus > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(taken) = permits.acquire_many_owned(surplus).await {
                    taken.forget();
                }
            });
        }
        self.state.store(state);
    }

    /// The socket stays open in another process: callers waiting at it when this listener closes
    /// are left to that process.
    pub fn has_successor(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
    }

    /// Stops accepting. Every connection may have one more request and then closes.
    pub fn wind_down(&self) {
        self.ending.close();
    }

    /// Stops accepting, and closes every idle connection; the others close after their request.
    pub fn close(&self) {
        self.wind_down();
        self.idle.close_all();
    }

    /// As [`Listening::close`], except that a connection that was just opened may have its one
    /// request within a second.
    pub fn drain(self: &Arc<Self>) {
        self.wind_down();
        self.idle.close_used();
        let listening = Arc::clone(self);
        tokio::spawn(async move { listening.retire().await });
    }

    /// As [`Listening::close`], but every connection may still have one request within a second,
    /// which this takes.
    pub async fn retire(&self) {
        self.wind_down();
        tokio::time::sleep(LINGER).await;
        self.idle.close_all();
    }

    /// Returns whether each connection ends after its request. Takes no lock.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_closed()
    }

    /// Waits until each connection must end after its request.
    pub(super) async fn ending(&self) {
        let _closed = self.ending.acquire().await;
    }
}
