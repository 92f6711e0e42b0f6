//! Tracks the idle connections of a listener, to close those that are idle for too long or must
//! make room for others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Instant};

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct Idle {
    /// The open ones, by the address of their state.
    open: Mutex<HashMap<usize, Arc<State>>>,
    /// No connection may be idle any more.
    is_closed: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// An open connection; dropping it removes it from the list.
#[derive(Debug)]
pub(crate) struct Registered {
    list: Arc<Idle>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// When it became idle, in milliseconds of the clock, or [`BUSY`], or [`CLOSING`].
    since: AtomicU64,
    /// Its first request has not come yet.
    is_new: AtomicBool,
    close: Notify,
}

/// For how long a connection counts as just opened, in milliseconds.
const NEW: u64 = 250;

const BUSY: u64 = 0;
const CLOSING: u64 = u64::MAX;

impl Idle {
    /// Returns an empty list.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Idle> {
        Arc::new(Idle {
            open: Mutex::default(),
            is_closed: AtomicBool::new(false),
            clock,
        })
    }

    /// Adds an open connection.
    pub(crate) fn register(self: &Arc<Self>) -> Registered {
        let state = Arc::new(State {
            since: AtomicU64::new(BUSY),
            is_new: AtomicBool::new(true),
            close: Notify::new(),
        });
        self.open().insert(key(&state), Arc::clone(&state));
        let list = Arc::clone(self);
        Registered { list, state }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<usize, Arc<State>>> {
        // a panic elsewhere leaves nothing inconsistent here
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connections that were idle for `span`.
    pub(crate) fn close_older_than(&self, span: Duration) {
        let now = millis(self.clock.now());
        let span = u64::try_from(span.as_millis()).unwrap_or(CLOSING);
        self.close_where(|since, _| now.saturating_sub(since) >= span);
    }

    /// Closes all idle connections, and those that become idle later.
    pub(crate) fn close_all(&self) {
        // before checking each: one that becomes idle meanwhile sees it
        self.is_closed.store(true, Ordering::SeqCst);
        self.close_where(|_, _| true);
    }

    /// As [`Idle::close_all`], except for those whose first request has not come yet: it may be on
    /// its way.
    pub(crate) fn close_used(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.close_where(|_, state| !state.is_new.load(Ordering::Relaxed));
    }

    /// Closes the `most` connections that were idle for longest; returns their number. Spares those
    /// that were just opened: their first request may be on its way.
    pub(crate) fn close_longest(&self, most: usize) -> usize {
        let now = millis(self.clock.now());
        let is_due = |since: u64, state: &State| {
            let is_new = state.is_new.load(Ordering::Relaxed);
            !is_new || now.saturating_sub(since) >= NEW
        };
        let open = self.open();
        let mut idle: Vec<(u64, &Arc<State>)> = idle(&open)
            .filter(|(since, state)| is_due(*since, state))
            .collect();
        let most = most.min(idle.len());
        if most == 0 {
            return 0;
        }
        idle.select_nth_unstable_by_key(most - 1, |(since, _)| *since);
        let longest = idle[..most].iter();
        longest.filter(|(since, state)| state.tell(*since)).count()
    }

    fn close_where(&self, holds: impl Fn(u64, &State) -> bool) {
        for (since, state) in idle(&self.open()) {
            if holds(since, state) {
                state.tell(since);
            }
        }
    }
}

/// The idle connections, each with the time since which it is idle.
fn idle(open: &HashMap<usize, Arc<State>>) -> impl Iterator<Item = (u64, &Arc<State>)> {
    let since = open
        .values()
        .map(|state| (state.since.load(Ordering::SeqCst), state));
    since.filter(|(since, _)| !matches!(*since, BUSY | CLOSING))
}

impl State {
    /// Tells the connection to close, unless it is no longer idle since then.
    fn tell(&self, since: u64) -> bool {
        let told = self
            .since
            .compare_exchange(since, CLOSING, Ordering::SeqCst, Ordering::Relaxed);
        if told.is_ok() {
            self.close.notify_one();
        }
        told.is_ok()
    }
}

impl Registered {
    /// Waits for `next` while the connection is idle; `None` if it must close instead. With
    /// `is_new` it may wait for its first request even while others must close.
    pub(crate) async fn idle<T>(&self, is_new: bool, next: impl Future<Output = T>) -> Option<T> {
        self.begins();
        if !is_new && self.is_closed() {
            return None;
        }
        tokio::select! {
            biased;
            next = next => {
                self.ends();
                Some(next)
            }
            () = self.told_to_close() => None,
        }
    }

    /// Marks the connection as idle.
    pub(crate) fn begins(&self) {
        let now = millis(self.list.clock.now());
        self.state.since.store(now, Ordering::SeqCst);
    }

    /// Marks the connection as busy.
    pub(crate) fn ends(&self) {
        self.state.is_new.store(false, Ordering::Relaxed);
        self.state.since.store(BUSY, Ordering::SeqCst);
    }

    /// Returns whether no connection may be idle any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.list.is_closed.load(Ordering::SeqCst)
    }

    /// Waits until the idle connection must close.
    pub(crate) async fn told_to_close(&self) {
        loop {
            self.state.close.notified().await;
            // otherwise it was told in an earlier pause, and too late
            if self.state.since.load(Ordering::SeqCst) == CLOSING {
                return;
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.list.open().remove(&key(&self.state));
    }
}

fn key(state: &Arc<State>) -> usize {
    Arc::as_ptr(state).addr()
}

fn millis(at: Instant) -> u64 {
    let since = at.since(Instant::ORIGIN).as_millis();
    u64::try_from(since).unwrap_or(CLOSING - 1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use std::future::pending;
    use tokio::time::{advance, timeout};

    fn list() -> Arc<Idle> {
        Idle::new(Arc::new(TokioClock::start()))
    }

    /// A connection that has had a request.
    fn used(idle: &Arc<Idle>) -> Registered {
        let connection = idle.register();
        connection.ends();
        connection
    }

    async fn is_told(connection: &Registered) -> bool {
        let told = connection.told_to_close();
        timeout(Duration::from_millis(1), told).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_makes_room_and_a_busy_one_does_not() {
        let idle = list();
        let connections: Vec<_> = (0..3).map(|_| used(&idle)).collect();
        assert_eq!(idle.close_longest(1), 0, "all are busy");
        for connection in [&connections[1], &connections[0]] {
            advance(Duration::from_secs(1)).await;
            connection.begins();
        }
        assert_eq!(idle.close_longest(1), 1);
        assert!(is_told(&connections[1]).await);
        assert!(!is_told(&connections[0]).await);
        assert_eq!(idle.close_longest(5), 1);
        assert!(is_told(&connections[0]).await);
        assert_eq!(idle.close_longest(5), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_not_closed_to_make_room() {
        let idle = list();
        let (new, used) = (idle.register(), used(&idle));
        new.begins();
        advance(Duration::from_millis(125)).await;
        used.begins();
        assert_eq!(idle.close_longest(2), 1);
        assert!(is_told(&used).await && !is_told(&new).await);
        advance(Duration::from_millis(125)).await;
        assert_eq!(idle.close_longest(2), 1);
        assert!(is_told(&new).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_idle_for_too_long_is_closed() {
        let idle = list();
        let (old, new, gone) = (idle.register(), idle.register(), idle.register());
        old.begins();
        gone.begins();
        drop(gone);
        advance(Duration::from_secs(59)).await;
        new.begins();
        idle.close_older_than(Duration::from_secs(60));
        assert!(!is_told(&old).await);
        advance(Duration::from_secs(2)).await;
        idle.close_older_than(Duration::from_secs(60));
        assert!(is_told(&old).await && !is_told(&new).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_request_may_be_on_its_way() {
        let idle = list();
        let (used, new) = (idle.register(), idle.register());
        used.begins();
        used.ends();
        used.begins();
        new.begins();
        idle.close_used();
        assert!(is_told(&used).await && !is_told(&new).await);
        idle.close_all();
        assert!(is_told(&new).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_in_time_is_served_and_the_next_pause_is_another() {
        let idle = list();
        let connection = used(&idle);
        connection.begins();
        assert_eq!(idle.close_longest(1), 1);
        connection.ends();
        connection.begins();
        assert!(!is_told(&connection).await);
        idle.close_all();
        assert!(is_told(&connection).await);
        connection.ends();
        assert_eq!(connection.idle(false, pending::<()>()).await, None);
    }
}
