//! Keeps a standby place, or waits for a free one, while a store is in use. The Lease is watched,
//! or polled if it cannot be watched.

use std::time::Duration;

use serde_json::Value;

use super::api::{Kind, Watch};
use super::heartbeats::{self, Heartbeats};
use super::object::{annotate, annotation};
use super::watcher::PAUSE;
use super::{Inner, TRIES, jittered};
use crate::clock::Instant;
use crate::random::{Jitter, ThreadJitter};
use crate::store::locked;

/// The heartbeat interval; shorter than [`EXPIRY`](super::heartbeats) by the time that a heartbeat
/// takes.
const HEARTBEAT: Duration = Duration::from_secs(12);

/// How often the standby list is checked for a free place, on average.
const CHECK: Duration = Duration::from_secs(4);

/// How often a watch of the Lease is retried if the Role does not allow it.
const WATCH_RETRY: Duration = Duration::from_secs(300);

/// Keeps a place, until it is dropped.
pub(super) async fn keep_place(inner: &Inner) {
    let clock = &*inner.entry.clock;
    let mut heartbeats = Heartbeats::default();
    let mut watch: Option<Watch> = None;
    // the Lease as the watch last reported it
    let mut reported: Option<Value> = None;
    let mut watch_at = clock.now();
    let mut due = clock.now();
    loop {
        let kept = inner
            .heartbeat(&mut heartbeats, reported.clone(), &mut due)
            .await;
        if kept.is_some() && watch.is_none() && clock.now() >= watch_at {
            match inner.api.watch(Kind::Lease).await {
                Ok(begun) => watch = Some(begun),
                // poll it instead
                Err(_) => watch_at = clock.now() + WATCH_RETRY,
            }
        }
        let again = jittered(if kept.is_some() { CHECK } else { PAUSE.1 });
        let again = again.min(due.since(clock.now()).max(PAUSE.0));
        let changed = async {
            match &mut watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        if let Ok(changed) = tokio::time::timeout(again, changed).await {
            reported = changed;
            if reported.is_none() {
                // it ended; one that always ends at once must not cause a storm of calls
                watch = None;
                watch_at = clock.now() + jittered(CHECK);
            }
        }
    }
}

impl Inner {
    /// Writes a heartbeat to the Lease if one is `due` or a standby place is free, and updates the
    /// membership. `None` if a call failed.
    async fn heartbeat(
        &self,
        heartbeats: &mut Heartbeats,
        mut reported: Option<Value>,
        due: &mut Instant,
    ) -> Option<()> {
        for _ in 0..TRIES {
            let is_reported = reported.is_some();
            let mut lease = match reported.take() {
                Some(lease) => lease,
                None => self.api.get(Kind::Lease).await.ok()?,
            };
            self.is_held(&lease, Duration::MAX);
            let now = self.entry.clock.now();
            let standbys = annotation(&lease, &self.members).unwrap_or_default();
            let is_standby = heartbeats::without(standbys, &self.member).is_some();
            let (written, membership) = heartbeats.heartbeat(standbys, &self.member, now);
            let moves = { written.as_deref() }
                .is_some_and(|written| !heartbeats::is_same(standbys, written));
            if is_reported && moves {
                // a watch may be open and yet report nothing
                continue;
            }
            if written.is_some() && (!is_standby || now >= *due) {
                annotate(&mut lease, &self.members, written);
                if !self.api.replace(Kind::Lease, &lease).await.ok()? {
                    continue;
                }
                *due = now + HEARTBEAT.mul_f64(0.95 + 0.1 * ThreadJitter.next());
            }
            *locked(&self.membership) = membership;
            return Some(());
        }
        None
    }
}
