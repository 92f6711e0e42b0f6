//! The renewal of one client's token: all of its decisions, without a clock, a socket or a file.
//!
//! An [`Event`] goes in, one [`Action`] comes out. The loop in [`service`](crate::token::service)
//! carries the action out and reports the result as the next event; it decides nothing.
//! [`Schedule`] only answers when the next request is due.
//!
//! **With the store**, a request takes five actions: acquire the lease, read, publish, request,
//! publish. The first publication books the request before it is sent. If the process dies during
//! the request, its possible cost is not forgotten.
//!
//! **Without the store**, a process sends requests only within its share of the pool. A store is
//! usable only if all of it works: one that can be read but not written books nothing for anyone.
//! The machine retries what failed on its own timer ([`Renewal::probe_at`]), whether or not the
//! store reports that it is back. If reading failed it retries the read, otherwise the whole
//! sequence from the lease to the publication.
//!
//! Invariants, asserted at each step:
//!
//! 1. A request is sent only if it is booked in the store, or if the store is unavailable and this
//!    process's share allows it. There is never a second request in flight.
//! 2. The generation never decreases.
//! 3. Nothing is published without the lease, and no lease is held while the machine waits.
//! 4. Every wait ends. While the store is unavailable it ends within `LONGEST_PROBE` of the refill
//!    interval.
//! 5. A token that has expired or was revoked is not offered ([`Renewal::offered`]).
//! 6. A change of the store's state is noted once.

mod event;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::token::cache::{Failure, NextAttempt, REVOKED_AFTER, Status};
use crate::token::ports::{Grant, Outcome, Record, RequestError, StoreError};
use crate::token::schedule::{Config, Schedule};
use crate::token::service::{Change, NotNow};
use crate::token::token::Token;

pub use event::{Action, Context, Event, Note, StoreState};

/// The shortest pause before an unavailable store is retried, for pools of any rate.
const SHORTEST_PROBE: Duration = Duration::from_millis(300);

/// How often an unavailable store is retried if this process needs it, as a divisor of the refill
/// interval: every 2 s at one a minute.
const PROBE: u32 = 30;

/// The same while the token is valid and no renewal is due: every 15 s at one a minute.
const LONGEST_PROBE: u32 = 4;

/// The state machine of one client's renewal.
#[derive(Clone, Debug)]
pub struct Renewal {
    client_id: ClientId,
    schedule: Schedule,
    token: Option<Arc<Token>>,
    /// The client that the token was issued to.
    issued_to: Option<ClientId>,
    /// The token and the generations belong to the previous client.
    is_previous_clients: bool,
    /// The highest known generation, here or in the store.
    generation: u64,
    failure: Option<Failure>,
    /// The API rejected the token, and a new one is being requested.
    is_replacing: bool,
    /// The API rejects the token for all callers.
    is_revoked: bool,
    /// The newest generation whose rejection was handled.
    last_rejection_seen: u64,
    store: StoreState,
    /// Why the last write failed although reading worked. Kept while the store is unavailable.
    unwritten: Option<Arc<str>>,
    /// When an unavailable store was last retried, and the jitter of the next retry.
    probed: (Instant, f64),
    phase: Phase,
    holds_lease: bool,
    notes: Vec<Note>,
}

/// The action in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Waiting,
    Reading(Why),
    Leasing(Why),
    /// The request is published before it is sent.
    Booking,
    /// The request is in flight.
    Asking {
        is_booked: bool,
    },
    /// The result is published.
    Storing,
}

/// Why the store is read, or the lease requested.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Why {
    /// To adopt the stored record: the engine starts, or another process holds the lease by now.
    Adopt,
    /// The stored record may have changed.
    Sync,
    /// A request is due, or the whole sequence is retried.
    Renew,
    /// The stored record is older than the local state.
    Restore,
    /// A write failed for this reason: is the store readable at all?
    Diagnose(Arc<str>),
    /// The store is unavailable and a request is due: one last read before it is sent.
    FinalCheck,
}

impl Renewal {
    /// Returns a machine without a token. Its first event must be [`Event::Started`].
    #[must_use]
    pub fn new(config: Config, client_id: ClientId, now: Instant) -> Renewal {
        Renewal {
            client_id,
            schedule: Schedule::new(config, now),
            token: None,
            issued_to: None,
            is_previous_clients: false,
            generation: 0,
            failure: None,
            is_replacing: false,
            is_revoked: false,
            last_rejection_seen: 0,
            store: StoreState::Usable,
            unwritten: None,
            probed: (now, 0.0),
            phase: Phase::Waiting,
            holds_lease: false,
            notes: Vec::new(),
        }
    }

    /// Handles `event` and returns the next action.
    ///
    /// The event is the result of the previous action, or it ends a wait.
    pub fn on(&mut self, event: Event, context: &Context) -> Action {
        let before = self.generation;
        if self.store != StoreState::Usable {
            self.schedule
                .store_unavailable(context.membership, context.now);
        }
        if self.phase == Phase::Waiting {
            self.handle_rejection(context);
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting);
        let action = match (phase, event) {
            (Phase::Reading(why), Event::Read(Ok(record))) => self.on_read(why, record, context),
            (Phase::Reading(why), Event::Read(Err(error))) => {
                self.on_read_failed(&why, &error, context)
            }
            (Phase::Leasing(why), Event::Leased(leased)) => self.on_leased(&why, leased, context),
            (phase @ (Phase::Booking | Phase::Storing), Event::Published(published)) => {
                self.on_published(phase == Phase::Booking, published, context)
            }
            (Phase::Asking { is_booked }, Event::Answered(answer)) => {
                self.on_answered(is_booked, answer, context)
            }
            (Phase::Waiting, Event::Started(left)) => {
                if let Some(record) = left {
                    self.adopt(&record, context);
                }
                self.read(Why::Adopt)
            }
            (Phase::Waiting, Event::Changed) => self.read(Why::Sync),
            (Phase::Waiting, Event::Configured(config, client_id, change)) => {
                self.configured(config, client_id, change, context)
            }
            (Phase::Waiting, Event::Stopped) => Action::Leave,
            (Phase::Waiting, Event::Time) => self.wait(context),
            (phase, event) => {
                debug_assert!(false, "{event:?} while {phase:?}");
                self.wait(context)
            }
        };
        self.update_revoked(context);
        self.check(before, &action, context);
        action
    }

    /// Makes the next request due at `now`, because an operator wants the token of this
    /// `generation` replaced. Call it only between [`Action::WaitUntil`] and the next event, which
    /// may be [`Event::Time`].
    ///
    /// # Errors
    /// [`NotNow`] if no request is allowed now, or the token was replaced meanwhile.
    pub fn renew_now(&mut self, generation: u64, now: Instant) -> Result<(), NotNow> {
        debug_assert_eq!(self.phase, Phase::Waiting);
        let held = self.token.as_ref().map_or(0, |token| token.generation());
        if held != generation {
            return Err(NotNow::InFlight);
        }
        let in_pool = self.schedule.pool().ready_at().since(now);
        self.schedule.renew_now(now).map_err(|retry_after| {
            if in_pool.is_zero() {
                NotNow::Share { retry_after }
            } else {
                NotNow::Pool { retry_after }
            }
        })
    }

    /// Returns whether the lease is still needed.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.holds_lease
    }

    /// Takes the notes for operators since the last call.
    pub fn notes(&mut self) -> impl Iterator<Item = Note> + use<> {
        std::mem::take(&mut self.notes).into_iter()
    }

    /// The state of the renewal. Every [`Status`] is built here.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let is_asking = match &self.phase {
            // a renewal ends once its token is stored
            Phase::Booking | Phase::Asking { .. } | Phase::Storing => true,
            Phase::Reading(Why::Renew) | Phase::Leasing(Why::Renew) => {
                self.schedule.next_with_store() <= now
            }
            _ => false,
        };
        Status {
            token: self.token.clone(),
            issued_to: self.issued_to.clone(),
            next: match is_asking {
                true => NextAttempt::InFlight,
                false => NextAttempt::At(self.schedule.next_chance(now)),
            },
            failure: self.failure.clone(),
            pool: self.schedule.pool().clone(),
            rejected: self.is_replacing || self.is_revoked,
            revoked: self.is_revoked,
            last_rejection_seen: self.last_rejection_seen,
            store_problem: self.store.problem().cloned(),
        }
    }

    /// The token that requests may use at `now`.
    #[must_use]
    pub fn offered(&self, now: Instant) -> Option<&Arc<Token>> {
        let is_good = |token: &&Arc<Token>| token.is_usable(now);
        let is_rejected = self.is_replacing || self.is_revoked;
        self.token.as_ref().filter(is_good).filter(|_| !is_rejected)
    }

    /// When requests are due.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    // --- results of actions

    fn on_read(&mut self, why: Why, record: Option<Record>, context: &Context) -> Action {
        let before = self.generation;
        let was_away = matches!(self.store, StoreState::Unavailable(_));
        if let Why::Diagnose(problem) = &why {
            self.unwritten = Some(Arc::clone(problem));
        }
        self.set_store_state(
            match &self.unwritten {
                None => StoreState::Usable,
                Some(problem) => StoreState::Unwritable(Arc::clone(problem)),
            },
            context,
        );
        if let Some(record) = &record {
            self.adopt(record, context);
        }
        let is_usable = self.store == StoreState::Usable;
        let is_older = self.is_newer_than(record.as_ref(), context.now);
        match why {
            Why::Sync | Why::FinalCheck => {
                if why == Why::Sync && is_usable && self.generation == before {
                    // no token came: a peer is requesting one, or has failed to
                    self.schedule.deferred_to_peer(context.now, context.jitter);
                }
                if !is_usable && was_away {
                    return self.lease(Why::Renew);
                }
                if is_usable && is_older {
                    return self.lease(Why::Restore);
                }
                self.wait(context)
            }
            Why::Renew => {
                // until the store is known to be usable, the peers' requests are not charged
                if is_usable && self.schedule.next_with_lease() <= context.now {
                    self.schedule.book(context.now);
                    return self.publish(Phase::Booking, context);
                }
                self.mark_rejections_seen(context);
                if is_older || !is_usable {
                    return self.publish(Phase::Storing, context);
                }
                self.wait(context)
            }
            Why::Restore if is_older => self.publish(Phase::Storing, context),
            Why::Restore | Why::Adopt => self.wait(context),
            Why::Diagnose(_) => self.proceed_without_store(context),
        }
    }

    fn on_read_failed(&mut self, why: &Why, error: &StoreError, context: &Context) -> Action {
        self.set_store_state(StoreState::Unavailable(error.to_string().into()), context);
        match why {
            Why::Renew | Why::Diagnose(_) | Why::FinalCheck => self.proceed_without_store(context),
            Why::Adopt | Why::Sync | Why::Restore => self.wait(context),
        }
    }

    fn on_leased(
        &mut self,
        why: &Why,
        leased: Result<bool, StoreError>,
        context: &Context,
    ) -> Action {
        match leased {
            Ok(true) => {
                self.holds_lease = true;
                self.read(why.clone())
            }
            Ok(false) | Err(StoreError::Conflict(_)) => {
                self.probed = (context.now, context.jitter);
                if *why == Why::Renew {
                    // the store announces the holder's token; this covers a holder that dies
                    self.schedule.deferred_to_peer(context.now, context.jitter);
                }
                self.wait(context)
            }
            Err(StoreError::Unavailable(problem)) => self.read(Why::Diagnose(problem.into())),
        }
    }

    fn on_published(
        &mut self,
        is_booking: bool,
        published: Result<(), StoreError>,
        context: &Context,
    ) -> Action {
        if is_booking && published.is_ok() {
            self.on_written(context);
            return self.ask(true);
        }
        self.holds_lease = false;
        if is_booking {
            self.schedule.unbook(context.now);
        }
        match published {
            Ok(()) => {
                self.on_written(context);
                self.wait(context)
            }
            Err(StoreError::Unavailable(problem)) => self.read(Why::Diagnose(problem.into())),
            Err(StoreError::Conflict(why)) => {
                if is_booking {
                    self.schedule.deferred_to_peer(context.now, context.jitter);
                    self.mark_rejections_seen(context);
                }
                self.notes.push(Note::NotStored(why));
                self.read(Why::Adopt)
            }
        }
    }

    fn on_answered(
        &mut self,
        is_booked: bool,
        answer: Result<Grant, RequestError>,
        context: &Context,
    ) -> Action {
        let now = context.now;
        let asked = self.schedule.asked().unwrap_or(now);
        let took = now.since(asked);
        match answer.and_then(|grant| self.token_from(asked, &grant)) {
            Ok(token) => {
                let (lifetime, end) = (token.lifetime(), token.usable_until());
                self.schedule.granted(now, lifetime, end, context.jitter);
                self.install(token);
                self.notes.push(Note::Received { took });
            }
            Err(error) => self.on_request_failed(error, took, context),
        }
        // the answer settles every rejection that arrived while the request was in flight
        self.mark_rejections_seen(context);
        if is_booked {
            return self.publish(Phase::Storing, context);
        }
        self.wait(context)
    }

    fn configured(
        &mut self,
        config: Config,
        client_id: ClientId,
        change: Change,
        context: &Context,
    ) -> Action {
        let now = context.now;
        self.schedule.reconfigure(config, now);
        self.client_id = client_id;
        // the store may be another one, of which nothing is known
        self.unwritten = None;
        self.set_store_state(StoreState::Usable, context);
        match change {
            Change::Nothing => {}
            Change::Credentials => self.schedule.credentials_changed(now),
            Change::Client => {
                self.schedule.client_changed(now);
                self.is_previous_clients = true;
            }
        }
        self.wait(context)
    }

    // --- what to do next

    /// Starts what is due, or waits for it.
    fn wait(&mut self, context: &Context) -> Action {
        self.holds_lease = false;
        let now = context.now;
        let next = self.schedule.next_request();
        if self.store == StoreState::Usable {
            if next <= now {
                return self.lease(Why::Renew);
            }
            return Action::WaitUntil(next);
        }
        let probe = self.probe_at(now);
        if next <= now || probe <= now {
            self.probed = (now, context.jitter);
            return match self.store {
                StoreState::Unavailable(_) if next <= now => self.read(Why::FinalCheck),
                StoreState::Unavailable(_) => self.read(Why::Sync),
                _ => self.lease(Why::Renew),
            };
        }
        // the store is retried more often from then on
        let wanted = self.schedule.next_with_store();
        let soon = Some(wanted).filter(|at| *at > now).unwrap_or(probe);
        Action::WaitUntil(next.min(probe).min(soon))
    }

    /// When an unavailable store is retried.
    #[must_use]
    pub fn probe_at(&self, now: Instant) -> Instant {
        let refill = self.schedule.pool().config().refill;
        let (last, jitter) = self.probed;
        let is_needed = self.offered(now).is_none() || self.schedule.next_with_store() <= now;
        let pause = refill / if is_needed { PROBE } else { LONGEST_PROBE };
        last + pause.max(SHORTEST_PROBE).mul_f64(1.0 - jitter / 2.0)
    }

    /// The store is unavailable: requests a token within this process's share, or waits.
    fn proceed_without_store(&mut self, context: &Context) -> Action {
        if self.schedule.next_request() <= context.now {
            self.schedule.ask(context.now);
            return self.ask(false);
        }
        self.mark_rejections_seen(context);
        self.wait(context)
    }

    fn read(&mut self, why: Why) -> Action {
        self.phase = Phase::Reading(why);
        Action::Read
    }

    fn lease(&mut self, why: Why) -> Action {
        self.phase = Phase::Leasing(why);
        Action::Lease
    }

    fn ask(&mut self, is_booked: bool) -> Action {
        self.phase = Phase::Asking { is_booked };
        Action::Ask
    }

    fn publish(&mut self, phase: Phase, context: &Context) -> Action {
        self.phase = phase;
        Action::Publish(Box::new(self.record(context)))
    }

    // --- state

    fn set_store_state(&mut self, state: StoreState, context: &Context) {
        if state != StoreState::Usable {
            self.probed = (context.now, context.jitter);
            self.schedule
                .store_unavailable(context.membership, context.now);
        } else {
            self.schedule
                .store_recovered(context.now, self.holds_lease, context.jitter);
        }
        let is_new = std::mem::discriminant(&state) != std::mem::discriminant(&self.store);
        self.store = state.clone();
        if is_new {
            self.notes.push(Note::Store(state));
        }
    }

    /// A publication succeeded, so all of the store works.
    fn on_written(&mut self, context: &Context) {
        self.unwritten = None;
        if self.store != StoreState::Usable {
            self.set_store_state(StoreState::Usable, context);
        }
    }

    /// The API rejected a token. If it is the current one, requests a new one as soon as that is
    /// allowed.
    fn handle_rejection(&mut self, context: &Context) {
        let refused = context.rejections.generation;
        if refused <= self.last_rejection_seen {
            return;
        }
        self.last_rejection_seen = refused;
        let held = self.token.as_ref().map(|token| token.generation());
        if held == Some(refused) {
            self.is_replacing = self.schedule.rejected(context.now);
            self.notes.push(Note::Rejected);
        }
    }

    /// Updates whether the API rejects the current token for all callers.
    fn update_revoked(&mut self, context: &Context) {
        let rejections = context.rejections;
        let generation = self.token.as_ref().map_or(0, |token| token.generation());
        let is_revoked = rejections.generation == generation
            && rejections.accepted == generation
            && rejections.in_a_row >= REVOKED_AFTER;
        if is_revoked && !self.is_revoked {
            self.notes.push(Note::Revoked);
        }
        self.is_revoked = is_revoked;
    }

    /// All rejections so far are handled, or cannot be for now.
    fn mark_rejections_seen(&mut self, context: &Context) {
        self.last_rejection_seen = self.last_rejection_seen.max(context.rejections.generation);
        self.is_replacing = false;
    }

    fn on_request_failed(&mut self, error: RequestError, took: Duration, context: &Context) {
        let now = context.now;
        let cause = self
            .schedule
            .failed(now, error.outcome, error.retry_after, context.jitter);
        self.notes.push(Note::Failed { took, cause });
        self.failure = Some(Failure {
            at: now,
            error,
            in_a_row: self.schedule.failures(),
        });
    }

    fn token_from(&self, asked: Instant, grant: &Grant) -> Result<Token, RequestError> {
        let generation = self.generation + 1;
        let token = Token::new(&grant.access_token, generation, asked, grant.expires_in);
        token.map_err(|problem| RequestError {
            outcome: Outcome::Malformed,
            retry_after: None,
            message: problem.to_string(),
        })
    }

    fn install(&mut self, token: Token) {
        self.generation = self.generation.max(token.generation());
        self.token = Some(Arc::new(token));
        self.issued_to = Some(self.client_id.clone());
        self.is_previous_clients = false;
        self.failure = None;
    }

    /// Asserts the invariants that the module's documentation lists.
    fn check(&self, generation_before: u64, action: &Action, context: &Context) {
        debug_assert!(
            self.generation >= generation_before,
            "the generation decreased"
        );
        let is_usable = self.store == StoreState::Usable;
        match action {
            Action::Ask => {
                let is_booked = self.phase == Phase::Asking { is_booked: true };
                debug_assert!(is_booked && self.holds_lease || !is_usable, "{self:?}");
                debug_assert!(
                    self.schedule.asked() == Some(context.now) || is_booked,
                    "{self:?}"
                );
            }
            Action::Publish(_) => debug_assert!(self.holds_lease, "{self:?}"),
            Action::WaitUntil(at) => {
                debug_assert!(!self.holds_lease && self.phase == Phase::Waiting);
                let refill = self.schedule.pool().config().refill;
                let longest = (refill / LONGEST_PROBE).max(SHORTEST_PROBE);
                debug_assert!(is_usable || at.since(context.now) <= longest, "{self:?}");
                debug_assert!(*at < Instant::ORIGIN + Duration::MAX, "{self:?}");
            }
            Action::Read | Action::Lease | Action::Leave => {}
        }
        let is_asking = matches!(self.phase, Phase::Booking | Phase::Asking { .. });
        debug_assert!(self.schedule.asked().is_none() || is_asking, "{self:?}");
    }
}

#[cfg(test)]
mod explore;
