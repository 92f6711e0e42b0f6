//! The renewal of one client's token: the whole decision, without a clock, a socket or a file.
//!
//! What happened goes in ([`Event`]), one [`Action`] comes out. The loop in
//! [`service`](crate::token::service) carries the action out and reports what came of it as the next
//! event, and decides nothing. [`Schedule`] answers one question for this machine: when the next
//! request is due.
//!
//! **With the store**, a request goes through five actions: take the lease, read, publish (the
//! request is booked before it is sent, so that a process that dies over it does not forget what it
//! may have cost), ask, publish.
//!
//! **Without the store**, a request is sent only within this process's share of the pool. A store
//! counts as usable only while all of it works: one that can be read but not written books nothing
//! for anybody. Whatever failed is tried again by this machine's own timer ([`Renewal::probe_at`]),
//! whether or not the store tells that it is back: reading, if reading failed, and otherwise the
//! whole way from the lease to the publication.
//!
//! Invariants, asserted at each step:
//!
//! 1. A request is sent only if it is booked in the store, or if the store cannot be used and the
//!    share allows it; and never while another one is under way.
//! 2. The generation never goes back.
//! 3. Nothing is published without the lease, and no lease is held while the machine waits.
//! 4. Every wait has an end, and while the store cannot be used it is at most `LONGEST_PROBE` of
//!    the refill interval away.
//! 5. A token that the API refuses for everyone, or that has expired, is not offered
//!    ([`Renewal::offered`]).
//! 6. A change of the store's state is noted once.

mod event;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::token::cache::{DEAD, Failure, Next, Status};
use crate::token::ports::{Grant, Outcome, Record, RequestError, StoreError};
use crate::token::schedule::{Config, Schedule};
use crate::token::service::{Change, NotNow};
use crate::token::token::Token;

pub use event::{Action, Ahead, Event, Note, Seen, StoreState};

/// The shortest pause before a store that cannot be used is tried again, for pools of any pace.
const SHORTEST_PROBE: Duration = Duration::from_millis(300);

/// How often a store that cannot be used is tried again if this process needs it, as a share of the
/// refill interval: 2 s of a minute.
const PROBE: u32 = 30;

/// The same while a good token is in hand and none is due: 15 s of a minute.
const LONGEST_PROBE: u32 = 4;

/// The machine.
#[derive(Clone, Debug)]
pub struct Renewal {
    client_id: ClientId,
    schedule: Schedule,
    token: Option<Arc<Token>>,
    /// The client that the token in hand was issued to.
    issued_to: Option<ClientId>,
    /// The token in hand, and what is known of generations, is another client's: the one before.
    of_another: bool,
    /// The highest generation that is known of, here or in the store.
    generation: u64,
    failure: Option<Failure>,
    /// The API refused the token in hand, and a new one is being asked for.
    is_replacing: bool,
    /// The API refuses the token in hand for everyone.
    is_dead: bool,
    /// Up to which generation refusals by the API have been considered.
    considered: u64,
    store: StoreState,
    /// Why the last write failed, while reading worked; kept while the store is away.
    unwritten: Option<Arc<str>>,
    /// When a store that cannot be used was last tried, and the jitter of the next try.
    probed: (Instant, f64),
    phase: Phase,
    holds_lease: bool,
    notes: Vec<Note>,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Waiting,
    Reading(Why),
    Leasing(Why),
    /// The request is published before it is sent.
    Booking,
    /// The request is under way, and was booked in the store.
    Asking {
        is_booked: bool,
    },
    /// What is in hand is published.
    Keeping,
}

/// Why the store is read, or the lease taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Why {
    /// The engine starts.
    Start,
    /// What is kept may have changed.
    KeepUp,
    /// A request is due, or the whole way is tried again.
    Renew,
    /// What is kept is older than what is in hand.
    Restore,
    /// Another has the right to ask by now.
    Lost,
    /// A write failed for this reason: can the store be read at all?
    Diagnose(Arc<str>),
    /// The store is away and a request is due: one more look before it is sent.
    LastLook,
}

impl Renewal {
    /// A machine without a token. Give it [`Event::Started`] first.
    #[must_use]
    pub fn new(config: Config, client_id: ClientId, now: Instant) -> Renewal {
        Renewal {
            client_id,
            schedule: Schedule::new(config, now),
            token: None,
            issued_to: None,
            of_another: false,
            generation: 0,
            failure: None,
            is_replacing: false,
            is_dead: false,
            considered: 0,
            store: StoreState::Usable,
            unwritten: None,
            probed: (now, 0.0),
            phase: Phase::Waiting,
            holds_lease: false,
            notes: Vec::new(),
        }
    }

    /// What to do, now that `event` has happened.
    ///
    /// An event is the answer to the action before it, or one of those that end a wait.
    pub fn on(&mut self, event: Event, seen: &Seen) -> Action {
        let before = self.generation;
        if self.store != StoreState::Usable {
            self.schedule.store_away(seen.rank, seen.now);
        }
        if self.phase == Phase::Waiting {
            self.consider(seen);
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting);
        let action = match (phase, event) {
            (Phase::Reading(why), Event::Read(Ok(record))) => self.was_read(why, record, seen),
            (Phase::Reading(why), Event::Read(Err(error))) => {
                self.cannot_be_read(&why, &error, seen)
            }
            (Phase::Leasing(why), Event::Leased(leased)) => self.was_leased(&why, leased, seen),
            (Phase::Booking, Event::Published(published)) => self.was_booked(published, seen),
            (Phase::Keeping, Event::Published(published)) => self.was_kept(published, seen),
            (Phase::Asking { is_booked }, Event::Answered(answer)) => {
                self.was_answered(is_booked, answer, seen)
            }
            (Phase::Waiting, Event::Started(left)) => {
                if let Some(record) = left {
                    self.take_over(&record, seen);
                }
                self.read(Why::Start)
            }
            (Phase::Waiting, Event::Changed) => self.read(Why::KeepUp),
            (Phase::Waiting, Event::Configured(config, client_id, change)) => {
                self.configured(config, client_id, change, seen)
            }
            (Phase::Waiting, Event::Stopped) => Action::Leave,
            (Phase::Waiting, Event::Time | Event::Judged) => self.wait(seen),
            (phase, event) => {
                debug_assert!(false, "{event:?} while {phase:?}");
                self.wait(seen)
            }
        };
        self.judge(seen);
        self.check(before, &action, seen);
        action
    }

    /// Makes the next request due at `now`: a person wants the token of this `generation` replaced.
    /// Call it only between [`Action::WaitUntil`] and the next event, which may be [`Event::Time`].
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

    /// Whether the lease is still needed.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.holds_lease
    }

    /// What people are to be told of since this was last called.
    pub fn notes(&mut self) -> impl Iterator<Item = Note> + use<> {
        std::mem::take(&mut self.notes).into_iter()
    }

    /// What the engine is doing: the one place where a [`Status`] is made.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let is_asking = match &self.phase {
            // a renewal is over once its token is kept
            Phase::Booking | Phase::Asking { .. } | Phase::Keeping => true,
            Phase::Reading(Why::Renew) | Phase::Leasing(Why::Renew) => {
                self.schedule.next_with_store() <= now
            }
            _ => false,
        };
        Status {
            token: self.token.clone(),
            issued_to: self.issued_to.clone(),
            next: match is_asking {
                true => Next::Answer,
                false => Next::Request(self.schedule.next_chance(now)),
            },
            failure: self.failure.clone(),
            pool: self.schedule.pool().clone(),
            doubted: self.is_replacing || self.is_dead,
            considered: self.considered,
            store_problem: self.store.problem().cloned(),
        }
    }

    /// The token that requests may take at `now`.
    #[must_use]
    pub fn offered(&self, now: Instant) -> Option<&Arc<Token>> {
        let is_good = |token: &&Arc<Token>| token.is_usable(now);
        let is_doubted = self.is_replacing || self.is_dead;
        self.token.as_ref().filter(is_good).filter(|_| !is_doubted)
    }

    /// Whether what changes while nothing happens has changed: when to come again.
    #[must_use]
    pub fn is_outranked(&self, now: Instant) -> bool {
        self.schedule.next_chance(now) != self.schedule.next_request()
    }

    // --- what is under way has come to an end

    fn was_read(&mut self, why: Why, record: Option<Record>, seen: &Seen) -> Action {
        let before = self.generation;
        let was_away = matches!(self.store, StoreState::Away(_));
        if let Why::Diagnose(problem) = &why {
            self.unwritten = Some(Arc::clone(problem));
        }
        self.store_is(
            match &self.unwritten {
                None => StoreState::Usable,
                Some(problem) => StoreState::Unwritable(Arc::clone(problem)),
            },
            seen,
        );
        if let Some(record) = &record {
            self.take_over(record, seen);
        }
        let is_usable = self.store == StoreState::Usable;
        let is_older = self.is_newer_than(record.as_ref(), seen.now);
        match why {
            Why::Start | Why::KeepUp | Why::LastLook => {
                if why == Why::KeepUp && is_usable && self.generation == before {
                    // no token came of it: another asks, or has asked in vain
                    self.schedule.yielded(seen.now, seen.jitter);
                }
                if !is_usable && was_away {
                    return self.lease(Why::Renew);
                }
                if is_usable && is_older && why != Why::Start {
                    return self.lease(Why::Restore);
                }
                self.wait(seen)
            }
            Why::Renew => {
                if self.schedule.next_with_lease() <= seen.now {
                    self.schedule.book(seen.now);
                    return self.publish(Phase::Booking, seen);
                }
                self.has_considered(seen);
                if is_older || !is_usable {
                    return self.publish(Phase::Keeping, seen);
                }
                self.wait(seen)
            }
            Why::Restore if is_older => self.publish(Phase::Keeping, seen),
            Why::Restore | Why::Lost => self.wait(seen),
            Why::Diagnose(_) => self.go_on_without(seen),
        }
    }

    fn cannot_be_read(&mut self, why: &Why, error: &StoreError, seen: &Seen) -> Action {
        self.store_is(StoreState::Away(error.to_string().into()), seen);
        match why {
            Why::Renew | Why::Diagnose(_) | Why::LastLook => self.go_on_without(seen),
            Why::Start | Why::KeepUp | Why::Restore | Why::Lost => self.wait(seen),
        }
    }

    fn was_leased(&mut self, why: &Why, leased: Result<bool, StoreError>, seen: &Seen) -> Action {
        match leased {
            Ok(true) => {
                self.holds_lease = true;
                self.read(why.clone())
            }
            Ok(false) | Err(StoreError::Overtaken(_)) => {
                self.probed = (seen.now, seen.jitter);
                if *why == Why::Renew {
                    // the holder's token comes by the store; this is for a holder that dies
                    self.schedule.yielded(seen.now, seen.jitter);
                }
                self.wait(seen)
            }
            Err(StoreError::Away(problem)) => self.read(Why::Diagnose(problem.into())),
        }
    }

    fn was_booked(&mut self, published: Result<(), StoreError>, seen: &Seen) -> Action {
        match published {
            Ok(()) => {
                self.has_written(seen);
                self.ask(true)
            }
            Err(StoreError::Away(problem)) => {
                self.holds_lease = false;
                self.schedule.unbooked(seen.now);
                self.read(Why::Diagnose(problem.into()))
            }
            Err(StoreError::Overtaken(why)) => {
                self.schedule.withdrawn(seen.now, seen.jitter);
                self.has_considered(seen);
                self.is_overtaken(why)
            }
        }
    }

    fn was_kept(&mut self, published: Result<(), StoreError>, seen: &Seen) -> Action {
        self.holds_lease = false;
        match published {
            Ok(()) => {
                self.has_written(seen);
                self.wait(seen)
            }
            Err(StoreError::Away(problem)) => self.read(Why::Diagnose(problem.into())),
            Err(StoreError::Overtaken(why)) => self.is_overtaken(why),
        }
    }

    fn was_answered(
        &mut self,
        is_booked: bool,
        answer: Result<Grant, RequestError>,
        seen: &Seen,
    ) -> Action {
        let now = seen.now;
        let asked = self.schedule.asked().unwrap_or(now);
        let took = now.since(asked);
        match answer.and_then(|grant| self.token_of(asked, &grant)) {
            Ok((token, lifetime)) => {
                self.schedule
                    .granted(now, lifetime, token.usable_until(), seen.jitter);
                self.holds(Arc::clone(&token));
                let ahead = self.ahead(now);
                self.notes.push(Note::Received { token, took, ahead });
            }
            Err(error) => self.has_failed(error, took, seen),
        }
        // whatever was refused while this was under way was answered by it
        self.has_considered(seen);
        if is_booked {
            return self.publish(Phase::Keeping, seen);
        }
        self.wait(seen)
    }

    fn configured(
        &mut self,
        config: Config,
        client_id: ClientId,
        change: Change,
        seen: &Seen,
    ) -> Action {
        let now = seen.now;
        self.schedule.reconfigure(config, now);
        self.client_id = client_id;
        // the store may be another one: nothing is known of it
        self.unwritten = None;
        self.store_is(StoreState::Usable, seen);
        match change {
            Change::Nothing => {}
            Change::Credentials => self.schedule.credentials_changed(now),
            Change::Client => {
                self.schedule.client_changed(now);
                self.of_another = true;
            }
        }
        self.wait(seen)
    }

    // --- what to do next

    /// Begins what is due, or waits for it.
    fn wait(&mut self, seen: &Seen) -> Action {
        self.holds_lease = false;
        let now = seen.now;
        let next = self.schedule.next_request();
        if self.store == StoreState::Usable {
            if next <= now {
                return self.lease(Why::Renew);
            }
            return Action::WaitUntil(next);
        }
        let probe = self.probe_at(now);
        if next <= now || probe <= now {
            self.probed = (now, seen.jitter);
            return match self.store {
                StoreState::Away(_) if next <= now => self.read(Why::LastLook),
                StoreState::Away(_) => self.read(Why::KeepUp),
                _ => self.lease(Why::Renew),
            };
        }
        // from then on the store is tried more often
        let wanted = self.schedule.next_with_store();
        let soon = Some(wanted).filter(|at| *at > now).unwrap_or(probe);
        Action::WaitUntil(next.min(probe).min(soon))
    }

    /// When a store that cannot be used is tried again.
    #[must_use]
    pub fn probe_at(&self, now: Instant) -> Instant {
        let refill = self.schedule.pool().config().refill;
        let (last, jitter) = self.probed;
        let is_needed = self.offered(now).is_none() || self.schedule.next_with_store() <= now;
        let pause = refill / if is_needed { PROBE } else { LONGEST_PROBE };
        last + pause.max(SHORTEST_PROBE).mul_f64(1.0 - jitter / 2.0)
    }

    /// The store cannot be used: asks within this process's share, or waits.
    fn go_on_without(&mut self, seen: &Seen) -> Action {
        if self.schedule.next_request() <= seen.now {
            self.schedule.ask(seen.now);
            return self.ask(false);
        }
        self.has_considered(seen);
        self.wait(seen)
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

    fn publish(&mut self, phase: Phase, seen: &Seen) -> Action {
        self.phase = phase;
        Action::Publish(Box::new(self.record(seen)))
    }

    fn is_overtaken(&mut self, why: String) -> Action {
        self.holds_lease = false;
        self.notes.push(Note::NotStored(why));
        self.read(Why::Lost)
    }

    // --- what is known

    fn store_is(&mut self, state: StoreState, seen: &Seen) {
        if state != StoreState::Usable {
            self.probed = (seen.now, seen.jitter);
            self.schedule.store_away(seen.rank, seen.now);
        } else {
            let may_ask = self.holds_lease;
            self.schedule.store_back(seen.now, may_ask, seen.jitter);
        }
        let is_new = std::mem::discriminant(&state) != std::mem::discriminant(&self.store);
        self.store = state.clone();
        if is_new {
            self.notes.push(Note::Store(state));
        }
    }

    /// A publication has succeeded: all of the store works.
    fn has_written(&mut self, seen: &Seen) {
        self.unwritten = None;
        if self.store != StoreState::Usable {
            self.store_is(StoreState::Usable, seen);
        }
    }

    /// The API refused a token: if it is the one in hand, a new one is asked for, as far as that is
    /// allowed.
    fn consider(&mut self, seen: &Seen) {
        let refused = seen.refusals.generation;
        if refused <= self.considered {
            return;
        }
        self.considered = refused;
        let held = self.token.as_ref().map(|token| token.generation());
        if held == Some(refused) {
            self.is_replacing = self.schedule.rejected(seen.now);
            let next = self.schedule.next_chance(seen.now).since(seen.now);
            self.notes.push(Note::Refused {
                generation: refused,
                next,
            });
        }
    }

    /// Whether the API refuses the token in hand for everyone.
    fn judge(&mut self, seen: &Seen) {
        let refusals = seen.refusals;
        let generation = self.token.as_ref().map_or(0, |token| token.generation());
        let is_dead = refusals.generation == generation
            && refusals.accepted == generation
            && refusals.in_a_row >= DEAD;
        if is_dead && !self.is_dead {
            self.notes.push(Note::Dead { generation });
        }
        self.is_dead = is_dead;
    }

    /// All refusals so far are answered, or cannot be for now.
    fn has_considered(&mut self, seen: &Seen) {
        self.considered = self.considered.max(seen.refusals.generation);
        self.is_replacing = false;
    }

    fn has_failed(&mut self, error: RequestError, took: Duration, seen: &Seen) {
        let now = seen.now;
        let surprise = self
            .schedule
            .failed(now, error.outcome, error.retry_after, seen.jitter);
        let in_a_row = self.schedule.failures();
        let usable_until = self.token.as_ref().map(|token| token.usable_until());
        self.notes.push(Note::Failed {
            error: error.clone(),
            took,
            in_a_row,
            next: self.schedule.next_chance(now).since(now),
            left: usable_until.map_or(Duration::ZERO, |end| end.since(now)),
            surprise,
        });
        self.failure = Some(Failure {
            at: now,
            error,
            in_a_row,
        });
    }

    fn token_of(
        &self,
        asked: Instant,
        grant: &Grant,
    ) -> Result<(Arc<Token>, Duration), RequestError> {
        let generation = self.generation + 1;
        let token = Token::new(&grant.access_token, generation, asked, grant.expires_in);
        let token = token.map_err(|problem| RequestError {
            outcome: Outcome::Malformed,
            retry_after: None,
            message: problem.to_string(),
        })?;
        Ok((Arc::new(token), grant.expires_in))
    }

    fn holds(&mut self, token: Arc<Token>) {
        self.generation = self.generation.max(token.generation());
        self.token = Some(token);
        self.issued_to = Some(self.client_id.clone());
        self.of_another = false;
        self.failure = None;
    }

    /// Asserts what the head of this file promises.
    fn check(&self, generation_before: u64, action: &Action, seen: &Seen) {
        debug_assert!(
            self.generation >= generation_before,
            "a generation went back"
        );
        let is_usable = self.store == StoreState::Usable;
        match action {
            Action::Ask => {
                let is_booked = self.phase == Phase::Asking { is_booked: true };
                debug_assert!(is_booked && self.holds_lease || !is_usable, "{self:?}");
                debug_assert!(
                    self.schedule.asked() == Some(seen.now) || is_booked,
                    "{self:?}"
                );
            }
            Action::Publish(_) => debug_assert!(self.holds_lease, "{self:?}"),
            Action::WaitUntil(at) => {
                debug_assert!(!self.holds_lease && self.phase == Phase::Waiting);
                let refill = self.schedule.pool().config().refill;
                let longest = (refill / LONGEST_PROBE).max(SHORTEST_PROBE);
                debug_assert!(is_usable || at.since(seen.now) <= longest, "{self:?}");
                debug_assert!(*at < Instant::ORIGIN + Duration::MAX, "{self:?}");
            }
            Action::Read | Action::Lease | Action::Leave => {}
        }
        debug_assert!(
            self.schedule.asked().is_none() || self.is_asking(),
            "{self:?}"
        );
    }

    fn ahead(&self, now: Instant) -> Ahead {
        Ahead {
            next: self.schedule.next_chance(now).since(now),
            pool: self.schedule.pool().available(now),
        }
    }

    fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Booking | Phase::Asking { .. })
    }
}

#[cfg(test)]
mod explore;
