//! The simulated server that a fleet shares: it executes one operation at a time, takes time for
//! each, and fails on demand.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collibra_auth_proxy::token::ports::{Record, StoreError};
use tokio::sync::{Notify, watch};

use super::clock::{Numbers, VirtualClock, locked};
use super::cost::{Cost, Ledger};
use super::weather::Store as Weather;

/// The timeout of a proxy's call.
const DEADLINE: Duration = Duration::from_secs(2);

/// The delay before a change without a notification is published. Most such changes are replaced by
/// then, which makes the simulation faster.
const UNSEEN: Duration = Duration::from_millis(400);

/// The latency to the server and back.
const WAY: (Duration, Duration) = (Duration::from_micros(300), Duration::from_millis(2));

/// The longest polling interval.
const POLL: Duration = Duration::from_millis(11_550);

/// The same while the server is unavailable.
pub(super) const POLL_UNSUBSCRIBED: Duration = Duration::from_millis(1_250);

/// The delay within which a notified proxy reads.
const NOTIFIED: Duration = Duration::from_millis(20);

/// The most reads per second that a notification causes.
const MAX_READS_PER_SECOND: u32 = 4_000;

/// The number of groups of proxies that are woken together, because every wake-up is expensive.
const GROUPS: usize = 64;

/// How long old records are remembered, so that the store can roll back.
const REMEMBERED: Duration = Duration::from_secs(300);

/// The server's state as a poll sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Unavailable,
    /// It is available, and its record has this version.
    Content(u64),
}

impl Version {
    /// Returns whether this is news for a proxy that has observed `before`. A read may have
    /// returned a newer version than the published one.
    pub(super) fn is_news_to(self, before: Version) -> bool {
        match (self, before) {
            (Version::Content(there), Version::Content(before)) => there > before,
            _ => self != before,
        }
    }
}

/// The server.
pub(super) struct Server {
    pub(super) clock: VirtualClock,
    pub(super) numbers: Numbers,
    /// The last state published to each group, and its change number.
    shown: Vec<watch::Sender<(u64, Version)>>,
    pub(super) kept: Mutex<Kept>,
    /// Notified of each new lease.
    pub(super) taken: Notify,
}

/// The lease holder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) member: usize,
    /// The lease's number.
    pub(super) lease: u64,
    pub(super) until: Duration,
}

pub(super) struct Kept {
    pub(super) weather: Weather,
    pub(super) record: Option<Record>,
    pub(super) version: u64,
    /// The number of published changes.
    changes: u64,
    before: VecDeque<(Duration, Option<Record>)>,
    /// The lease holder and its lease's expiry.
    pub(super) holder: Option<Holder>,
    pub(super) leases: u64,
    /// When its current work will be done.
    busy_until: Duration,
    /// The members in the order in which they joined.
    pub(super) members: Vec<usize>,
    pub(super) ledger: Ledger,
}

impl Server {
    pub(super) fn new(clock: VirtualClock, seed: u64) -> Arc<Server> {
        Arc::new(Server {
            clock,
            numbers: Numbers::of(seed),
            shown: (0..GROUPS)
                .map(|_| watch::Sender::new((0, Version::Content(0))))
                .collect(),
            kept: Mutex::new(Kept {
                weather: Weather::Fair,
                record: None,
                version: 0,
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
        let version = {
            let mut kept = locked(&self.kept);
            kept.weather = weather;
            kept.version
        };
        let there = match weather {
            Weather::Fair => Version::Content(version),
            Weather::Away | Weather::BlackHole => Version::Unavailable,
        };
        let within = match weather {
            Weather::Fair => POLL_UNSUBSCRIBED,
            // the connection breaks
            Weather::Away => NOTIFIED,
            Weather::BlackHole => POLL,
        };
        self.show(there, within);
    }

    /// The published state for the group of `who`.
    pub(super) fn view(&self, who: usize) -> watch::Receiver<(u64, Version)> {
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

    /// Waits for a lease holder, the current or the next one.
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

    /// The work done in each second.
    pub(super) fn ledger(&self) -> Ledger {
        std::mem::take(&mut locked(&self.kept).ledger)
    }

    /// Replaces the record; everyone is notified, or notices by polling.
    pub(super) fn replace(self: &Arc<Server>, record: Option<Record>, notifies: bool) -> Version {
        let now = self.clock.passed();
        let version = {
            let mut kept = locked(&self.kept);
            let before = std::mem::replace(&mut kept.record, record);
            kept.before.push_back((now, before));
            while kept.before.len() > 1 && kept.before[0].0 + REMEMBERED < now {
                kept.before.pop_front();
            }
            kept.version += 1;
            kept.version
        };
        if notifies {
            let members = locked(&self.kept).members.len();
            let members = u32::try_from(members).unwrap_or(u32::MAX);
            let turns = Duration::from_secs(1) * members / MAX_READS_PER_SECOND;
            self.show(Version::Content(version), turns.max(NOTIFIED));
        } else {
            let server = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(UNSEEN).await;
                let is_to_be_seen = {
                    let kept = locked(&server.kept);
                    kept.version == version && kept.weather == Weather::Fair
                };
                if is_to_be_seen {
                    server.show(Version::Content(version), POLL);
                }
            });
        }
        Version::Content(version)
    }

    /// Publishes this state, or a later one, to all groups within that time.
    fn show(self: &Arc<Server>, there: Version, within: Duration) {
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

    /// Executes an operation with this cost.
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
        // an operation in progress is lost when the server becomes unavailable
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
    StoreError::Unavailable("simulated to be unavailable".to_owned())
}
