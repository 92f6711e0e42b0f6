//! The simulated server that a fleet shares: it carries out one operation after the other, takes its
//! time for each, and fails as it is told to.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collibra_auth_proxy::token::ports::{Record, StoreError};
use tokio::sync::{Notify, watch};

use super::clock::{Numbers, VirtualClock, locked};
use super::cost::{Cost, Ledger};
use super::weather::Store as Weather;

/// How long a proxy waits for an answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// What nobody is told of is looked at by nobody for so long: most of it is replaced by then, and the
/// simulation is the quicker.
const UNSEEN: Duration = Duration::from_millis(400);

/// The way to the server and back.
const WAY: (Duration, Duration) = (Duration::from_micros(300), Duration::from_millis(2));

/// The longest time from one look at the server to the next.
const LOOK: Duration = Duration::from_millis(11_550);

/// The same while the server is away.
pub(super) const LOOK_ALONE: Duration = Duration::from_millis(1_250);

/// Who is told of a change reads it within this.
const TOLD: Duration = Duration::from_millis(20);

/// So many read in a second, at most, what they were told of.
const READERS: u32 = 4_000;

/// The proxies look in as many groups, one after the other: a wake-up each is dear.
const GROUPS: usize = 64;

/// What is kept is remembered for so long, so that the store can go back to it.
const REMEMBERED: Duration = Duration::from_secs(300);

/// What there is to be seen of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Away,
    /// It is there, and what it keeps has this stamp.
    Here(u64),
}

impl Seen {
    /// Whether who has seen `before` has not seen this. What was read may be younger than what is
    /// shown.
    pub(super) fn is_news_to(self, before: Seen) -> bool {
        match (self, before) {
            (Seen::Here(there), Seen::Here(before)) => there > before,
            _ => self != before,
        }
    }
}

/// The server.
pub(super) struct Server {
    pub(super) clock: VirtualClock,
    pub(super) numbers: Numbers,
    /// What each group has been shown last, and which change that was.
    shown: Vec<watch::Sender<(u64, Seen)>>,
    pub(super) kept: Mutex<Kept>,
    /// Is told of each lease that is taken.
    pub(super) taken: Notify,
}

/// Who may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) member: usize,
    /// Which of all leases it is.
    pub(super) lease: u64,
    pub(super) until: Duration,
}

pub(super) struct Kept {
    pub(super) weather: Weather,
    pub(super) record: Option<Record>,
    pub(super) stamp: u64,
    /// How often there was something to be seen.
    changes: u64,
    before: VecDeque<(Duration, Option<Record>)>,
    /// Who may ask, and until when.
    pub(super) holder: Option<Holder>,
    pub(super) leases: u64,
    /// When what it has to do now will be done.
    busy_until: Duration,
    /// The members by when each came.
    pub(super) members: Vec<usize>,
    pub(super) ledger: Ledger,
}

impl Server {
    pub(super) fn new(clock: VirtualClock, seed: u64) -> Arc<Server> {
        Arc::new(Server {
            clock,
            numbers: Numbers::of(seed),
            shown: (0..GROUPS)
                .map(|_| watch::Sender::new((0, Seen::Here(0))))
                .collect(),
            kept: Mutex::new(Kept {
                weather: Weather::Fair,
                record: None,
                stamp: 0,
                changes: 0,
                before: VecDeque::new(),
                holder: None,
                leases: 0,
                busy_until: Duration::ZERO,
                members: Vec::new(),
                ledger: Ledger::default(),
            }),
            taken: Notify::new(),
        })
    }

    pub(super) fn becomes(self: &Arc<Server>, weather: Weather) {
        let stamp = {
            let mut kept = locked(&self.kept);
            kept.weather = weather;
            kept.stamp
        };
        let there = match weather {
            Weather::Fair => Seen::Here(stamp),
            Weather::Away | Weather::BlackHole => Seen::Away,
        };
        let within = match weather {
            Weather::Fair => LOOK_ALONE,
            // the connection breaks
            Weather::Away => TOLD,
            Weather::BlackHole => LOOK,
        };
        self.show(there, within);
    }

    /// What the group of `who` is shown.
    pub(super) fn view(&self, who: usize) -> watch::Receiver<(u64, Seen)> {
        self.shown[who % GROUPS].subscribe()
    }

    pub(super) fn forgets(self: &Arc<Server>) {
        locked(&self.kept).holder = None;
        self.replace(None, false);
    }

    pub(super) fn goes_back(self: &Arc<Server>) {
        let before = locked(&self.kept).before.pop_front();
        self.replace(before.and_then(|(_, record)| record), false);
    }

    /// Who has the right to ask, now or as soon as somebody has.
    pub(super) async fn asker(&self) -> usize {
        loop {
            let taken = self.taken.notified();
            let holder = locked(&self.kept).holder;
            if let Some(holder) = holder.filter(|held| self.clock.passed() < held.until) {
                return holder.member;
            }
            taken.await;
        }
    }

    /// What it had to do, each second.
    pub(super) fn ledger(&self) -> Ledger {
        std::mem::take(&mut locked(&self.kept).ledger)
    }

    /// Puts `record` in place of what is kept; everybody is told, or sees it at a look.
    pub(super) fn replace(self: &Arc<Server>, record: Option<Record>, is_told: bool) -> Seen {
        let now = self.clock.passed();
        let stamp = {
            let mut kept = locked(&self.kept);
            let before = std::mem::replace(&mut kept.record, record);
            kept.before.push_back((now, before));
            while kept.before.len() > 1 && kept.before[0].0 + REMEMBERED < now {
                kept.before.pop_front();
            }
            kept.stamp += 1;
            kept.stamp
        };
        if is_told {
            let members = locked(&self.kept).members.len();
            let members = u32::try_from(members).unwrap_or(u32::MAX);
            let turns = Duration::from_secs(1) * members / READERS;
            self.show(Seen::Here(stamp), turns.max(TOLD));
        } else {
            let server = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(UNSEEN).await;
                let is_to_be_seen = {
                    let kept = locked(&server.kept);
                    kept.stamp == stamp && kept.weather == Weather::Fair
                };
                if is_to_be_seen {
                    server.show(Seen::Here(stamp), LOOK);
                }
            });
        }
        Seen::Here(stamp)
    }

    /// All look within so long, and see this, or what came later.
    fn show(self: &Arc<Server>, there: Seen, within: Duration) {
        let change = {
            let mut kept = locked(&self.kept);
            kept.changes += 1;
            kept.changes
        };
        let first = (self.numbers.seed() % GROUPS as u64) as usize;
        let begun = self.clock.passed();
        let server = Arc::clone(self);
        tokio::spawn(async move {
            for turn in 0..GROUPS {
                let at = begun + within.mul_f64((turn + 1) as f64 / GROUPS as f64);
                tokio::time::sleep(at.saturating_sub(server.clock.passed())).await;
                server.shown[(first + turn) % GROUPS].send_if_modified(|shown| {
                    let is_newer = shown.0 < change;
                    if is_newer {
                        *shown = (change, there);
                    }
                    is_newer
                });
            }
        });
    }

    /// Has the server do something that costs as much as `cost`.
    pub(super) async fn work(&self, cost: &Cost) -> Result<(), StoreError> {
        let now = self.clock.passed();
        let answered = {
            let mut kept = locked(&self.kept);
            match kept.weather {
                Weather::Fair => {
                    kept.ledger.book(now, cost);
                    kept.busy_until = kept.busy_until.max(now) + cost.processor;
                    Ok(kept.busy_until - now + self.numbers.between(WAY.0, WAY.1))
                }
                Weather::Away => Err(WAY.1),
                Weather::BlackHole => Err(DEADLINE),
            }
        };
        match answered {
            Ok(after) if after <= DEADLINE => tokio::time::sleep(after).await,
            Ok(_) => {
                tokio::time::sleep(DEADLINE).await;
                return Err(away());
            }
            Err(after) => {
                tokio::time::sleep(after).await;
                return Err(away());
            }
        }
        // what was under way when the server went away is lost
        match locked(&self.kept).weather {
            Weather::Fair => Ok(()),
            Weather::Away | Weather::BlackHole => Err(away()),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

pub(super) fn away() -> StoreError {
    StoreError::Unavailable("simulated to be away".to_owned())
}
