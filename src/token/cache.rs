//! The one token of a client, where every request finds it: an arc-swap cell, and a watch on what
//! the engine is doing for those who must wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::{Notify, watch};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::secret::Secret;
use crate::token::budget::Budget;
use crate::token::ports::{Outcome, Record, RequestError, StoredPool, StoredToken};
use crate::token::token::Token;

/// A client's token, and what is being done about it. Written by the engine's loop alone, but for
/// what the API made of it.
#[derive(Debug)]
pub struct TokenCell {
    current: ArcSwapOption<Token>,
    status: watch::Sender<Status>,
    /// The youngest generation that the API refused; 0: none.
    rejected: AtomicU64,
    /// How often in a row it was refused, with no good answer in between.
    in_a_row: AtomicU32,
    /// The youngest generation that the API accepted; 0: none.
    accepted: AtomicU64,
    judgement: Notify,
}

/// After so many refusals in a row, with no good answer in between, a token that the API accepted
/// before is dead for everyone: it was revoked. One that was never accepted may be refused for what
/// the callers ask, so it is passed on, and with it the API's own answer.
pub(crate) const DEAD: u32 = 5;

/// What the API made of the tokens that it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Refusals {
    /// The youngest generation that was refused; 0: none.
    pub generation: u64,
    /// How often in a row it was refused, with no good answer in between.
    pub in_a_row: u32,
    /// The youngest generation that was accepted; 0: none.
    pub accepted: u64,
}

/// What the engine is doing for a client.
#[derive(Clone, Debug)]
pub struct Status {
    /// The token in hand, if there ever was one; look at its times before you call it usable.
    pub token: Option<Arc<Token>>,
    /// The client that it was issued to: the one before, while another's first token is on its
    /// way.
    pub issued_to: Option<ClientId>,
    /// What comes next.
    pub next: Next,
    /// The last failure, if the last attempt failed.
    pub failure: Option<Failure>,
    /// The mirrored pool.
    pub pool: Budget,
    /// Whether the token in hand was refused by the API and is not sent while a new one is being
    /// asked for.
    pub doubted: bool,
    /// Up to which generation refusals by the API have been considered.
    pub considered: u64,
    /// Why the store cannot be used, while it cannot.
    pub store_problem: Option<Arc<str>>,
}

/// What comes next for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A token request is under way.
    Answer,
    /// The next token request is due then.
    Request(Instant),
}

/// A failed attempt, as it is told to people.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it failed.
    pub at: Instant,
    /// How, and why.
    pub error: RequestError,
    /// How many failures in a row, this one included.
    pub in_a_row: u32,
}

/// There is no token to send, and none came in time.
#[derive(Clone, Debug)]
pub struct NoToken {
    /// When the next attempt is due, from now; zero while one is under way.
    pub retry_after: Duration,
    /// Why there is none, if an attempt has failed.
    pub reason: Option<(Outcome, String)>,
    /// Why the store cannot be used, while it cannot.
    pub store_problem: Option<Arc<str>>,
}

impl Status {
    /// What a process leaves of the client `id` to its successor: the pool, and the token in hand
    /// unless it was refused or is another client's.
    #[must_use]
    pub fn record(&self, id: &ClientId, clock: &dyn Clock) -> Record {
        let is_good = self.issued_to.as_ref() == Some(id) && !self.doubted;
        let token = self.token.as_ref().filter(|_| is_good);
        let (full_at, not_before) = self.pool.times();
        Record {
            generation: token.map_or(0, |token| token.generation()),
            token: token.map(|token| StoredToken {
                generation: token.generation(),
                access_token: Secret::from(token.access_token().to_owned()),
                asked: clock.wall_at(token.issued()),
                lifetime: token.expires().since(token.issued()),
            }),
            pool: StoredPool {
                full_at: clock.wall_at(full_at),
                not_before: clock.wall_at(not_before),
            },
        }
    }
}

impl TokenCell {
    /// A cell without a token, whose first request is due at `now`.
    #[must_use]
    pub fn empty(now: Instant, pool: Budget) -> TokenCell {
        TokenCell {
            current: ArcSwapOption::empty(),
            status: watch::Sender::new(Status {
                token: None,
                issued_to: None,
                next: Next::Request(now),
                failure: None,
                pool,
                doubted: false,
                considered: 0,
                store_problem: None,
            }),
            rejected: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            judgement: Notify::new(),
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

    /// Waits for a token that may be sent, at most for `patience`. Ends early when the next
    /// attempt is due only after that.
    ///
    /// # Errors
    /// [`NoToken`] says when to come again and why there is none.
    pub async fn wait(&self, clock: &dyn Clock, patience: Duration) -> Result<Arc<Token>, NoToken> {
        let deadline = clock.now() + patience;
        let mut status = self.status.subscribe();
        loop {
            let now = clock.now();
            let seen = status.borrow_and_update().clone();
            let token = seen.token.filter(|token| token.is_usable(now));
            if let Some(token) = token.filter(|_| !seen.doubted) {
                return Ok(token);
            }
            let next = match seen.next {
                Next::Answer => now,
                Next::Request(at) => at,
            };
            let give_up = || NoToken {
                retry_after: next.since(now),
                reason: seen
                    .failure
                    .as_ref()
                    .map(|f| (f.error.outcome, f.error.message.clone())),
                store_problem: seen.store_problem.clone(),
            };
            if now >= deadline || next > deadline {
                return Err(give_up());
            }
            let changed = tokio::time::timeout(deadline.since(now), status.changed()).await;
            if let Ok(Err(_engine_is_gone)) = changed {
                return Err(give_up());
            }
        }
    }

    /// The API refused the token of this generation.
    pub fn reject(&self, generation: u64) {
        let before = self.rejected.fetch_max(generation, Ordering::Relaxed);
        if generation > before {
            self.in_a_row.store(1, Ordering::Relaxed);
        } else if generation == before {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        self.judgement.notify_one();
    }

    /// The API accepted the token of this generation: it answered with anything but a 401. Takes no
    /// lock, and writes only if that is news. Without these calls no token is ever taken for dead.
    pub fn accept(&self, generation: u64) {
        if self.accepted.load(Ordering::Relaxed) < generation {
            self.accepted.fetch_max(generation, Ordering::Relaxed);
        }
        if self.in_a_row.load(Ordering::Relaxed) > 0
            && generation >= self.rejected.load(Ordering::Relaxed)
            && self.in_a_row.swap(0, Ordering::Relaxed) >= DEAD
        {
            self.judgement.notify_one();
        }
    }

    /// The API refused the token of this generation: waits for a newer one, at most for
    /// `patience`. `None` if none is to be had for that: the attempt failed, or the last refusal
    /// was too short a time ago.
    pub async fn replace(
        &self,
        generation: u64,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Option<Arc<Token>> {
        let mut status = self.status.subscribe();
        self.reject(generation);
        let newer = status.wait_for(|seen| {
            let decided = seen.considered >= generation && seen.next != Next::Answer;
            let now = clock.now();
            decided
                || seen
                    .token
                    .as_ref()
                    .is_some_and(|token| token.generation() > generation && token.is_usable(now))
        });
        let seen = tokio::time::timeout(patience, newer).await.ok()?.ok()?;
        let token = seen.token.clone()?;
        let is_newer = token.generation() > generation && token.is_usable(clock.now());
        is_newer.then_some(token)
    }

    /// What the engine is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A receiver that is told of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Puts a new status in place, its token first, so that who is woken finds it.
    pub(crate) fn publish(&self, status: Status) {
        let sent = status.token.as_ref().filter(|_| !status.doubted);
        let held = self.current.load().as_ref().map(|token| token.generation());
        if held != sent.map(|token| token.generation()) {
            self.current.store(sent.cloned());
        }
        self.status.send_replace(status);
    }

    /// What the API made of the tokens that it was sent.
    pub(crate) fn refusals(&self) -> Refusals {
        Refusals {
            generation: self.rejected.load(Ordering::Relaxed),
            in_a_row: self.in_a_row.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
        }
    }

    /// Ends when the API has refused a token, or accepted one that was taken for dead, since this
    /// was last awaited.
    pub(crate) async fn judged(&self) {
        self.judgement.notified().await;
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

    fn status(token: Option<Arc<Token>>, next: Next) -> Status {
        Status {
            token,
            issued_to: None,
            next,
            failure: None,
            pool: Budget::full(POOL),
            doubted: false,
            considered: 0,
            store_problem: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_who_waits_is_woken_by_one_token() {
        let clock = TokioClock::start();
        let cell = Arc::new(TokenCell::empty(clock.now(), Budget::full(POOL)));
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let cell = Arc::clone(&cell);
                tokio::spawn(async move { cell.wait(&clock, Duration::from_secs(10)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        cell.publish(status(
            Some(token(clock.now())),
            Next::Request(clock.now() + Duration::from_secs(150)),
        ));
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap().generation(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_says_when_to_come_again() {
        let clock = TokioClock::start();
        let cell = TokenCell::empty(clock.now(), Budget::full(POOL));
        cell.publish(status(None, Next::Answer));
        let gone = cell.wait(&clock, Duration::from_secs(10)).await;
        assert_eq!(gone.unwrap_err().retry_after, Duration::ZERO);
        assert_eq!(clock.now().since(Instant::ORIGIN).as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_attempt_beyond_their_patience() {
        let clock = TokioClock::start();
        let cell = TokenCell::empty(clock.now(), Budget::full(POOL));
        let next = clock.now() + Duration::from_secs(60);
        cell.publish(status(None, Next::Request(next)));
        let gone = cell
            .wait(&clock, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(gone.retry_after, Duration::from_secs(60));
        assert_eq!(clock.now(), Instant::ORIGIN, "it was told at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_token_is_not_handed_out() {
        let clock = TokioClock::start();
        let cell = TokenCell::empty(clock.now(), Budget::full(POOL));
        cell.publish(status(Some(token(clock.now())), Next::Answer));
        assert!(cell.usable(clock.now()).is_some());
        tokio::time::sleep(Duration::from_secs(297)).await;
        assert!(cell.usable(clock.now()).is_none());
        assert!(cell.wait(&clock, Duration::from_secs(1)).await.is_err());
    }
}
