//! The addresses to which connections lead, and the health of each.
//!
//! A name is resolved when a connection needs it, and the answer is kept until its records expire.
//! If a name stops resolving, its last addresses are used as long as they answer. A and AAAA are
//! queried concurrently. The first answer is used after a short delay (RFC 8305, section 3); the
//! other is added when it arrives.
//!
//! A failed address is tried last until its backoff is over, which doubles with each failure.
//! Attempts that were in flight together count as one failure. The address that answered last is
//! tried first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::resolve::{self, Problem, Servers};
use crate::backoff::Backoff;
use crate::clock::timers;

/// How long the first answer waits for the one of the other family (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The shortest interval between two lookups.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// How long an address that DNS no longer returns is still tried, after all others.
const RETAIN: Duration = Duration::from_secs(120);

/// The backoff: how long a failed address is tried last.
const PAUSES: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// A host, by its name or IP address (no brackets), and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Parses `text`, like `10.1.2.3:443`, `[fd00::1]:443` or `acme.example:443`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Target> {
        let of_ip = text.parse::<SocketAddr>().ok();
        // a zone belongs to an interface of this machine
        if let Some(address) = of_ip.filter(|_| !text.contains('%')) {
            let (host, port) = (address.ip().to_string(), address.port());
            return (port != 0).then_some(Target { host, port });
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let host = host.to_owned();
        (!host.is_empty() && host.chars().all(is_name)).then_some(Target { host, port })
    }

    /// Returns whether it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The host's address, if the host is one.
    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// The form that is parsed.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// The addresses of one or more targets that lead to one server.
#[derive(Debug)]
pub struct Addresses {
    targets: Vec<Target>,
    /// The longest time for a lookup.
    limit: Duration,
    /// The longest time for which an answer is used.
    ttl_max: Duration,
    servers: Servers,
    known: watch::Sender<Known>,
    health: Mutex<Health>,
}

/// The results of lookups.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Ordered by preference.
    current: Vec<SocketAddr>,
    /// The former addresses, and until when each is tried.
    former: BTreeMap<SocketAddr, Instant>,
    /// Why the last lookup found nothing.
    problem: Option<Problem>,
    /// Whether a lookup is in flight.
    pub(super) is_looking: bool,
    /// When the next lookup is due; `None` before the first.
    due: Option<Instant>,
}

/// The health of the addresses.
#[derive(Debug, Default)]
struct Health {
    /// The address that answered last.
    preferred: Option<SocketAddr>,
    failing: HashMap<SocketAddr, Failing>,
}

/// An address whose last attempt failed.
#[derive(Debug)]
struct Failing {
    at: Instant,
    in_a_row: u32,
    /// When its backoff ends.
    until: Instant,
}

impl Addresses {
    /// Returns the addresses of `targets`, tried in this order. A lookup takes at most `limit`, and
    /// its answer is used for at most `ttl_max`.
    #[must_use]
    pub fn new(targets: Vec<Target>, limit: Duration, ttl_max: Duration) -> Arc<Addresses> {
        Addresses::with(targets, limit, ttl_max, Servers::System)
    }

    pub(super) fn with(
        targets: Vec<Target>,
        limit: Duration,
        ttl_max: Duration,
        servers: Servers,
    ) -> Arc<Addresses> {
        let current = assemble(&targets, &vec![Vec::new(); targets.len()]);
        Arc::new(Addresses {
            targets,
            limit,
            ttl_max,
            servers,
            known: watch::Sender::new(Known {
                current,
                ..Known::default()
            }),
            health: Mutex::default(),
        })
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Starts with the addresses of `other`, if both have the same host.
    pub fn take_over(&self, other: &Addresses) {
        if let ([target], [known]) = (&*self.targets, &*other.targets)
            && target.host == known.host
        {
            let known = &other.known.borrow().current;
            let at_port = |address: &SocketAddr| SocketAddr::new(address.ip(), target.port);
            let current = known.iter().map(at_port).collect();
            self.known.send_modify(|known| known.current = current);
        }
    }

    /// The addresses that are currently valid.
    #[must_use]
    pub fn current(&self) -> Vec<SocketAddr> {
        self.known.borrow().current.clone()
    }

    /// Resolves the names and returns all addresses.
    ///
    /// # Errors
    /// The reason, in words, if there is no address.
    pub async fn resolve(self: &Arc<Addresses>) -> Result<Vec<SocketAddr>, String> {
        self.look_up_if_due();
        let mut known = self.known.subscribe();
        // the sender is held here
        let _ = known.wait_for(|known| !known.is_looking).await;
        let known = known.borrow();
        match &known.problem {
            Some(problem) if known.current.is_empty() => Err(problem.to_string()),
            _ => Ok(known.current.clone()),
        }
    }

    /// Resolves the names in the background, unless the last answer is still valid or a lookup is
    /// in flight.
    pub fn look_up_if_due(self: &Arc<Addresses>) {
        let now = timers();
        let names: Vec<usize> = (0..self.targets.len())
            .filter(|target| self.targets[*target].ip().is_none())
            .collect();
        let is_due = !names.is_empty()
            && self.known.send_if_modified(|known| {
                let is_due = !known.is_looking && known.due.is_none_or(|due| due <= now);
                known.is_looking |= is_due;
                is_due
            });
        if is_due {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.look_up(&names).await });
        }
    }

    /// When to call [`Addresses::look_up_if_due`] again; `None` for never.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.known.borrow().due
    }

    /// Why the last lookup found nothing.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.known.borrow().problem.clone()
    }

    /// Subscribes to changes.
    pub(super) fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        // the sender is held here
        let _ = self.known.subscribe().changed().await;
    }

    /// The next address to try that is not in `tried`, if any.
    pub(super) fn next(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let now = timers();
        let known = self.known.borrow();
        let health = lock(&self.health);
        let preferred = health.preferred.as_ref();
        let preferred = preferred.filter(|address| known.current.contains(address));
        let former = known.former.iter().filter(|(_, until)| now < **until);
        let former = former.map(|(address, _)| address);
        let all = preferred.into_iter().chain(&known.current).chain(former);
        // the first that is not in its backoff, or the one whose backoff ends first
        let backoff = |address: &&SocketAddr| {
            let until = health.failing.get(*address)?.until;
            (now < until).then_some(until)
        };
        all.filter(|address| !tried.contains(address))
            .min_by_key(backoff)
            .copied()
    }

    /// Records a connection to `address`.
    pub(super) fn answered(&self, address: SocketAddr) {
        let mut health = lock(&self.health);
        health.failing.remove(&address);
        health.preferred = Some(address);
    }

    /// Records that an attempt at `address`, started at `began`, failed; `why` in words.
    pub(super) fn failed(&self, address: SocketAddr, began: Instant, why: &str) {
        let now = timers();
        let known = self.known.borrow();
        let is_known = |address: &SocketAddr| {
            known.current.contains(address) || known.former.contains_key(address)
        };
        let mut health = lock(&self.health);
        health.failing.retain(|address, _| is_known(address));
        let before = health.failing.get(&address);
        if before.is_some_and(|before| began <= before.at) {
            return;
        }
        let in_a_row = before.map_or(0, |before| before.in_a_row) + 1;
        let pause = PAUSES.delay(in_a_row, 0.0);
        let until = now + pause;
        let failing = Failing {
            at: now,
            in_a_row,
            until,
        };
        health.failing.insert(address, failing);
        let others = known.current.len() > 1;
        drop((health, known));
        if in_a_row == 1 && others {
            warn!(%address, "an address fails and is tried after the others from now on: {why}");
        }
        self.known.send_if_modified(|known| {
            known.due = known.due.map(|due| due.min(now + LOOK_UP_PAUSE));
            false
        });
    }

    /// Queries both families of the targets with these `names`, and publishes the answers.
    async fn look_up(&self, names: &[usize]) {
        let mut asked = JoinSet::new();
        for &target in names {
            for family in resolve::FAMILIES {
                let (servers, limit) = (self.servers.clone(), self.limit);
                let host = self.targets[target].host.clone();
                asked.spawn(async move {
                    let answer = resolve::ask(&servers, &host, family, limit).await;
                    (target, answer)
                });
            }
        }
        let mut ips: Vec<Vec<IpAddr>> = vec![Vec::new(); self.targets.len()];
        let mut valid_until = timers() + self.ttl_max;
        let mut problems = Vec::new();
        // with known addresses, wait for both answers
        let is_urgent = self.known.borrow().current.is_empty();
        // when the first answer is used without the other
        let mut end: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                answer = asked.join_next() => match answer {
                    None => break,
                    Some(Ok((target, Ok(found)))) => {
                        ips[target].extend(found.addresses);
                        valid_until = valid_until.min(found.valid_until);
                        end.get_or_insert_with(|| timers() + RESOLUTION_DELAY);
                    }
                    Some(Ok((_, Err(problem)))) => problems.push(problem),
                    Some(Err(_)) => {}
                },
                () = sleep_until(end.unwrap_or(valid_until)), if is_urgent && end.is_some() => {
                    self.publish(assemble(&self.targets, &ips));
                    // the remaining answers are published when they arrive
                    end = None;
                }
            }
        }
        let is_silent = problems.iter().any(|p| matches!(p, Problem::Silent(_)));
        for &target in names {
            // the system resolver would ask the same servers, on a thread that cannot be stopped
            if ips[target].is_empty() && !is_silent {
                ips[target] = resolve::ask_system(&self.targets[target].host).await;
            }
        }
        let mut due = timers() + LOOK_UP_PAUSE;
        let mut problem = None;
        if names.iter().any(|target| !ips[*target].is_empty()) {
            self.publish(assemble(&self.targets, &ips));
            due = due.max(valid_until);
        } else {
            // the other family's error says more than the absence of addresses in one family
            problems.sort_by_key(|problem| *problem == Problem::NoRecords);
            let found = problems.into_iter().next().unwrap_or(Problem::NoRecords);
            if self.problem().is_none() {
                let names = names.iter().map(|target| &*self.targets[*target].host);
                let host = names.collect::<Vec<&str>>().join(",");
                warn!(host, "the name cannot be resolved: {found}");
            }
            problem = Some(found);
        }
        self.known.send_modify(|known| {
            known.problem = problem;
            known.due = Some(due);
            known.is_looking = false;
        });
    }

    /// Publishes `found` as the current addresses. The former ones are kept as a last resort.
    fn publish(&self, found: Vec<SocketAddr>) {
        let now = timers();
        self.known.send_modify(|known| {
            let before = std::mem::take(&mut known.current);
            let before = before.into_iter().map(|address| (address, now + RETAIN));
            known.former.extend(before);
            let is_kept = |address: &SocketAddr, until: &mut Instant| {
                now < *until && !found.contains(address)
            };
            known.former.retain(is_kept);
            known.current = found;
        });
    }
}

/// Orders the addresses of all targets, given the `ips` of their names: target by target,
/// alternating families within each (RFC 8305, section 4).
fn assemble(targets: &[Target], ips: &[Vec<IpAddr>]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for (target, ips) in targets.iter().zip(ips) {
        let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = ips.iter().partition(|ip| ip.is_ipv6());
        let longest = v6.len().max(v4.len());
        let in_turn = (0..longest).flat_map(|n| v6.get(n).into_iter().chain(v4.get(n)));
        for ip in target.ip().iter().chain(in_turn) {
            let address = SocketAddr::new(*ip, target.port);
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // a panic elsewhere leaves nothing inconsistent here
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
