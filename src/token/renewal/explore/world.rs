//! The small world: replicas, a store and an issuer, and what can happen to them.

mod digest;
mod misfortune;
mod verdict;

use std::time::{Duration, SystemTime};

use super::super::{Action, Event, Note, Renewal, Seen};
use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::secret::Secret;
use crate::token::budget;
use crate::token::cache::{DEAD, Refusals};
use crate::token::ports::{Grant, Outcome, Rank, Record, RequestError, StoreError};
use crate::token::schedule::Config;

const REPLICAS: usize = 3;
/// So many may go on without the store.
const SEATS: usize = 2;
/// In milliseconds, as all times here.
const REFILL: u64 = 60_000;
const LIFE: u64 = 300_000;
/// One more than may ask without the store.
const CAPACITY: u64 = SEATS as u64 + 1;
/// After so long a seat of a process that was killed is free.
const SEAT_EXPIRES: u64 = 15_000;
/// So soon after a kill all seats belong to processes that live.
const STALE: u64 = SEAT_EXPIRES + 1_000;
/// So soon a process that was killed is started again.
const RESTART: u64 = 1_000;
/// A long outage: from a renewal beyond the end of the token before it.
const OUTAGE: u64 = 200_000;
/// For so long a process stands still: longer than a lease.
const STALL: u64 = 70_000;
/// After so long a change is seen that was not told.
const LOOK: u64 = 11_000;
/// So soon after the store all hold a token again.
const BACK: u64 = 5_000;
/// So soon after any other fault: the longest pause for a process that asks in vain, and some time.
const SETTLED: u64 = 16_000;

const CONFIG: Config = Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: CAPACITY as u32,
        refill: Duration::from_millis(REFILL),
    },
};

/// What fails at the store, for all.
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
    /// What a replica has under way ends, so.
    End(usize, How),
    /// Time passes until something happens.
    Pass,
    /// A replica is killed, and started again soon.
    Kill(usize),
    /// A replica ends in good order, and is started again soon.
    Restart(usize),
    /// What a replica has under way takes longer than a lease.
    Stall(usize),
    /// The store fails for so long.
    Set(Mode, u64),
    /// The store fails for so long, for one replica only.
    SetFor(usize, Mode, u64),
    /// What a replica has under way takes so long.
    Slow(usize, u64),
    /// A replica's clock is off by so much from now on.
    Step(usize, i64),
    /// The store keeps what it kept before.
    RollBack,
    /// The store keeps nothing any more.
    Wipe,
    /// The API refuses the token that is kept, for everyone.
    Revoke,
}

/// How an action ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As the store and the issuer have it.
    Well,
    /// With an error; nothing was done.
    Failed,
    /// With an error, but it was done.
    Lost,
    /// With what was there before the last change.
    Stale,
}

#[derive(Clone, Debug)]
struct Replica {
    /// No other process has had it.
    name: u32,
    machine: Renewal,
    under_way: UnderWay,
    /// What is under way does not end before this.
    stalled_until: u64,
    /// Something has changed that it is told of from then on.
    told_at: Option<u64>,
    /// It is down until then.
    down_until: Option<u64>,
    started: u64,
    lease: Option<u32>,
    rank: Rank,
    refusals: Refusals,
    /// By so much its clock is off.
    skew: i64,
    /// It is told of a refusal.
    is_judged: bool,
    /// How often it has told of another state of the store since the last fault.
    told_of_store: u8,
    /// Requests that are booked nowhere but in its own pool.
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

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct World {
    now: u64,
    replicas: Vec<Replica>,
    processes: u32,
    record: Option<Record>,
    before: Option<Record>,
    /// Who holds the lease, and its end.
    holder: Option<(u32, u64)>,
    leases: u32,
    /// Each with its process and its last sign of life.
    seats: Vec<(u32, u64)>,
    mode: (Mode, u64),
    /// For whom the store fails; for all if for none.
    only: Option<usize>,
    /// So many tokens were issued.
    issued: u64,
    /// When the issuer's pool is full.
    full_at: u64,
    faults: u8,
    had_faults: bool,
    /// Until when a replica may be without a token.
    excused_until: u64,
    /// Requests of processes that died, which nobody knows of.
    forgotten: u32,
    /// The youngest token that the API refuses.
    revoked: u64,
    /// When a seat may last have belonged to a process that is gone.
    seats_stale_until: u64,
    /// Since when the store fails, if that was long enough after the seats were settled.
    settled_outage: bool,
    /// Until when the faults before this outage excuse anything.
    excused_from: u64,
    /// What is wrong.
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
            seats: Vec::new(),
            mode: (Mode::Fair, 0),
            only: None,
            issued: 0,
            full_at: 0,
            faults,
            had_faults: faults > 0,
            excused_until: SETTLED,
            forgotten: 0,
            revoked: 0,
            seats_stale_until: 0,
            settled_outage: false,
            excused_from: 0,
            problem: None,
        };
        for _ in 0..REPLICAS {
            let replica = world.process();
            world.replicas.push(replica);
        }
        world.attend();
        world
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// The steps that are possible.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let ready: Vec<usize> = (0..REPLICAS).filter(|nth| self.is_ready(*nth)).collect();
        if ready.is_empty() {
            choices.push(Choice::Pass);
        }
        // the end of a wait changes nothing for others: in which order several end makes no difference
        let waiting = |nth: &&usize| matches!(self.replicas[**nth].under_way, UnderWay::Wait(_));
        // nor are all orders gone through once nothing more can happen to a fleet that has recovered:
        // without faults they are, from the start
        let has_recovered = self.had_faults && self.faults == 0 && self.now > self.excused_until;
        let first = ready.iter().find(waiting);
        let first = first.or(ready.first().filter(|_| has_recovered));
        match first {
            Some(nth) => choices.push(Choice::End(*nth, How::Well)),
            None => choices.extend(ready.iter().map(|nth| Choice::End(*nth, How::Well))),
        }
        // last, and so taken first: what is found has few steps before its faults
        if self.faults > 0 && self.now > 0 {
            if self.mode.0 == Mode::Fair {
                for mode in [Mode::Reads, Mode::Leases, Mode::Publications, Mode::All] {
                    choices.extend([4_000, OUTAGE].map(|lasts| Choice::Set(mode, lasts)));
                }
                choices.push(Choice::Wipe);
            }
            choices.push(Choice::Revoke);
            let up = (0..REPLICAS).filter(|nth| self.replicas[*nth].down_until.is_none());
            let acting = up.filter(|nth| ready.is_empty() || ready.contains(nth));
            for nth in acting {
                choices.push(Choice::Kill(nth));
                match self.replicas[nth].under_way {
                    UnderWay::Wait(_) => choices.push(Choice::Restart(nth)),
                    _ => choices.push(Choice::Stall(nth)),
                }
            }
            for &nth in &ready {
                let hows: &[How] = match self.replicas[nth].under_way {
                    UnderWay::Read => &[How::Failed, How::Stale],
                    UnderWay::Wait(_) => &[],
                    _ => &[How::Failed, How::Lost],
                };
                choices.extend(hows.iter().map(|how| Choice::End(nth, *how)));
            }
        }
        choices
    }

    /// For people.
    pub(super) fn describe(&self, choice: &Choice) -> String {
        match choice {
            Choice::End(nth, how) => {
                let replica = &self.replicas[*nth];
                let what = match &replica.under_way {
                    UnderWay::Publish(record) => {
                        format!("publish generation {}", record.generation)
                    }
                    UnderWay::Wait(_) if replica.told_at.is_some() => "wait, told".to_owned(),
                    what => format!("{what:?}"),
                };
                format!("replica {nth}: {what}: {how:?} (store: {:?})", self.mode.0)
            }
            other => format!("{other:?}"),
        }
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
                self.seats_stale_until = self.now + STALE;
                self.settled_outage = false;
                self.forgotten += self.replicas[nth].unbooked;
                self.replicas[nth].down_until = Some(self.now + RESTART);
            }
            Choice::Restart(nth) => {
                self.fault(RESTART + SETTLED);
                self.forgotten += self.replicas[nth].unbooked;
                let name = self.replicas[nth].name;
                if !matches!(self.mode.0, Mode::Leases | Mode::All) {
                    self.seats.retain(|seat| seat.0 != name);
                }
                self.settled_outage = false;
                self.replicas[nth].down_until = Some(self.now + RESTART);
            }
            Choice::Stall(nth) => {
                self.fault(STALL + SETTLED);
                self.settled_outage = false;
                self.seats_stale_until = self.now + STALL + STALE;
                self.replicas[nth].stalled_until = self.now + STALL;
            }
            Choice::Set(mode, lasts) => {
                self.excused_from = self.excused_until;
                self.fault(lasts + BACK);
                self.mode = (mode, self.now + lasts);
                self.settled_outage = self.now > self.seats_stale_until.max(self.excused_from);
                if matches!(mode, Mode::Reads | Mode::All) {
                    self.tell(self.now);
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
                self.tell(self.now);
            }
            Choice::Wipe => {
                self.fault(SETTLED);
                self.forgotten += 1;
                self.before = self.record.take();
                self.holder = None;
                self.tell(self.now);
            }
            Choice::Revoke => {
                self.fault(REFILL + SETTLED);
                self.settled_outage = false;
                let held = self.replicas.iter().map(|r| r.machine.generation);
                self.revoked = held.max().unwrap_or(0);
                for replica in &mut self.replicas {
                    let held = replica.machine.token.as_ref().map(|t| t.generation());
                    if let Some(generation) = held {
                        replica.refusals = Refusals {
                            generation,
                            in_a_row: DEAD,
                            accepted: generation,
                        };
                        replica.is_judged = true;
                    }
                }
            }
        }
    }

    /// A lease that nobody uses any more holds everybody up until it ends.
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
        self.faults -= 1;
        for replica in &mut self.replicas {
            replica.told_of_store = 0;
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
                let told = replica.told_at.unwrap_or(u64::MAX);
                at.min(told) <= self.now || replica.is_judged
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
                UnderWay::Wait(at) => at.min(replica.told_at.unwrap_or(u64::MAX)),
                _ => self.now,
            };
            waits.max(replica.stalled_until)
        };
        let next = self.replicas.iter().map(of_replica).min().unwrap_or(0);
        let next = match self.mode {
            (Mode::Fair, _) => next,
            (_, end) => next.min(end),
        };
        self.now = next.max(self.now + 1);
        if self.full_at <= self.now {
            // whatever was forgotten is refilled
            self.forgotten = 0;
        }
        if self.mode.0 != Mode::Fair && self.mode.1 <= self.now {
            let was = std::mem::replace(&mut self.mode, (Mode::Fair, 0)).0;
            self.only = None;
            if matches!(was, Mode::Reads | Mode::All) {
                self.tell(self.now);
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
        self.attend();
    }

    fn process(&mut self) -> Replica {
        self.processes += 1;
        let id = ClientId::parse("id").unwrap();
        let mut machine = Renewal::new(CONFIG, id, instant(self.now));
        let seen = Seen {
            now: instant(self.now),
            wall: wall(self.now),
            jitter: 0.5,
            rank: Rank::Unknown,
            refusals: Refusals::default(),
        };
        machine.on(Event::Started(None), &seen);
        Replica {
            name: self.processes,
            machine,
            under_way: UnderWay::Read,
            stalled_until: 0,
            told_at: None,
            down_until: None,
            started: self.now,
            lease: None,
            rank: Rank::Unknown,
            refusals: Refusals::default(),
            skew: 0,
            is_judged: false,
            told_of_store: 0,
            unbooked: 0,
        }
    }

    /// Each gives a sign of life, takes a seat if there is one, and learns its rank.
    fn attend(&mut self) {
        let now = self.now;
        if self.mode.0 == Mode::All {
            return;
        }
        let living = |name: u32| {
            let mut replicas = self.replicas.iter();
            replicas.any(|r| r.name == name && r.down_until.is_none() && r.stalled_until <= now)
        };
        if self.mode.0 != Mode::Leases {
            for seat in &mut self.seats {
                if living(seat.0) {
                    seat.1 = now;
                }
            }
            self.seats.retain(|seat| now - seat.1 < SEAT_EXPIRES);
        }
        for replica in &mut self.replicas {
            let is_up = replica.down_until.is_none() && replica.stalled_until <= now;
            let own = |seats: &[(u32, u64)]| seats.iter().position(|s| s.0 == replica.name);
            if is_up
                && own(&self.seats).is_none()
                && self.seats.len() < SEATS
                && self.mode.0 != Mode::Leases
            {
                self.seats.push((replica.name, now));
            }
            let all = self.seats.len();
            let (before, all) = own(&self.seats).map_or((all, all + 1), |own| (own, all));
            replica.rank = Rank::Among {
                before: u32::try_from(before).unwrap(),
                all: u32::try_from(all).unwrap(),
            };
        }
    }

    /// All who wait are told at `at` that something has changed.
    fn tell(&mut self, at: u64) {
        for replica in &mut self.replicas {
            replica.told_at = Some(replica.told_at.map_or(at, |told| told.min(at)));
        }
    }

    fn end(&mut self, nth: usize, how: How) {
        let mode = self.mode_of(nth);
        let under_way = self.replicas[nth].under_way.clone();
        let event = match under_way {
            UnderWay::Read => Event::Read(match (mode, how) {
                (Mode::Reads | Mode::All, _) | (_, How::Failed) => Err(away()),
                (_, How::Stale) => Ok(self.before.clone()),
                _ => Ok(self.record.clone()),
            }),
            UnderWay::Lease => {
                let fails = matches!(mode, Mode::Leases | Mode::All) || how == How::Failed;
                Event::Leased(match fails {
                    true => Err(away()),
                    false => {
                        let granted = self.lease(nth);
                        match how {
                            How::Lost => {
                                // the store has it, and nobody knows
                                self.replicas[nth].lease = None;
                                Err(away())
                            }
                            _ => Ok(granted),
                        }
                    }
                })
            }
            UnderWay::Publish(record) => {
                let fails = matches!(mode, Mode::Publications | Mode::All) || how == How::Failed;
                Event::Published(match fails {
                    true => Err(away()),
                    false => {
                        let published = self.publish(nth, &record);
                        match how {
                            How::Lost => Err(away()),
                            _ => published,
                        }
                    }
                })
            }
            UnderWay::Ask => Event::Answered(self.answer(nth, how)),
            UnderWay::Wait(_) => {
                let replica = &mut self.replicas[nth];
                if std::mem::take(&mut replica.is_judged) {
                    Event::Judged
                } else if replica.told_at.take_if(|at| *at <= self.now).is_some() {
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
        let replica = &mut self.replicas[nth];
        let seen = Seen {
            now: instant(now),
            wall: wall(now.saturating_add_signed(replica.skew)),
            jitter: 0.5,
            rank: replica.rank,
            refusals: replica.refusals,
        };
        let action = replica.machine.on(event, &seen);
        let of_store = |note: &Note| matches!(note, Note::Store(_));
        let told = replica.machine.notes().filter(of_store).count();
        replica.told_of_store += u8::try_from(told).unwrap();
        replica.under_way = match action {
            Action::Read => UnderWay::Read,
            Action::Lease => UnderWay::Lease,
            Action::Publish(record) => UnderWay::Publish(*record),
            Action::Ask => UnderWay::Ask,
            Action::WaitUntil(at) => UnderWay::Wait(model(at)),
            Action::Leave => unreachable!("nobody is told to end"),
        };
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
            return Err(StoreError::Overtaken("another knows better".to_owned()));
        }
        self.replicas[nth].unbooked = 0;
        let is_newer = record.generation > kept;
        self.before = self.record.replace(record.clone());
        if is_newer {
            self.tell(self.now);
            self.replicas[nth].told_at = None;
        } else {
            self.tell(self.now + LOOK);
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
        let is_stranger = self.replicas[nth].rank == Rank::Unknown && self.mode.0 != Mode::Fair;
        if is_stranger || self.only == Some(nth) {
            // it has never found the store, or is the only one without: nobody counts on it
            self.forgotten += 1;
        }
        if self.full_at.saturating_sub(self.now) > (CAPACITY - 1) * REFILL {
            if self.forgotten == 0 {
                self.problem = Some("a request that the pool does not allow");
            }
            return Err(failed(Outcome::RateLimited));
        }
        self.full_at = self.full_at.max(self.now) + REFILL;
        self.issued += 1;
        match how {
            How::Lost => Err(failed(Outcome::Timeout)),
            _ => Ok(Grant {
                access_token: Secret::from("t".to_owned()),
                expires_in: Duration::from_millis(LIFE),
            }),
        }
    }
}

fn away() -> StoreError {
    StoreError::Away("it fails".to_owned())
}

const START: Duration = Duration::from_secs(100_000);

fn instant(at: u64) -> Instant {
    Instant::ORIGIN + START + Duration::from_millis(at)
}

/// The time of the model; 0 for all that lies before it.
fn model(at: Instant) -> u64 {
    let since = at.since(Instant::ORIGIN + START);
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn wall(at: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + START + Duration::from_millis(at)
}
