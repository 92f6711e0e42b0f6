//! The modelled world: replicas, a store, an issuer, and the events among them.

mod choices;
mod digest;
mod misfortune;
mod old;
mod verdict;

use std::time::{Duration, SystemTime};

use super::super::{Action, Context, Event, Note, Renewal};
use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::secret::Secret;
use crate::token::budget;
use crate::token::cache::{REVOKED_AFTER, Rejections};
use crate::token::ports::{Grant, Membership, Outcome, Record, RequestError, StoreError};
use crate::token::schedule::Config;
use crate::token::service::Change;
pub(super) use old::Old;

const REPLICAS: usize = 3;
/// How many replicas may continue without the store.
const MAX_STANDBYS: usize = 2;
/// In milliseconds, as all times here.
const REFILL: u64 = 60_000;
const LIFE: u64 = 300_000;
/// One more than may make requests without the store.
const CAPACITY: u64 = MAX_STANDBYS as u64 + 1;
/// When the standby place of a killed process expires.
const STANDBY_EXPIRY: u64 = 15_000;
/// When all standby places belong to live processes again, after a kill.
const STALE: u64 = STANDBY_EXPIRY + 1_000;
/// When a killed process is restarted.
const RESTART: u64 = 1_000;
/// A long outage: from a renewal until after the previous token has expired.
pub(super) const OUTAGE: u64 = 200_000;
/// How long a stalled process stands still: longer than a lease.
const STALL: u64 = 70_000;
/// When a change is noticed by polling.
const POLL: u64 = 11_000;
/// When every replica holds a token again after the store has recovered.
const BACK: u64 = 5_000;
/// The same after any other fault: the longest backoff, and a margin.
const SETTLED: u64 = 16_000;

const CONFIG: Config = Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: CAPACITY as u32,
        refill: Duration::from_millis(REFILL),
    },
};

/// Which operations of the store fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Fair,
    Reads,
    Leases,
    Publications,
    All,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// A replica's action ends in this way.
    End(usize, How),
    /// Time passes until the next event.
    Pass,
    /// A replica is killed, and restarted soon.
    Kill(usize),
    /// A replica shuts down, and is restarted soon.
    Restart(usize),
    /// A replica's action takes longer than a lease.
    Stall(usize),
    /// The store fails for that long.
    Set(Mode, u64),
    /// The store fails for that long, for one replica.
    SetFor(usize, Mode, u64),
    /// A replica's action takes that long.
    Slow(usize, u64),
    /// A replica's clock is off by that much from now on.
    Step(usize, i64),
    /// The store rolls back to the previous record.
    RollBack,
    /// The store loses the record.
    Wipe,
    /// The API revokes the stored token.
    Revoke,
    /// A replica's credentials are replaced.
    Rotate(usize),
}

/// How an action ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As the store and the issuer decide.
    Well,
    /// With an error, and without effect.
    Failed,
    /// With an error, but it took effect.
    Lost,
    /// With the record before the last change.
    Stale,
}

#[derive(Clone, Debug)]
struct Replica {
    /// Unique to this process.
    name: u32,
    machine: Renewal,
    under_way: UnderWay,
    /// The action in progress does not end before this.
    stalled_until: u64,
    /// When the replica is notified of a change.
    notified_at: Option<u64>,
    /// The replica is down until then.
    down_until: Option<u64>,
    started: u64,
    lease: Option<u32>,
    membership: Membership,
    rejections: Rejections,
    skew: i64,
    /// A rejection has not been delivered yet.
    has_new_verdict: bool,
    /// How often it reported a change of the store's state since the last fault.
    store_notes: u8,
    /// Requests that only its own pool accounts for.
    unbooked: u32,
}

#[derive(Clone, Debug)]
enum UnderWay {
    Read,
    Lease,
    Publish(Record),
    Ask,
    Wait(u64),
}

/// The whole state.
#[derive(Clone, Debug)]
pub(super) struct World {
    now: u64,
    replicas: Vec<Replica>,
    processes: u32,
    record: Option<Record>,
    before: Option<Record>,
    /// The lease in force, and its end.
    holder: Option<(u32, u64)>,
    leases: u32,
    /// Each with its process and its last heartbeat.
    standbys: Vec<(u32, u64)>,
    mode: (Mode, u64),
    /// The only replica for which the store fails; all if `None`.
    only: Option<usize>,
    issued: u64,
    /// When the issuer's pool is full.
    full_at: u64,
    faults: u8,
    had_faults: bool,
    /// Until when a replica may be without a token.
    excused_until: u64,
    /// Requests of dead processes that no pool accounts for.
    forgotten: u32,
    /// The newest token that the API rejects.
    revoked: u64,
    /// The last time at which a standby place may have belonged to a dead process.
    standbys_stale_until: u64,
    /// The outage began long enough after the standby places were settled.
    settled_outage: bool,
    /// Until when faults before this outage excuse anything.
    excused_from: u64,
    /// The earlier behaviours to reintroduce.
    old: &'static [Old],
    /// The faults that may happen.
    menu: fn(Choice) -> bool,
    /// The longest step of time while faults may happen.
    tick: u64,
    /// The end of the exploration: there is no step after it.
    horizon: u64,
    problem: Option<&'static str>,
}

impl World {
    pub(super) fn new(faults: u8) -> World {
        let mut world = World {
            now: 0,
            replicas: Vec::new(),
            processes: 0,
            record: None,
            before: None,
            holder: None,
            leases: 0,
            standbys: Vec::new(),
            mode: (Mode::Fair, 0),
            only: None,
            issued: 0,
            full_at: 0,
            faults,
            had_faults: faults > 0,
            excused_until: SETTLED,
            forgotten: 0,
            revoked: 0,
            standbys_stale_until: 0,
            settled_outage: false,
            excused_from: 0,
            old: &[],
            menu: |_| true,
            tick: u64::MAX,
            horizon: u64::MAX,
            problem: None,
        };
        for _ in 0..REPLICAS {
            let replica = world.process();
            world.replicas.push(replica);
        }
        world.heartbeat();
        world
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    pub(super) fn take(&mut self, choice: &Choice) {
        self.carry_out(*choice);
        self.excuse_for_lease();
    }

    fn carry_out(&mut self, choice: Choice) {
        match choice {
            Choice::Pass => self.pass(),
            Choice::End(nth, how) => {
                if how != How::Well {
                    self.fault(SETTLED);
                }
                self.end(nth, how);
            }
            Choice::Kill(nth) => {
                self.fault(RESTART + SETTLED);
                self.standbys_stale_until = self.now + STALE;
                self.settled_outage = false;
                self.forgotten += self.replicas[nth].unbooked;
                self.replicas[nth].down_until = Some(self.now + RESTART);
            }
            Choice::Restart(nth) => {
                self.fault(RESTART + SETTLED);
                self.forgotten += self.replicas[nth].unbooked;
                let name = self.replicas[nth].name;
                if !self.is_old(Old::Standbys) && !matches!(self.mode.0, Mode::Leases | Mode::All) {
                    self.standbys.retain(|standby| standby.0 != name);
                }
                self.settled_outage = false;
                self.replicas[nth].down_until = Some(self.now + RESTART);
            }
            Choice::Stall(nth) => {
                self.fault(STALL + SETTLED);
                self.settled_outage = false;
                self.standbys_stale_until = self.now + STALL + STALE;
                self.replicas[nth].stalled_until = self.now + STALL;
            }
            Choice::Set(mode, lasts) => {
                self.excused_from = self.excused_until;
                self.fault(lasts + BACK);
                self.mode = (mode, self.now + lasts);
                self.settled_outage = self.now > self.standbys_stale_until.max(self.excused_from);
                if matches!(mode, Mode::Reads | Mode::All) {
                    self.notify(self.now);
                }
            }
            Choice::SetFor(nth, mode, lasts) => {
                self.carry_out(Choice::Set(mode, lasts));
                self.settled_outage = false;
                self.only = Some(nth);
            }
            Choice::Slow(nth, lasts) => {
                self.fault(lasts + SETTLED);
                self.replicas[nth].stalled_until = self.now + lasts;
            }
            Choice::Step(nth, skew) => {
                self.fault(SETTLED);
                self.replicas[nth].skew = skew;
            }
            Choice::RollBack => {
                self.fault(SETTLED);
                self.forgotten += 1;
                self.record.clone_from(&self.before);
                self.notify(self.now);
            }
            Choice::Wipe => {
                self.fault(SETTLED);
                self.forgotten += 1;
                self.before = self.record.take();
                self.holder = None;
                self.notify(self.now);
            }
            Choice::Rotate(nth) => {
                self.fault(SETTLED);
                let id = ClientId::parse("id").unwrap();
                self.step(nth, Event::Configured(CONFIG, id, Change::Credentials));
            }
            Choice::Revoke => {
                self.fault(REFILL + SETTLED);
                self.settled_outage = false;
                let held = self.replicas.iter().map(|r| r.machine.generation);
                self.revoked = held.max().unwrap_or(0);
                for replica in &mut self.replicas {
                    let held = replica.machine.token.as_ref().map(|t| t.generation());
                    if let Some(generation) = held {
                        replica.rejections = Rejections {
                            generation,
                            in_a_row: REVOKED_AFTER,
                            accepted: generation,
                        };
                        replica.has_new_verdict = true;
                    }
                }
            }
        }
    }

    /// An abandoned lease blocks all replicas until it expires.
    fn excuse_for_lease(&mut self) {
        let is_used = |lease: u32| {
            let mut replicas = self.replicas.iter();
            replicas.any(|r| {
                r.lease == Some(lease) && r.down_until.is_none() && r.stalled_until <= self.now
            })
        };
        if let Some((lease, end)) = self.holder
            && !is_used(lease)
        {
            self.excused_until = self.excused_until.max(end + SETTLED);
        }
    }

    fn fault(&mut self, lasts: u64) {
        // the month draws its faults without an allowance
        self.faults = self.faults.saturating_sub(1);
        for replica in &mut self.replicas {
            replica.store_notes = 0;
        }
        self.excused_until = self.excused_until.max(self.now + lasts);
    }

    fn is_ready(&self, nth: usize) -> bool {
        let replica = &self.replicas[nth];
        if replica.down_until.is_some() || replica.stalled_until > self.now {
            return false;
        }
        match replica.under_way {
            UnderWay::Wait(at) => {
                let told = replica.notified_at.unwrap_or(u64::MAX);
                at.min(told) <= self.now || replica.has_new_verdict
            }
            _ => true,
        }
    }

    fn pass(&mut self) {
        let of_replica = |replica: &Replica| {
            if let Some(until) = replica.down_until {
                return until;
            }
            let waits = match replica.under_way {
                UnderWay::Wait(at) => at.min(replica.notified_at.unwrap_or(u64::MAX)),
                _ => self.now,
            };
            waits.max(replica.stalled_until)
        };
        let next = self.replicas.iter().map(of_replica).min().unwrap_or(0);
        let next = match self.mode {
            (Mode::Fair, _) => next,
            (_, end) => next.min(end),
        };
        let next = match self.faults {
            0 => next,
            _ => next.min(self.now.saturating_add(self.tick)),
        };
        self.now = next.max(self.now + 1);
        if self.full_at <= self.now {
            // what no pool accounted for has been refilled
            self.forgotten = 0;
        }
        if self.mode.0 != Mode::Fair && self.mode.1 <= self.now {
            let was = std::mem::replace(&mut self.mode, (Mode::Fair, 0)).0;
            self.only = None;
            if matches!(was, Mode::Reads | Mode::All) {
                self.notify(self.now);
            }
        }
        for nth in 0..REPLICAS {
            let is_due = self.replicas[nth]
                .down_until
                .is_some_and(|at| at <= self.now);
            if is_due {
                self.replicas[nth] = self.process();
            }
        }
        self.heartbeat();
    }

    fn process(&mut self) -> Replica {
        self.processes += 1;
        let id = ClientId::parse("id").unwrap();
        let mut machine = Renewal::new(CONFIG, id, instant(self.now));
        let context = Context {
            now: instant(self.now),
            wall: wall(self.now),
            jitter: 0.5,
            membership: Membership::Unknown,
            rejections: Rejections::default(),
        };
        machine.on(Event::Started(None), &context);
        Replica {
            name: self.processes,
            machine,
            under_way: UnderWay::Read,
            stalled_until: 0,
            notified_at: None,
            down_until: None,
            started: self.now,
            lease: None,
            membership: Membership::Unknown,
            rejections: Rejections::default(),
            skew: 0,
            has_new_verdict: false,
            store_notes: 0,
            unbooked: 0,
        }
    }

    /// Sends heartbeats, takes free standby places, and updates the positions.
    fn heartbeat(&mut self) {
        let now = self.now;
        if self.mode.0 == Mode::All {
            return;
        }
        let expiry = self.standby_expiry();
        let living = |name: u32| {
            let mut replicas = self.replicas.iter();
            replicas.any(|r| r.name == name && r.down_until.is_none() && r.stalled_until <= now)
        };
        if self.mode.0 != Mode::Leases {
            for standby in &mut self.standbys {
                if living(standby.0) {
                    standby.1 = now;
                }
            }
            self.standbys.retain(|standby| now - standby.1 < expiry);
        }
        for replica in &mut self.replicas {
            let is_up = replica.down_until.is_none() && replica.stalled_until <= now;
            let own = |standbys: &[(u32, u64)]| standbys.iter().position(|s| s.0 == replica.name);
            if is_up
                && own(&self.standbys).is_none()
                && self.standbys.len() < MAX_STANDBYS
                && self.mode.0 != Mode::Leases
            {
                self.standbys.push((replica.name, now));
            }
            let all = self.standbys.len();
            let (before, all) = own(&self.standbys).map_or((all, all + 1), |own| (own, all));
            replica.membership = Membership::Member {
                before: u32::try_from(before).unwrap(),
                all: u32::try_from(all).unwrap(),
            };
        }
    }

    /// Notifies all waiting replicas of a change at `at`.
    fn notify(&mut self, at: u64) {
        for replica in &mut self.replicas {
            replica.notified_at = Some(replica.notified_at.map_or(at, |told| told.min(at)));
        }
    }

    fn end(&mut self, nth: usize, how: How) {
        let mode = self.mode_of(nth);
        let under_way = self.replicas[nth].under_way.clone();
        let event = match under_way {
            UnderWay::Read => Event::Read(match (mode, how) {
                (Mode::Reads | Mode::All, _) | (_, How::Failed) => Err(unavailable()),
                (_, How::Stale) => Ok(self.before.clone()),
                _ => Ok(self.record.clone()),
            }),
            UnderWay::Lease => {
                let fails = matches!(mode, Mode::Leases | Mode::All) || how == How::Failed;
                Event::Leased(match fails {
                    true => Err(unavailable()),
                    false => {
                        let granted = self.lease(nth);
                        match how {
                            How::Lost => {
                                // the store granted it, but the replica does not know
                                self.replicas[nth].lease = None;
                                Err(unavailable())
                            }
                            _ => Ok(granted),
                        }
                    }
                })
            }
            UnderWay::Publish(record) => {
                let fails = matches!(mode, Mode::Publications | Mode::All) || how == How::Failed;
                Event::Published(match fails {
                    true => Err(unavailable()),
                    false => {
                        let published = self.publish(nth, &record);
                        match how {
                            How::Lost => Err(unavailable()),
                            _ => published,
                        }
                    }
                })
            }
            UnderWay::Ask => Event::Answered(self.answer(nth, how)),
            UnderWay::Wait(_) => {
                let replica = &mut self.replicas[nth];
                if std::mem::take(&mut replica.has_new_verdict) {
                    Event::Time
                } else if replica.notified_at.take_if(|at| *at <= self.now).is_some() {
                    Event::Changed
                } else {
                    Event::Time
                }
            }
        };
        self.step(nth, event);
    }

    fn mode_of(&self, nth: usize) -> Mode {
        match self.only {
            Some(only) if only != nth => Mode::Fair,
            _ => self.mode.0,
        }
    }

    fn step(&mut self, nth: usize, event: Event) {
        let now = self.now;
        let mode = self.mode_of(nth);
        let event = self.as_before(nth, event);
        let deferral = self.replicas[nth].machine.schedule.deferral();
        let sends_on = self.is_old(Old::DeadToken);
        let replica = &mut self.replicas[nth];
        let context = Context {
            now: instant(now),
            wall: wall(now.saturating_add_signed(replica.skew)),
            jitter: 0.5,
            membership: replica.membership,
            rejections: match sends_on {
                true => Rejections {
                    in_a_row: 1,
                    ..replica.rejections
                },
                false => replica.rejections,
            },
        };
        let action = replica.machine.on(event, &context);
        let is_store_note = |note: &Note| matches!(note, Note::Store(_));
        let told = replica.machine.notes().filter(is_store_note).count();
        replica.store_notes += u8::try_from(told).unwrap();
        replica.under_way = match action {
            Action::Read => UnderWay::Read,
            Action::Lease => UnderWay::Lease,
            Action::Publish(record) => UnderWay::Publish(*record),
            Action::Ask => UnderWay::Ask,
            Action::WaitUntil(at) => UnderWay::Wait(model(at)),
            Action::Leave => unreachable!("no replica is stopped here"),
        };
        self.behave_as_before(nth, deferral);
        let replica = &mut self.replicas[nth];
        if !replica.machine.holds_lease()
            && let Some(lease) = replica.lease.take()
            && !matches!(mode, Mode::Leases | Mode::All)
        {
            self.holder.take_if(|(held, _)| *held == lease);
        }
    }

    fn lease(&mut self, nth: usize) -> bool {
        if self.holder.is_some_and(|(_, end)| self.now < end) {
            return false;
        }
        self.leases += 1;
        self.holder = Some((self.leases, self.now + REFILL));
        self.replicas[nth].lease = Some(self.leases);
        true
    }

    fn publish(&mut self, nth: usize, record: &Record) -> Result<(), StoreError> {
        let lease = self.replicas[nth].lease;
        let is_holder = self.holder.map(|(held, _)| held) == lease && lease.is_some();
        let kept = self.record.as_ref().map_or(0, |kept| kept.generation);
        if !is_holder || record.generation < kept {
            return Err(StoreError::Conflict(
                "the store has a newer record".to_owned(),
            ));
        }
        self.replicas[nth].unbooked = 0;
        let is_newer = record.generation > kept;
        self.before = self.record.replace(record.clone());
        if is_newer {
            self.notify(self.now);
            self.replicas[nth].notified_at = None;
        } else {
            self.notify(self.now + POLL);
        }
        Ok(())
    }

    fn answer(&mut self, nth: usize, how: How) -> Result<Grant, RequestError> {
        let failed = |outcome| RequestError {
            outcome,
            retry_after: None,
            message: String::new(),
        };
        if how == How::Failed {
            return Err(failed(Outcome::Connect));
        }
        self.replicas[nth].unbooked += 1;
        let is_stranger =
            self.replicas[nth].membership == Membership::Unknown && self.mode.0 != Mode::Fair;
        if is_stranger || self.only == Some(nth) {
            // a replica that alone cannot reach the store is in no other replica's account
            self.forgotten += 1;
        }
        if self.full_at.saturating_sub(self.now) > (CAPACITY - 1) * REFILL {
            if self.forgotten == 0 {
                self.problem = Some("a request beyond the pool");
            }
            return Err(failed(Outcome::RateLimited));
        }
        self.full_at = self.full_at.max(self.now) + REFILL;
        self.issued += 1;
        match how {
            How::Lost => Err(failed(Outcome::Timeout)),
            _ => Ok(Grant {
                access_token: Secret::from(format!("issued-at-{}", self.now)),
                expires_in: Duration::from_millis(LIFE),
            }),
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("it fails".to_owned())
}

const START: Duration = Duration::from_secs(100_000);

fn instant(at: u64) -> Instant {
    Instant::ORIGIN + START + Duration::from_millis(at)
}

/// A time of the model; 0 for all times before its start.
fn model(at: Instant) -> u64 {
    let since = at.since(Instant::ORIGIN + START);
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn wall(at: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + START + Duration::from_millis(at)
}
