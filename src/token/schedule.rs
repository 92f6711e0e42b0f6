//! When to request a token: a state machine without a clock.
//!
//! Events go in ([`Schedule::granted`], [`Schedule::failed`]); the time of the next request comes
//! out ([`Schedule::next_request`]). Every delay is a share of the token's lifetime or of the
//! pool's refill interval, never a number of seconds. Tokens that live for 3 seconds are handled
//! like tokens that live for 5 minutes.
//!
//! The retry delay depends on what the failed request may have cost:
//!
//! - nothing, or a plain refusal: exponential backoff from 1/60 to 1/5 of the refill interval (1 s
//!   to 12 s at one a minute), more often as the current token nears expiry;
//! - possibly a token (no response, a broken response): the same backoff, but while there is a
//!   token, the requests that the pool still allows are spread evenly over its remaining lifetime;
//! - a 429: at least one refill interval, or as long as the issuer asks; while there is a token, as
//!   many intervals as fit are spread over its remaining lifetime;
//! - an error that needs a person to fix it: one refill interval.
//!
//! One attempt is always scheduled at the last moment that can still replace the token before it
//! expires. No attempt that could still be in flight then, judged by the duration of the previous
//! one, starts before it.
//!
//! New credentials are tried at once, without waiting out the delays of the old ones. The pool
//! belongs to the client's id, so it stays as it was while the id is the same.
//!
//! Refills of a full pool are wasted, so the renewal then comes slightly early (3.5 %). With tokens
//! of 299 s and a pool of 5 at one a minute this makes at most 26 requests an hour. At any moment
//! the current token has half of its lifetime left, plus the time of one more request. So an outage
//! of half a lifetime, 149.5 s, goes unnoticed, if the pool was full and a request takes less than
//! a second. Two cases leave less, by a second or two: while the pool is contended (below), a token
//! has 140 s left at its renewal; after an outage that emptied the pool, 146 s.
//!
//! An unexpected 429 means that other programs take tokens of this client. The next renewals then
//! come later, as late as leaves time for two refused requests, so that everyone gets more.
//!
//! While the store is unavailable, the replicas cannot coordinate. Each knows how many joined
//! before it. The first few, as many as the pool bears, limit themselves to an equal share of it
//! and wait until their token nears expiry. The others make no requests. A replica that never
//! reached the store assumes that it is one of the first until it gets a 429.
//!
//! While another replica is requesting a token, or has just failed to get one, this one backs off
//! as after a free failure of its own. A fleet of any size then sends about as many requests as one
//! process, and its replicas do not all read the store at the same time.
//!
//! A token that the API rejects is replaced at once, but at most once per refill interval: an API
//! that rejects everything must not empty the pool.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Instant;
use crate::token::budget::{self, Budget};
use crate::token::ports::{Cost, Membership, Outcome};

/// When a client's token is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The share of a token's lifetime after which it is renewed; above 0, below 1.
    pub refresh_at: f64,
    /// The largest share of that time by which jitter brings the renewal forward; 0 to 1.
    pub refresh_jitter: f64,
    /// The mirrored pool.
    pub pool: budget::Config,
}

/// Why the issuer sent a 429 that the mirrored pool did not predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitCause {
    /// Other programs use this client.
    PoolContended,
    /// Refused requests used up the pool too; they are charged from now on.
    RefusalsCharged,
}

/// The renewal state machine of one client.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: Config,
    budget: Budget,
    /// When the request in flight was sent.
    asked: Option<Instant>,
    /// The last moment at which the current token may be sent.
    usable_until: Option<Instant>,
    /// When the next request is wanted; the budget may delay it.
    due: Instant,
    /// Failures since the last token.
    failures: u32,
    /// How often this process deferred to a peer since the last token.
    deferrals: u32,
    /// No request before this: a peer is requesting a token, or has just failed to.
    deferred_until: Instant,
    /// Refused requests since the last token that were not charged.
    free_refusals: u32,
    /// Whether refused requests are known to use up the pool.
    refusals_charged: bool,
    /// For how many more renewals the pool counts as contended.
    contended: u32,
    /// When a token was last replaced because the API rejected it.
    replaced: Option<Instant>,
    /// Whether the token must be replaced as soon as the pool and the share allow: the API rejected
    /// it, the credentials changed, or an operator wants a new one. No delay applies to it.
    is_outdated: bool,
    /// When the share allows another request that is not booked in a store.
    share_ready_at: Instant,
    /// When the mirror was last charged for requests that peers may have made, and when that charge
    /// is refilled.
    peers_charged: (Instant, Instant),
    /// How this replica continues while the store is unavailable.
    without_store: Option<WithoutStore>,
}

/// How a replica continues without the store.
#[derive(Clone, Copy, Debug)]
struct WithoutStore {
    /// The position in the fleet that the share follows from; unknown if it is a guess.
    membership: Membership,
    /// When the next request is within this replica's share of the pool; `None` if it makes no
    /// requests and others do.
    ready_at: Option<Instant>,
    /// How many replicas may make requests, this one or others.
    requesters: u32,
    /// No renewal before this. It applies only while the store is unavailable; afterwards the
    /// renewal is due at its usual time.
    not_before: Instant,
}

/// The most replicas that make requests without the store. For tokens of five minutes and a refill
/// of one a minute the pool bears no more.
const MAX_REQUESTERS: u32 = 4;

/// After how many renewals without an unexpected 429 the pool no longer counts as contended.
const CONTENDED_RENEWALS: u32 = 3;

/// The factor by which the renewal comes early if the pool will be full. By default a token is
/// renewed after 0.458 to 0.483 of 299 s, which makes 25 to 26 tokens an hour.
const EARLY: f64 = 0.965;

/// The share of a token's lifetime beyond which no renewal is delayed.
const LATEST_REFRESH: f64 = 0.8;

impl Schedule {
    /// Returns a schedule without a token, whose first request is due at `now`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Schedule {
        Schedule {
            config,
            budget: Budget::full(config.pool),
            asked: None,
            usable_until: None,
            due: now,
            failures: 0,
            deferrals: 0,
            deferred_until: Instant::ORIGIN,
            free_refusals: 0,
            refusals_charged: false,
            contended: 0,
            replaced: None,
            is_outdated: false,
            share_ready_at: Instant::ORIGIN,
            peers_charged: (Instant::ORIGIN, Instant::ORIGIN),
            without_store: None,
        }
    }

    /// Books a request at `now`, once [`Schedule::next_request`] has come. Send it now, and call
    /// [`Schedule::granted`] or [`Schedule::failed`] before anything else.
    pub fn ask(&mut self, now: Instant) {
        self.book(now);
        if let Some(without) = self.without_store {
            self.set_share_ready_at(now + self.config.pool.refill * without.requesters);
        }
    }

    /// Books a request that is sent only after the store has recorded it. If that fails, call
    /// [`Schedule::unbook`]; otherwise continue as after [`Schedule::ask`].
    pub fn book(&mut self, now: Instant) {
        debug_assert!(self.asked.is_none(), "two requests at a time");
        self.budget.take(now);
        self.asked = Some(now);
    }

    /// Releases the booked request: it is not sent because the store could not record it.
    pub fn unbook(&mut self, now: Instant) {
        self.settle(now);
        self.budget.give_back();
    }

    /// When the next request is sent, if none is in flight; the end of time if never.
    #[must_use]
    pub fn next_request(&self) -> Instant {
        let with_store = self.next_with_store();
        let Some(without) = self.without_store else {
            return with_store;
        };
        match without.ready_at {
            Some(ready_at) => with_store.max(ready_at).max(without.not_before),
            None => Instant::ORIGIN + Duration::MAX,
        }
    }

    /// When the next request would be sent if the store were available.
    #[must_use]
    pub fn next_with_store(&self) -> Instant {
        self.next_with_lease().max(self.deferred_until)
    }

    /// The same while this process holds the lease: no peer can be requesting a token then.
    #[must_use]
    pub fn next_with_lease(&self) -> Instant {
        self.due.max(self.budget.ready_at())
    }

    /// When the request that is booked or in flight was booked.
    #[must_use]
    pub fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// When a new token may arrive, as seen at `now`: at the next request, or after a quarter of
    /// the refill interval if only peers make requests.
    #[must_use]
    pub fn next_chance(&self, now: Instant) -> Instant {
        match self.without_store {
            Some(without) if without.ready_at.is_none() => now + self.config.pool.refill / 4,
            _ => self.next_request(),
        }
    }

    /// The store is unavailable, and this process has that position in the fleet. Call it again
    /// while that lasts: a position that becomes known changes the standby.
    pub fn store_unavailable(&mut self, membership: Membership, now: Instant) {
        if self
            .without_store
            .is_some_and(|known| known.membership == membership)
        {
            return;
        }
        let pool = self.config.pool;
        let most = (pool.capacity - 1).clamp(1, MAX_REQUESTERS);
        let (requesters, ready_at) = match membership {
            Membership::Single => return,
            Membership::Member { before, all } => (
                all.clamp(1, most),
                // replicas that joined earlier may make requests as well
                (before < most).then(|| self.budget.holds_at(before + 1)),
            ),
            // the store may be about to answer
            Membership::Unknown => (most, Some(now + pool.refill / 12)),
        };
        let before = self.without_store;
        let earliest = before.map(|before| match before.ready_at {
            Some(ready_at) => ready_at,
            // the replica whose place this was may have made a request a moment ago
            None => now + pool.refill * requesters,
        });
        // a store that flaps or is replaced must not renew the share
        let earliest = earliest.unwrap_or(Instant::ORIGIN).max(self.share_ready_at);
        self.without_store = Some(WithoutStore {
            membership,
            ready_at: ready_at.map(|at| at.max(earliest)),
            requesters,
            not_before: before.map_or(Instant::ORIGIN, |before| before.not_before),
        });
        if before.is_none() {
            self.defer_renewal();
        }
    }

    /// The store is available again. Without a token, waits up to 1/30 of the refill interval (2 s
    /// at one a minute) for a peer's, unless this process `may_ask` already. `jitter` in `[0, 1)`.
    pub fn store_recovered(&mut self, now: Instant, may_ask: bool, jitter: f64) {
        let Some(without) = self.without_store.take() else {
            return;
        };
        self.charge_for_peers(&without, now);
        self.deferrals = 0;
        self.deferred_until = Instant::ORIGIN;
        if !may_ask && self.left(now).is_zero() {
            let longest = self.config.pool.refill / 30;
            self.due = self.due.max(now + longest.mul_f64(1.0 - jitter / 2.0));
        }
    }

    /// A token was issued. It lives for `lifetime` from its request and may be sent until
    /// `usable_until`. `jitter` in `[0, 1)`.
    pub fn granted(
        &mut self,
        now: Instant,
        lifetime: Duration,
        usable_until: Instant,
        jitter: f64,
    ) {
        let asked = self.settle(now);
        self.adopted(asked, lifetime, usable_until, jitter);
    }

    /// A peer's token, requested at `asked`, was adopted; otherwise as [`Schedule::granted`].
    pub fn adopted(
        &mut self,
        asked: Instant,
        lifetime: Duration,
        usable_until: Instant,
        jitter: f64,
    ) {
        let refresh_at = self.config.refresh_at * (1.0 - self.config.refresh_jitter * jitter);
        self.due = asked + lifetime.mul_f64(refresh_at.clamp(0.0, 1.0));
        let early = asked + lifetime.mul_f64((EARLY * refresh_at).clamp(0.0, 1.0));
        if self.contended == 0 && self.budget.times().0 <= early {
            self.due = early;
        }
        if self.contended > 0 {
            self.contended -= 1;
            let refill = self.config.pool.refill;
            let late = usable_until - refill * 2 - refill / 3;
            self.due = self
                .due
                .max(late.min(asked + lifetime.mul_f64(LATEST_REFRESH)));
        }
        self.usable_until = Some(usable_until);
        self.is_outdated = false;
        self.failures = 0;
        self.deferrals = 0;
        self.deferred_until = Instant::ORIGIN;
        self.free_refusals = 0;
        self.defer_renewal();
    }

    /// A peer is requesting a token, or has just done so: delays what is due by the backoff of a
    /// free failure. The store announces the peer's token; this covers a peer that gets none.
    /// `jitter` in `[0, 1)`.
    pub fn deferred_to_peer(&mut self, now: Instant, jitter: f64) {
        self.deferrals = self.deferrals.saturating_add(1);
        let backoff = self.backoff();
        let pace = backoff.delay(self.deferrals, jitter);
        let left = self.left(now);
        let wait = if left.is_zero() {
            pace
        } else {
            pace.min((left / 4).max(backoff.base))
        };
        self.deferred_until = self.deferred_until.max(now + wait);
    }

    /// Merges a peer's view of the pool: when it will be full, and until when the issuer wants no
    /// request.
    pub fn restore_pool(&mut self, full_at: Instant, not_before: Instant, now: Instant) {
        self.budget.restore(full_at, not_before, now);
    }

    /// The request failed. Returns the cause if it was a 429 that the mirrored pool did not
    /// predict. `jitter` in `[0, 1)`.
    pub fn failed(
        &mut self,
        now: Instant,
        outcome: Outcome,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<RateLimitCause> {
        let took = now.since(self.settle(now));
        self.failures = self.failures.saturating_add(1);
        let refill = self.config.pool.refill;
        let retry_after = retry_after.map(|wait| wait.min(refill * budget::LONGEST_HOLD));

        let backoff = self.backoff();
        let pace = if outcome.is_permanent() {
            refill
        } else {
            backoff.delay(self.failures, jitter)
        };
        let mut cause = None;
        let delay = match self.cost(outcome) {
            cost @ (Cost::None | Cost::Refused) => {
                self.budget.give_back();
                self.set_share_ready_at(now);
                self.free_refusals += u32::from(cost == Cost::Refused);
                let last_chance = self.last_chance(now);
                let left = self.left(now);
                if outcome.is_permanent() && !last_chance.is_zero() {
                    pace.min(last_chance)
                } else if outcome.is_permanent() || left.is_zero() {
                    pace
                } else {
                    // free attempts may be frequent before the token expires
                    pace.min((left / 4).max(backoff.base / 2))
                }
            }
            Cost::Possible => pace.max(self.even_spacing(now)),
            Cost::PoolEmpty => {
                cause = Some(self.rate_limit_cause());
                if let Some(without) = &mut self.without_store
                    && without.membership == Membership::Unknown
                {
                    without.ready_at = None;
                }
                self.budget.rate_limited(now, retry_after);
                let intervals = self.last_chance(now).div_duration_f64(refill).floor();
                if intervals >= 1.0 {
                    self.last_chance(now).div_f64(intervals)
                } else {
                    // replicas that were refused together must not retry together
                    refill + (refill / 10).mul_f64(jitter)
                }
            }
        };
        let asked_to = retry_after.unwrap_or_default();
        // no request may be in flight at the last chance
        let last_chance = self.last_chance(now);
        let would_miss = (last_chance.saturating_sub(took)..last_chance).contains(&delay);
        let delay = if would_miss { last_chance } else { delay };
        self.due = now + delay.max(asked_to);
        self.deferred_until = Instant::ORIGIN;
        cause
    }

    /// The API rejected the current token. Returns whether a new one is requested at once; if not,
    /// one is requested as soon as that is allowed.
    pub fn rejected(&mut self, now: Instant) -> bool {
        let refill = self.config.pool.refill;
        let earliest = self.replaced.map_or(now, |at| (at + refill).max(now));
        self.mark_outdated();
        self.due = self.due.min(earliest);
        // do not remember what the pool and the standby allow now: a standby ends with the outage
        let is_allowed = self.next_request() <= now;
        if is_allowed {
            self.replaced = Some(now);
        }
        is_allowed
    }

    /// Makes a request due at `now`, if the pool and the share allow it: an operator wants the
    /// token replaced.
    ///
    /// # Errors
    /// How long until one is allowed. Then nothing has changed.
    pub fn renew_now(&mut self, now: Instant) -> Result<(), Duration> {
        let mut wanted = self.clone();
        wanted.due = now;
        wanted.mark_outdated();
        let wait = wanted.next_chance(now).since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *self = wanted;
        Ok(())
    }

    /// Applies another `config` from `now` on; the request that is due stays due.
    pub fn reconfigure(&mut self, config: Config, now: Instant) {
        self.budget.resize(config.pool, now);
        self.config = config;
    }

    /// The client's credentials changed at `now`: requests a token at once, as far as the pool
    /// allows, however the old credentials failed.
    pub fn credentials_changed(&mut self, now: Instant) {
        self.due = now;
        self.mark_outdated();
        self.failures = 0;
    }

    /// Another client is used from `now` on: requests a token at once, from that client's own, full
    /// pool.
    pub fn client_changed(&mut self, now: Instant) {
        *self = Schedule {
            usable_until: self.usable_until,
            without_store: self.without_store,
            ..Schedule::new(self.config, now)
        };
        self.mark_outdated();
    }

    /// The mirrored pool.
    #[must_use]
    pub fn pool(&self) -> &Budget {
        &self.budget
    }

    /// Consecutive failures.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The backoff after a free failure: from 1/60 to 1/5 of the refill interval.
    fn backoff(&self) -> Backoff {
        let refill = self.config.pool.refill;
        Backoff {
            base: refill / 60,
            cap: refill / 5,
        }
    }

    /// What a request with this `outcome` may have cost, as far as is known by now.
    fn cost(&self, outcome: Outcome) -> Cost {
        match outcome.cost() {
            Cost::Refused if self.refusals_charged => Cost::Possible,
            cost => cost,
        }
    }

    /// Ends the request in flight; returns when it was sent.
    fn settle(&mut self, now: Instant) -> Instant {
        let asked = self.asked.take().unwrap_or(now);
        self.budget.settle(asked, now);
        asked
    }

    /// Without a store, delays the renewal until one refill interval before the token expires,
    /// unless it is outdated.
    fn defer_renewal(&mut self) {
        if self.is_outdated {
            return;
        }
        let refill = self.config.pool.refill;
        if let (Some(without), Some(end)) = (&mut self.without_store, self.usable_until) {
            without.not_before = end - refill;
        }
    }

    /// Charges the mirror for requests that peers may have made while the store was unavailable.
    /// Their number is unknown. Their shares add up to less than the pool's refill, so they used up
    /// at most one request each beyond it, perhaps just now.
    fn charge_for_peers(&mut self, without: &WithoutStore, now: Instant) {
        let refill = self.config.pool.refill;
        let others = without.requesters - u32::from(without.ready_at.is_some());
        // since the last charge the peers' shares allowed no more than this; charging more for a
        // store that flaps would use up this process's own share
        let (charged, until) = self.peers_charged;
        let share = f64::from(others) / f64::from(without.requesters);
        let more = (now + refill * others).since(until.max(now));
        let more = more.min(now.since(charged).mul_f64(share));
        self.peers_charged = (now, until.max(now) + more);
        let most = now + refill * self.config.pool.capacity;
        let full_at = self.budget.times().0.max(now) + more;
        self.budget.restore(full_at.min(most), Instant::ORIGIN, now);
    }

    /// Marks the token as outdated, and clears the delays of its renewal.
    fn mark_outdated(&mut self) {
        self.is_outdated = true;
        self.deferred_until = Instant::ORIGIN;
        if let Some(without) = &mut self.without_store {
            without.not_before = Instant::ORIGIN;
        }
    }

    /// Sets when the share allows the next request, if this replica has one.
    fn set_share_ready_at(&mut self, at: Instant) {
        if let Some(without) = &mut self.without_store
            && let Some(ready_at) = &mut without.ready_at
        {
            *ready_at = at;
            self.share_ready_at = at;
        }
    }

    /// The interval that spreads the requests allowed until the token expires evenly; zero without
    /// a usable token.
    fn even_spacing(&self, now: Instant) -> Duration {
        let refill = self.config.pool.refill;
        let left = self.left(now);
        if left.is_zero() {
            return Duration::ZERO;
        }
        let attempts = self.budget.available(now) + left.as_secs_f64() / refill.as_secs_f64();
        if attempts < 1.0 {
            return Duration::ZERO;
        }
        self.last_chance(now).div_f64(attempts.floor())
    }

    /// How long the current token may still be sent; zero without one.
    fn left(&self, now: Instant) -> Duration {
        let left = self.usable_until.map(|end| end.since(now));
        left.unwrap_or_default()
    }

    /// The time left until the last attempt that can still replace the token before it expires.
    /// That is 1/40 of the refill interval earlier, 1.5 s at one a minute. Zero if it has passed or
    /// there is no usable token.
    fn last_chance(&self, now: Instant) -> Duration {
        self.left(now).saturating_sub(self.config.pool.refill / 40)
    }

    /// Why the issuer refused a request that the mirrored pool allowed.
    fn rate_limit_cause(&mut self) -> RateLimitCause {
        if self.free_refusals > 0 && !self.refusals_charged {
            self.refusals_charged = true;
            RateLimitCause::RefusalsCharged
        } else {
            self.contended = CONTENDED_RENEWALS;
            RateLimitCause::PoolContended
        }
    }
}

#[cfg(test)]
mod changes;

#[cfg(test)]
mod digest;

#[cfg(test)]
mod tests;
