//! When to ask for a token: a state machine that never looks at a clock.
//!
//! Events go in ([`Schedule::granted`], [`Schedule::failed`]), the next step comes out
//! ([`Schedule::next`]), always with the time at which it is due. Every delay is a share of the
//! token's life or of the pool's refill interval, none is a number of seconds, so an issuer whose
//! tokens live for 3 seconds is served like one whose tokens live for 5 minutes.
//!
//! How a failure is followed up depends on what it may have cost:
//!
//! - nothing, or a plain refusal: exponential back-off from a 60th to a 5th of the refill interval
//!   (1 s to 12 s at one a minute), and ever more often as the token in hand nears its end;
//! - perhaps a token (no answer, a broken answer): as above, but while a token is in hand, what the
//!   pool still allows is spread evenly over the token's remaining life;
//! - a 429: at least one refill interval, or as long as the issuer asks; while a token is in hand,
//!   as many intervals as fit are spread over its remaining life;
//! - an error that only a person can mend: one refill interval.
//!
//! Whatever it was, one attempt falls on the last moment at which it may bring a token before the
//! one in hand ends, and none is under way then that could take as long as the one before it.
//!
//! New credentials are tried at once, and what was waited for because of the old ones is not waited
//! for; but the pool belongs to the client's id, and is as full as it was while that is the same.
//!
//! Where the pool will be full, what is refilled further is lost: the renewal is brought forward a
//! little. With tokens of 299 s and a pool of 5 and one a minute that makes 26 an hour at most, and
//! leaves the token in hand, whenever an outage begins, half of its life and time to spare for one
//! more request: an outage of half a life, 149.5 s, is not noticed, whatever it answers, if the pool
//! was full and a request takes less than a second. What remains: while others are thought to drink
//! from the pool (below) a token in hand has 140 s left at its renewal, and where an earlier outage
//! emptied the pool 146 s; there it is a second or two less than these.
//!
//! A 429 that the mirrored pool did not expect says that others take tokens of this client. The next
//! renewals then come as late as leaves time for two refused ones, so that there is more for all.
//!
//! While the store is away nobody tells who else asks. Each of a fleet then knows how many came
//! before it: the first ones, as many as the pool bears, keep to their even share of it and wait
//! until the token in hand nears its end; the others do not ask at all. One that knows nothing of
//! the fleet, because it never found the store, takes itself for one of the first ones until a 429
//! tells otherwise.
//!
//! While another process of a fleet asks, or has just asked in vain, this one waits as after a failure
//! of its own that cost nothing: however many they are, together they ask about as often as one
//! would, and do not all look at the store in the same moment.
//!
//! A token that the API refuses is replaced at once, but at most once in a refill interval: an API
//! that refuses everything for a while must not empty the pool.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Instant;
use crate::token::budget::{self, Budget};
use crate::token::ports::{Draw, Outcome, Rank};

/// When a client's token is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The share of a token's life after which it is renewed; above 0, below 1.
    pub refresh_at: f64,
    /// By what share of that time the renewal is brought forward, at most; 0 to 1.
    pub refresh_jitter: f64,
    /// The issuer's limit, mirrored.
    pub pool: budget::Config,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A token request is due and allowed: book it with [`Schedule::ask`], send it, and tell how
    /// it went.
    Ask,
    /// Come again then.
    WaitUntil(Instant),
}

/// What a 429 says that the mirrored pool did not expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// Other programs take tokens of this client.
    OthersDrink,
    /// Requests that were refused used up the pool too; they are counted from now on.
    RefusalsCount,
}

/// The refresh state machine of one client.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: Config,
    budget: Budget,
    /// When the request under way was sent.
    asked: Option<Instant>,
    /// Until when the token in hand may be sent.
    usable_until: Option<Instant>,
    /// When the next request is wanted; the budget may put it off.
    due: Instant,
    /// Failures since the last token.
    failures: u32,
    /// How often since the last token another process asked instead.
    yields: u32,
    /// No request before this: another process asks, or has just asked in vain.
    yielded_until: Instant,
    /// Refusals since the last token that were not booked.
    free_refusals: u32,
    /// Whether a refused request is known to use up the pool.
    refusals_count: bool,
    /// For how many renewals others are still thought to take tokens of this client.
    crowded: u32,
    /// When a token was last replaced because the API refused it.
    replaced: Option<Instant>,
    /// What is left to this process of a fleet while the store cannot be used.
    without_store: Option<WithoutStore>,
}

/// How one of a fleet goes on without a store.
#[derive(Clone, Copy, Debug)]
struct WithoutStore {
    /// The rank that the share follows from.
    rank: Rank,
    share: Share,
    /// So many may ask, this process or others.
    askers: u32,
    /// From then on others may have asked as well.
    since: Instant,
    /// No renewal before this. It counts only while the store cannot be used: once it is back, the
    /// renewal is due when it would have been.
    not_before: Instant,
}

/// What is left of the pool to one of a fleet that has no store.
#[derive(Clone, Copy, Debug)]
enum Share {
    /// One of `of` who ask.
    Part {
        of: u32,
        /// The next request is within the share from then on.
        ready_at: Instant,
        /// How many they are is not known.
        is_a_guess: bool,
    },
    /// Nothing: others ask.
    Nothing,
}

/// So many of a fleet ask for themselves without a store, at most: a token that lives for five
/// minutes, at one a minute, is no more than that.
const MOST_ASKERS: u32 = 4;

/// After how many renewals without a surprise the pool is thought to be this proxy's own again.
const CROWDED_RENEWALS: u32 = 3;

/// Where the pool will be full the renewal comes at this share of its time. At the defaults, where a
/// token is renewed after 0.458 to 0.483 of 299 s, it makes 25 to 26 tokens an hour.
const EARLY: f64 = 0.965;

/// No renewal is put off beyond this share of a token's life.
const LATEST_REFRESH: f64 = 0.8;

impl Schedule {
    /// A schedule without a token, whose first request is due at `now`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Schedule {
        Schedule {
            config,
            budget: Budget::full(config.pool),
            asked: None,
            usable_until: None,
            due: now,
            failures: 0,
            yields: 0,
            yielded_until: Instant::ORIGIN,
            free_refusals: 0,
            refusals_count: false,
            crowded: 0,
            replaced: None,
            without_store: None,
        }
    }

    /// What to do at `now`.
    #[must_use]
    pub fn next(&self, now: Instant) -> Step {
        let at = self.next_request();
        if at > now {
            Step::WaitUntil(at)
        } else {
            Step::Ask
        }
    }

    /// Books the request that [`Step::Ask`] calls for: it must now be sent, and
    /// [`Schedule::granted`] or [`Schedule::failed`] be called before anything else.
    pub fn ask(&mut self, now: Instant) {
        self.book(now);
        let refill = self.config.pool.refill;
        if let Some(Share::Part { of, ready_at, .. }) = self.share() {
            *ready_at = now + refill * *of;
        }
    }

    /// Books a request that is sent only once the store has it too. If the store refuses, call
    /// [`Schedule::withdrawn`] or [`Schedule::unbooked`]. Otherwise as [`Schedule::ask`].
    pub fn book(&mut self, now: Instant) {
        debug_assert!(self.asked.is_none(), "two requests at a time");
        self.budget.take(now);
        self.asked = Some(now);
    }

    /// The request that was booked is not sent: the store could not keep it.
    pub fn unbooked(&mut self, now: Instant) {
        self.settle(now);
        self.budget.give_back();
    }

    /// The request that was booked is not sent after all: another process asks. `jitter` in
    /// `[0, 1)`.
    pub fn withdrawn(&mut self, now: Instant, jitter: f64) {
        self.unbooked(now);
        self.yielded(now, jitter);
    }

    /// When the next request will be made, if none is under way; at the end of time if none will.
    #[must_use]
    pub fn next_request(&self) -> Instant {
        let with_store = self.next_with_store();
        match self.without_store {
            None => with_store,
            Some(without) => match without.share {
                Share::Part { ready_at, .. } => with_store.max(ready_at).max(without.not_before),
                Share::Nothing => Instant::ORIGIN + Duration::MAX,
            },
        }
    }

    /// When the next request would be made if the store could be used.
    #[must_use]
    pub fn next_with_store(&self) -> Instant {
        self.next_with_lease().max(self.yielded_until)
    }

    /// The same once this process has the right to ask: no other one is asking then.
    #[must_use]
    pub fn next_with_lease(&self) -> Instant {
        self.due.max(self.budget.ready_at())
    }

    /// When the request that is booked or under way was booked.
    #[must_use]
    pub fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// When it is worth looking for a token again, as seen at `now`: when the next request will be
    /// made, or a quarter of the refill interval later while others have to.
    #[must_use]
    pub fn next_chance(&self, now: Instant) -> Instant {
        match self.without_store {
            Some(without) if matches!(without.share, Share::Nothing) => {
                now + self.config.pool.refill / 4
            }
            _ => self.next_request(),
        }
    }

    /// The store cannot be used, of which this process is the one that `rank` says. Call it again
    /// while it cannot be: a rank that became known changes the share.
    pub fn store_away(&mut self, rank: Rank, now: Instant) {
        if self.without_store.is_some_and(|known| known.rank == rank) {
            return;
        }
        let pool = self.config.pool;
        let askers = (pool.capacity - 1).clamp(1, MOST_ASKERS);
        let mut share = match rank {
            Rank::Alone => return,
            Rank::Among { before, all } if before < askers => Share::Part {
                of: all.clamp(1, askers),
                // those before this one may ask as well
                ready_at: self.budget.holds_at(before + 1),
                is_a_guess: false,
            },
            Rank::Among { .. } => Share::Nothing,
            Rank::Unknown => Share::Part {
                of: askers,
                // it may be about to come
                ready_at: now + pool.refill / 12,
                is_a_guess: true,
            },
        };
        let before = self.without_store;
        if let (Share::Part { of, ready_at, .. }, Some(before)) = (&mut share, before) {
            *ready_at = (*ready_at).max(match before.share {
                Share::Part { ready_at, .. } => ready_at,
                // the one whose place this is may have asked a moment ago
                Share::Nothing => now + pool.refill * *of,
            });
        }
        let askers = match rank {
            Rank::Among { all, .. } => all.clamp(1, askers),
            Rank::Alone | Rank::Unknown => askers,
        };
        let in_hand = self.usable_until.map_or(now, |end| end - pool.refill);
        self.without_store = Some(WithoutStore {
            rank,
            share,
            askers,
            since: before.map_or(in_hand.max(now), |before| before.since),
            not_before: before.map_or(Instant::ORIGIN, |before| before.not_before),
        });
        if before.is_none() {
            self.put_off();
        }
    }

    /// The store is back. If there is no token in hand, one that others have is waited for for up
    /// to a 30th of the refill interval, 2 s of a minute, unless this process `may_ask` already.
    /// `jitter` in `[0, 1)`.
    pub fn store_back(&mut self, now: Instant, may_ask: bool, jitter: f64) {
        let Some(without) = self.without_store.take() else {
            return;
        };
        self.count_the_others(&without, now);
        self.yields = 0;
        self.yielded_until = Instant::ORIGIN;
        if !may_ask && self.left(now).is_zero() {
            let longest = self.config.pool.refill / 30;
            self.due = self.due.max(now + longest.mul_f64(1.0 - jitter / 2.0));
        }
    }

    /// A token came that lives for `lifetime` from when it was asked for and may be sent until
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

    /// A token is taken over that another process asked for at `asked`; otherwise as
    /// [`Schedule::granted`].
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
        if self.crowded == 0 && self.budget.times().0 <= early {
            self.due = early;
        }
        if self.crowded > 0 {
            self.crowded -= 1;
            let refill = self.config.pool.refill;
            let late = usable_until - refill * 2 - refill / 3;
            self.due = self
                .due
                .max(late.min(asked + lifetime.mul_f64(LATEST_REFRESH)));
        }
        self.usable_until = Some(usable_until);
        self.failures = 0;
        self.yields = 0;
        self.yielded_until = Instant::ORIGIN;
        self.free_refusals = 0;
        self.put_off();
    }

    /// Another process is asking, or has just asked: what is due is put off by the back-off that
    /// follows a failure that cost nothing. The other's token is told of when it comes; this is for
    /// one that does not come. `jitter` in `[0, 1)`.
    pub fn yielded(&mut self, now: Instant, jitter: f64) {
        self.yields = self.yields.saturating_add(1);
        let backoff = self.backoff();
        let pace = backoff.delay(self.yields, jitter);
        let left = self.left(now);
        let wait = if left.is_zero() {
            pace
        } else {
            pace.min((left / 4).max(backoff.base))
        };
        self.yielded_until = self.yielded_until.max(now + wait);
    }

    /// What another process knows of the pool: when it is full again, and until when the issuer
    /// wants no request.
    pub fn restore_pool(&mut self, full_at: Instant, not_before: Instant, now: Instant) {
        self.budget.restore(full_at, not_before, now);
    }

    /// The request brought no token. `jitter` in `[0, 1)`. Says so if a 429 came that the mirrored
    /// pool did not expect.
    pub fn failed(
        &mut self,
        now: Instant,
        outcome: Outcome,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Surprise> {
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
        let mut surprise = None;
        let delay = match self.draw(outcome) {
            draw @ (Draw::Nothing | Draw::Refused) => {
                self.budget.give_back();
                if let Some(Share::Part { ready_at, .. }) = self.share() {
                    *ready_at = now;
                }
                self.free_refusals += u32::from(draw == Draw::Refused);
                let last_chance = self.last_chance(now);
                let left = self.left(now);
                if outcome.is_permanent() && !last_chance.is_zero() {
                    pace.min(last_chance)
                } else if outcome.is_permanent() || left.is_zero() {
                    pace
                } else {
                    // what costs nothing may be tried often before the token in hand ends
                    pace.min((left / 4).max(backoff.base / 2))
                }
            }
            Draw::Perhaps => pace.max(self.even_share(now)),
            Draw::Empty => {
                surprise = Some(self.explain_429());
                if let Some(share) = self.share()
                    && let Share::Part {
                        is_a_guess: true, ..
                    } = share
                {
                    *share = Share::Nothing;
                }
                self.budget.rate_limited(now, retry_after);
                let intervals = self.last_chance(now).div_duration_f64(refill).floor();
                if intervals >= 1.0 {
                    self.last_chance(now).div_f64(intervals)
                } else {
                    // a fleet that was refused together does not come again together
                    refill + (refill / 10).mul_f64(jitter)
                }
            }
        };
        let asked_to = retry_after.unwrap_or_default();
        // none may be under way at the last chance
        let last_chance = self.last_chance(now);
        let would_miss = (last_chance.saturating_sub(took)..last_chance).contains(&delay);
        let delay = if would_miss { last_chance } else { delay };
        self.due = now + delay.max(asked_to);
        self.yielded_until = Instant::ORIGIN;
        surprise
    }

    /// The API refused the token in hand. Whether a new one is asked for at once because of it; if
    /// not, one will be as soon as that is allowed again.
    pub fn rejected(&mut self, now: Instant) -> bool {
        let refill = self.config.pool.refill;
        let earliest = self.replaced.map_or(now, |at| (at + refill).max(now));
        self.due_at_once(now);
        self.due = self.due.min(earliest);
        // what the pool and the share allow is not to be remembered: a share ends with the outage
        let is_allowed = self.next_request() <= now;
        if is_allowed {
            self.replaced = Some(now);
        }
        is_allowed
    }

    /// A person wants the token in hand replaced: a request is due at `now`, as far as pool and share
    /// allow it.
    ///
    /// # Errors
    /// How long until one is allowed; nothing has changed then.
    pub fn renew_now(&mut self, now: Instant) -> Result<(), Duration> {
        let mut wanted = self.clone();
        wanted.due = now;
        wanted.due_at_once(now);
        let wait = wanted.next_chance(now).since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *self = wanted;
        Ok(())
    }

    /// Tokens are renewed by another `config` from `now` on; the request that is due stays so.
    pub fn reconfigure(&mut self, config: Config, now: Instant) {
        self.budget.resize(config.pool, now);
        self.config = config;
    }

    /// The same client asks with other credentials from `now` on: at once, whatever became of the
    /// old ones, as far as the pool allows.
    pub fn credentials_changed(&mut self, now: Instant) {
        self.due = now;
        self.due_at_once(now);
        self.failures = 0;
    }

    /// Another client asks from `now` on, at once: it has a pool of its own, of which nothing is
    /// taken yet.
    pub fn client_changed(&mut self, now: Instant) {
        *self = Schedule {
            usable_until: self.usable_until,
            without_store: self.without_store,
            ..Schedule::new(self.config, now)
        };
        self.due_at_once(now);
    }

    /// The mirrored pool.
    #[must_use]
    pub fn pool(&self) -> &Budget {
        &self.budget
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// All that decides what comes next, as seen at `now`, for telling states apart.
    #[cfg(test)]
    pub(crate) fn digest(&self, now: Instant, into: &mut Vec<i64>) {
        let ahead = |at: Instant| i64::try_from(at.since(now).as_millis()).unwrap_or(i64::MAX);
        let (full_at, not_before) = self.budget.times();
        into.extend([full_at, not_before, self.due, self.yielded_until].map(ahead));
        let ago = |at: Instant| i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
        into.push(self.asked.map_or(-1, ago));
        into.push(self.usable_until.map_or(-1, ahead));
        into.push(
            self.replaced
                .map_or(-1, |at| ahead(at + self.config.pool.refill)),
        );
        into.extend([self.failures.min(6), self.yields.min(6)].map(i64::from));
        into.extend([self.free_refusals.min(1), self.crowded].map(i64::from));
        into.push(i64::from(self.refusals_count));
        let Some(without) = &self.without_store else {
            return into.push(-2);
        };
        into.push(match without.rank {
            Rank::Alone | Rank::Unknown => -1,
            Rank::Among { before, all } => i64::from(before * 8 + all),
        });
        into.extend([without.not_before, without.since].map(ahead));
        into.push(i64::from(without.askers));
        into.push(match without.share {
            Share::Nothing => -1,
            Share::Part { ready_at, .. } => ahead(ready_at),
        });
    }

    /// How what cost nothing is followed up: after a 60th of the refill interval, and then less and
    /// less often, up to a 5th of it.
    fn backoff(&self) -> Backoff {
        let refill = self.config.pool.refill;
        Backoff {
            base: refill / 60,
            cap: refill / 5,
        }
    }

    /// What a request that failed so may have cost, as far as is known by now.
    fn draw(&self, outcome: Outcome) -> Draw {
        match outcome.draw() {
            Draw::Refused if self.refusals_count => Draw::Perhaps,
            draw => draw,
        }
    }

    /// Closes the request under way; gives the time it was sent.
    fn settle(&mut self, now: Instant) -> Instant {
        let asked = self.asked.take().unwrap_or(now);
        self.budget.settle(asked, now);
        asked
    }

    /// Without a store the token in hand is renewed as late as leaves a refill interval for it.
    fn put_off(&mut self) {
        let refill = self.config.pool.refill;
        if let (Some(without), Some(end)) = (&mut self.without_store, self.usable_until) {
            without.not_before = end - refill;
        }
    }

    /// Nobody knows what the others took from the pool while the store could not be used: as much as
    /// their shares allowed, for all that is known.
    fn count_the_others(&mut self, without: &WithoutStore, now: Instant) {
        if now < without.since {
            return;
        }
        let refill = self.config.pool.refill;
        let others = match without.share {
            Share::Part { .. } => without.askers - 1,
            Share::Nothing => without.askers,
        };
        let times = now
            .since(without.since)
            .div_duration_f64(refill * without.askers);
        let most = self.config.pool.capacity;
        let taken = (f64::from(others) * (1.0 + times.floor())).min(f64::from(most));
        let full_at = self.budget.times().0.max(without.since) + refill.mul_f64(taken);
        self.budget
            .restore(full_at.min(now + refill * most), Instant::ORIGIN, now);
    }

    /// What put the request off no longer holds: it is not for the token in hand that it is made.
    fn due_at_once(&mut self, now: Instant) {
        self.yielded_until = Instant::ORIGIN;
        if let Some(without) = &mut self.without_store {
            without.not_before = Instant::ORIGIN;
            without.since = without.since.min(now);
        }
    }

    fn share(&mut self) -> Option<&mut Share> {
        self.without_store
            .as_mut()
            .map(|without| &mut without.share)
    }

    /// The spacing by which the attempts that the pool allows until the token in hand ends are
    /// spread evenly; zero if there is no token to be saved.
    fn even_share(&self, now: Instant) -> Duration {
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

    /// How long the token in hand may still be sent; zero if there is none.
    fn left(&self, now: Instant) -> Duration {
        let left = self.usable_until.map(|end| end.since(now));
        left.unwrap_or_default()
    }

    /// How long it is until the last moment at which an attempt may bring a token before the one in
    /// hand ends: a 40th of the refill interval before that, 1.5 s at one a minute. Zero if it is
    /// past, or if there is no token to be saved.
    fn last_chance(&self, now: Instant) -> Duration {
        self.left(now).saturating_sub(self.config.pool.refill / 40)
    }

    /// Why a request that the mirrored pool allowed was refused for the pool's sake.
    fn explain_429(&mut self) -> Surprise {
        if self.free_refusals > 0 && !self.refusals_count {
            self.refusals_count = true;
            Surprise::RefusalsCount
        } else {
            self.crowded = CROWDED_RENEWALS;
            Surprise::OthersDrink
        }
    }
}

#[cfg(test)]
mod changes;

#[cfg(test)]
mod tests;
