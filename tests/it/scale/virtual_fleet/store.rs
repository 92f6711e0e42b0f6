//! One proxy's connection to the shared server: what `src/store/redis.rs` does, without sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collibra_auth_proxy::token::ports::{Lease, Membership, Record, StoreError, TokenStore};

use super::clock::locked;
use super::cost::{self, Cost};
use super::server::{Holder, POLL_UNSUBSCRIBED, Server, Version, away};
use super::weather::Store as Weather;

/// A member of the fleet as a store.
#[derive(Debug)]
pub(super) struct Member(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    server: Arc<Server>,
    /// Its unique number.
    who: usize,
    /// Whether the process is dead: it then sends nothing.
    dead: Arc<AtomicBool>,
    eyes: Mutex<Eyes>,
}

#[derive(Debug)]
struct Eyes {
    /// The state found by the last poll.
    latest: Option<Version>,
    /// The state that the engine has observed.
    observed: Version,
}

impl Member {
    pub(super) fn new(server: &Arc<Server>, who: usize, dead: &Arc<AtomicBool>) -> Member {
        let mut kept = locked(&server.kept);
        if kept.weather == Weather::Fair {
            kept.members.push(who);
        }
        Member(Arc::new(Inner {
            server: Arc::clone(server),
            who,
            dead: Arc::clone(dead),
            eyes: Mutex::new(Eyes {
                latest: None,
                observed: Version::Unavailable,
            }),
        }))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // the real server drops it 15 s after its last heartbeat; here it happens at once
        let mut kept = locked(&self.0.server.kept);
        if kept.weather == Weather::Fair
            && let Ok(place) = kept.members.binary_search(&self.0.who)
        {
            kept.members.remove(place);
        }
    }
}

impl Inner {
    async fn run(&self, cost: &Cost) -> Result<(), StoreError> {
        let observed = {
            let mut eyes = locked(&self.eyes);
            let observed = std::mem::replace(&mut eyes.observed, Version::Unavailable);
            if eyes.latest == Some(Version::Unavailable) {
                return Err(away());
            }
            observed
        };
        self.server.work(cost).await?;
        locked(&self.eyes).observed = observed;
        Ok(())
    }

    fn observed(&self, observed: Version) {
        let mut eyes = locked(&self.eyes);
        eyes.latest = Some(observed);
        eyes.observed = observed;
    }

    async fn publish(&self, lease: u64, record: &Record, notifies: bool) -> Result<(), StoreError> {
        self.run(&cost::READ).await?;
        self.run(&cost::PUBLISH).await?;
        let (generation, is_lost) = {
            let kept = locked(&self.server.kept);
            let generation = kept.record.as_ref().map_or(0, |kept| kept.generation);
            (
                generation,
                kept.holder.is_none_or(|held| held.lease != lease),
            )
        };
        if is_lost || generation > record.generation {
            return Err(StoreError::Conflict("simulated".to_owned()));
        }
        let notifies = notifies || record.generation > generation;
        self.observed(self.server.replace(Some(record.clone()), notifies));
        Ok(())
    }
}

#[async_trait]
impl TokenStore for Member {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        if let Err(problem) = self.0.run(&cost::READ).await {
            self.0.observed(Version::Unavailable);
            return Err(problem);
        }
        let (record, version) = {
            let kept = locked(&self.0.server.kept);
            (kept.record.clone(), kept.version)
        };
        self.0.observed(Version::Content(version));
        Ok(record)
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        self.0.run(&cost::LEASE).await?;
        let server = &self.0.server;
        let now = server.clock.passed();
        let mut kept = locked(&server.kept);
        if kept.holder.is_some_and(|held| now < held.until) {
            return Ok(None);
        }
        kept.leases += 1;
        let lease = kept.leases;
        kept.holder = Some(Holder {
            member: self.0.who,
            lease,
            until: now + length,
        });
        server.taken.notify_waiters();
        let inner = Arc::clone(&self.0);
        Ok(Some(Box::new(Held {
            inner,
            lease,
            has_published: false,
        })))
    }

    async fn changed(&self) {
        let server = &self.0.server;
        let mut view = server.view(self.0.who);
        let (latest, observed) = {
            let eyes = locked(&self.0.eyes);
            (eyes.latest, eyes.observed)
        };
        if latest.is_some_and(|latest| latest != observed) {
            return;
        }
        let mut is_shown = false;
        loop {
            if !view.borrow_and_update().1.is_news_to(observed) {
                if view.changed().await.is_err() {
                    std::future::pending().await
                }
                is_shown = true;
                continue;
            }
            if observed == Version::Unavailable && !is_shown {
                // by its own next poll
                let after = server.numbers.between(Duration::ZERO, POLL_UNSUBSCRIBED);
                tokio::time::sleep(after).await;
            }
            let there = view.borrow_and_update().1;
            locked(&self.0.eyes).latest = Some(there);
            if there.is_news_to(observed) {
                return;
            }
            is_shown = false;
        }
    }

    fn membership(&self) -> Membership {
        let kept = locked(&self.0.server.kept);
        match kept.members.binary_search(&self.0.who) {
            Ok(before) => Membership::Member {
                before: u32::try_from(before).unwrap_or(u32::MAX),
                all: u32::try_from(kept.members.len()).unwrap_or(u32::MAX),
            },
            Err(_) => Membership::Unknown,
        }
    }
}

/// The held lease.
#[derive(Debug)]
struct Held {
    inner: Arc<Inner>,
    lease: u64,
    has_published: bool,
}

#[async_trait]
impl Lease for Held {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        let notifies = std::mem::replace(&mut self.has_published, true);
        self.inner.publish(self.lease, record, notifies).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.inner.dead.load(Ordering::Relaxed) || tokio::runtime::Handle::try_current().is_err()
        {
            return;
        }
        let (inner, lease) = (Arc::clone(&self.inner), self.lease);
        tokio::spawn(async move {
            if inner.run(&cost::UNLOCK).await.is_ok() {
                let mut kept = locked(&inner.server.kept);
                kept.holder.take_if(|held| held.lease == lease);
            }
        });
    }
}
