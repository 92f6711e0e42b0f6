//! A client's one token, read by every request through an arc-swap, and a watch on the engine's
//! state for requests that must wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::{Notify, watch};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::token::budget::Budget;
use crate::token::ports::{Outcome, Record, RequestError};
use crate::token::token::Token;

/// A client's token and the state of its renewal. Only the engine's loop writes it, except for the
/// API's verdicts on tokens.
#[derive(Debug)]
pub struct TokenSlot {
    current: ArcSwapOption<Token>,
    status: watch::Sender<Status>,
    /// The newest generation that the API rejected; 0 if none.
    rejected: AtomicU64,
    /// Consecutive rejections of that generation.
    in_a_row: AtomicU32,
    /// The newest generation that the API accepted; 0 if none.
    accepted: AtomicU64,
    verdict_change: Notify,
}

/// After so many consecutive rejections a token that the API accepted before counts as revoked. A
/// token that was never accepted may be rejected because of what the callers request. The proxy
/// then passes the API's 401 on.
pub(crate) const REVOKED_AFTER: u32 = 5;

/// The API's verdicts on the tokens that it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rejections {
    /// The newest generation that was rejected; 0 if none.
    pub generation: u64,
    /// Consecutive rejections of that generation.
    pub in_a_row: u32,
    /// The newest generation that was accepted; 0 if none.
    pub accepted: u64,
}

/// The state of a client's renewal.
#[derive(Clone, Debug)]
pub struct Status {
    /// The latest token, if there ever was one. It may have expired: check its times.
    pub token: Option<Arc<Token>>,
    /// The client that the token was issued to. After a change of client it is the previous one
    /// until the new client's first token.
    pub issued_to: Option<ClientId>,
    /// When the next attempt is due.
    pub next: NextAttempt,
    /// The last failure, if the last attempt failed.
    pub failure: Option<Failure>,
    /// The mirrored pool.
    pub pool: Budget,
    /// Whether the API rejected the token. It is not sent while a new one is requested.
    pub rejected: bool,
    /// Whether the API rejects the token for all callers. It is not sent; calls wait for the next
    /// one.
    pub revoked: bool,
    /// The newest generation whose rejection was handled.
    pub last_rejection_seen: u64,
    /// Why the store is unavailable, if it is.
    pub store_problem: Option<Arc<str>>,
}

/// When a client's next token request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAttempt {
    /// A request is in flight.
    InFlight,
    /// The next request is due then.
    At(Instant),
}

/// A failed attempt, as reported to operators.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it failed.
    pub at: Instant,
    /// How and why it failed.
    pub error: RequestError,
    /// Consecutive failures, this one included.
    pub in_a_row: u32,
}

/// There is no usable token, and none came in time.
#[derive(Clone, Debug)]
pub struct NoToken {
    /// When the next attempt is due, from now; zero while one is in flight.
    pub retry_after: Duration,
    /// Why there is none, if an attempt failed.
    pub reason: Option<(Outcome, String)>,
    /// Why the store is unavailable, if it is.
    pub store_problem: Option<Arc<str>>,
}

impl Status {
    /// The state that a process hands to its successor for the client `id`: the pool, and the
    /// token, unless the API rejected it or it belongs to another client.
    #[must_use]
    pub fn record(&self, id: &ClientId, clock: &dyn Clock) -> Record {
        let is_good = self.issued_to.as_ref() == Some(id) && !self.rejected;
        let token = self.token.as_ref().filter(|_| is_good);
        Record {
            generation: token.map_or(0, |token| token.generation()),
            token: token.map(|token| token.stored(|at| clock.wall_at(at))),
            pool: self.pool.stored(|at| clock.wall_at(at)),
        }
    }
}

impl TokenSlot {
    /// Returns an empty slot whose first request is due at `now`.
    #[must_use]
    pub fn empty(now: Instant, pool: Budget) -> TokenSlot {
        TokenSlot {
            current: ArcSwapOption::empty(),
            status: watch::Sender::new(Status {
                token: None,
                issued_to: None,
                next: NextAttempt::At(now),
                failure: None,
                pool,
                rejected: false,
                revoked: false,
                last_rejection_seen: 0,
                store_problem: None,
            }),
            rejected: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            verdict_change: Notify::new(),
        }
    }

    /// The token, if it may be sent at `now`. Takes no lock.
    #[must_use]
    pub fn usable(&self, now: Instant) -> Option<Guard<Option<Arc<Token>>>> {
        let token = self.current.load();
        match token.as_ref() {
            Some(held) if held.is_usable(now) => Some(token),
            _ => None,
        }
    }

    /// Waits up to `patience` for a usable token. Returns early if the next attempt is due only
    /// after that.
    ///
    /// # Errors
    /// [`NoToken`] says when to retry and why there is no token.
    pub async fn wait(&self, clock: &dyn Clock, patience: Duration) -> Result<Arc<Token>, NoToken> {
        let deadline = clock.now() + patience;
        let mut status = self.status.subscribe();
        loop {
            let now = clock.now();
            let seen = status.borrow_and_update().clone();
            let is_good = |token: &Arc<Token>| token.is_usable(now) && !seen.rejected;
            if let Some(token) = seen.token.filter(is_good) {
                return Ok(token);
            }
            let next = match seen.next {
                NextAttempt::InFlight => now,
                NextAttempt::At(at) => at,
            };
            let is_futile = now >= deadline || next > deadline;
            let changed = tokio::time::timeout(deadline.since(now), status.changed());
            // without a sender the engine is gone
            if is_futile || matches!(changed.await, Ok(Err(_))) {
                return Err(NoToken {
                    retry_after: next.since(now),
                    reason: seen.failure.map(|f| (f.error.outcome, f.error.message)),
                    store_problem: seen.store_problem,
                });
            }
        }
    }

    /// Records that the API rejected the token of this generation.
    pub fn reject(&self, generation: u64) {
        let before = self.rejected.fetch_max(generation, Ordering::Relaxed);
        if generation > before {
            self.in_a_row.store(1, Ordering::Relaxed);
        } else if generation == before {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        self.verdict_change.notify_one();
    }

    /// Records that the API accepted the token of this generation: any response but a 401. Takes no
    /// lock, and writes only on a change. A token is never considered revoked without these calls.
    pub fn accept(&self, generation: u64) {
        if self.accepted.load(Ordering::Relaxed) < generation {
            self.accepted.fetch_max(generation, Ordering::Relaxed);
        }
        if self.in_a_row.load(Ordering::Relaxed) > 0
            && generation >= self.rejected.load(Ordering::Relaxed)
            && self.in_a_row.swap(0, Ordering::Relaxed) >= REVOKED_AFTER
        {
            self.verdict_change.notify_one();
        }
    }

    /// The API rejected the token of this generation: waits up to `patience` for a newer one.
    /// Returns `None` if the attempt failed or the last rejection was too recent.
    pub async fn replace(
        &self,
        generation: u64,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Option<Arc<Token>> {
        let mut status = self.status.subscribe();
        self.reject(generation);
        let newer = |seen: &Status| {
            let token = seen.token.clone();
            token.filter(|token| token.generation() > generation && token.is_usable(clock.now()))
        };
        let decided = status.wait_for(|seen| {
            let is_handled = seen.last_rejection_seen >= generation;
            is_handled && seen.next != NextAttempt::InFlight || newer(seen).is_some()
        });
        let seen = tokio::time::timeout(patience, decided).await.ok()?.ok()?;
        newer(&seen)
    }

    /// The state of the renewal.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A receiver that is notified of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Publishes a status, the token first, so that a woken request finds it.
    pub(crate) fn publish(&self, status: Status) {
        let sent = status.token.as_ref().filter(|_| !status.rejected);
        let held = self.current.load().as_ref().map(|token| token.generation());
        if held != sent.map(|token| token.generation()) {
            self.current.store(sent.cloned());
        }
        self.status.send_replace(status);
    }

    /// The API's verdicts so far.
    pub(crate) fn rejections(&self) -> Rejections {
        Rejections {
            generation: self.rejected.load(Ordering::Relaxed),
            in_a_row: self.in_a_row.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
        }
    }

    /// Waits until the API rejects a token, or accepts one that counted as revoked, since the last
    /// call.
    pub(crate) async fn verdict_changed(&self) {
        self.verdict_change.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::secret::Secret;
    use crate::token::budget;

    const POOL: budget::Config = budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    };

    fn token(now: Instant) -> Arc<Token> {
        let secret = Secret::from("t0k3n".to_owned());
        Arc::new(Token::new(&secret, 1, now, Duration::from_secs(299)).unwrap())
    }

    fn status(token: Option<Arc<Token>>, next: NextAttempt) -> Status {
        Status {
            token,
            issued_to: None,
            next,
            failure: None,
            pool: Budget::full(POOL),
            rejected: false,
            revoked: false,
            last_rejection_seen: 0,
            store_problem: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_who_waits_is_woken_by_one_token() {
        let clock = TokioClock::start();
        let slot = Arc::new(TokenSlot::empty(clock.now(), Budget::full(POOL)));
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let slot = Arc::clone(&slot);
                tokio::spawn(async move { slot.wait(&clock, Duration::from_secs(10)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        slot.publish(status(
            Some(token(clock.now())),
            NextAttempt::At(clock.now() + Duration::from_secs(150)),
        ));
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap().generation(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_says_when_to_come_again() {
        let clock = TokioClock::start();
        let slot = TokenSlot::empty(clock.now(), Budget::full(POOL));
        slot.publish(status(None, NextAttempt::InFlight));
        let gone = slot.wait(&clock, Duration::from_secs(10)).await;
        assert_eq!(gone.unwrap_err().retry_after, Duration::ZERO);
        assert_eq!(clock.now().since(Instant::ORIGIN).as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_attempt_beyond_their_patience() {
        let clock = TokioClock::start();
        let slot = TokenSlot::empty(clock.now(), Budget::full(POOL));
        let next = clock.now() + Duration::from_secs(60);
        slot.publish(status(None, NextAttempt::At(next)));
        let gone = slot
            .wait(&clock, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(gone.retry_after, Duration::from_secs(60));
        assert_eq!(clock.now(), Instant::ORIGIN, "the answer came at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_token_is_not_handed_out() {
        let clock = TokioClock::start();
        let slot = TokenSlot::empty(clock.now(), Budget::full(POOL));
        slot.publish(status(Some(token(clock.now())), NextAttempt::InFlight));
        assert!(slot.usable(clock.now()).is_some());
        tokio::time::sleep(Duration::from_secs(297)).await;
        assert!(slot.usable(clock.now()).is_none());
        assert!(slot.wait(&clock, Duration::from_secs(1)).await.is_err());
    }
}
