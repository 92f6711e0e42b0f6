//! Watches the Secret and the Lease while a store is in use.
//!
//! The Secret is watched, and also polled: a watch that missed what a poll finds is closed. A watch
//! that ends at once is restarted with a growing pause. After a failed or cancelled call the Secret
//! is read at once. A watch may stay open while nothing else gets through, and the caller waits for
//! the server to be back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::info;

use super::api::{Kind, Replaced, Watch};
use super::heartbeats::{self, Heartbeats};
use super::object::{annotate, annotation, version};
use super::shared::Shared;
use super::{TRIES, jittered, jittered_pause};
use crate::clock::Instant;
use crate::random::{Jitter, ThreadJitter};
use crate::store::locked;
use crate::store::shared::Version;

/// The average polling interval of the Secret besides a watch.
const POLL: Duration = Duration::from_secs(60);

/// The same without a watch.
const POLL_UNWATCHED: Duration = Duration::from_secs(5);

/// The heartbeat interval; shorter than [`EXPIRY`](super::heartbeats) by the time that a heartbeat
/// takes.
const HEARTBEAT: Duration = Duration::from_secs(12);

/// How often the standby list is checked for a free place, on average: in the watched Lease, or by
/// reading it if it cannot be watched.
const MEMBERSHIP_POLL: Duration = Duration::from_secs(4);

/// How often a watch of the Lease is retried if the Role does not allow it.
const WATCH_RETRY: Duration = Duration::from_secs(300);

/// The shortest and the longest pause before an unavailable server is retried.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// The state of one process's watches.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    watch: Option<Watch>,
    /// When the watch began.
    begun: Instant,
    /// The pause before the next watch if this one ends soon.
    rest: Duration,
    /// The version of the Secret that was observed last.
    version: String,
    heartbeats: Heartbeats,
    /// The watch of the Lease, and the Lease as it last reported it.
    lease: Option<(Watch, Option<Value>)>,
    watch_lease_at: Instant,
    heartbeat_at: Instant,
    check_at: Instant,
    reported: bool,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>) -> Watcher {
        let now = shared.entry.clock.now();
        Watcher {
            shared,
            watch: None,
            begun: now,
            rest: PAUSE.0,
            version: String::new(),
            heartbeats: Heartbeats::default(),
            lease: None,
            watch_lease_at: now,
            heartbeat_at: now,
            check_at: now,
            reported: false,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE.0;
        loop {
            if self.read().await {
                pause = PAUSE.0;
            } else {
                self.watch = None;
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
            // early, so that the standby list is settled before the server fails
            self.heartbeat_if_due().await;
            if self.watch.is_none() {
                self.begin().await;
            }
            let poll = match self.watch {
                Some(_) => POLL,
                None => POLL_UNWATCHED,
            };
            self.follow(jittered(poll)).await;
        }
    }

    /// Reads the Secret; returns whether that succeeded.
    async fn read(&mut self) -> bool {
        let Ok(secret) = self.shared.api.get(Kind::Secret).await else {
            self.shared.tracker.polled(Version::Unavailable);
            return false;
        };
        let content = self.shared.content(&secret);
        self.shared.tracker.polled(Version::Content(content));
        let now = version(&secret).unwrap_or_default();
        if now != self.version {
            // the current watch has missed this change
            self.watch = None;
            now.clone_into(&mut self.version);
        }
        true
    }

    /// Starts a watch, if the user may.
    async fn begin(&mut self) {
        match self.shared.api.watch(Kind::Secret).await {
            Ok(watch) => {
                self.watch = Some(watch);
                self.begun = self.shared.entry.clock.now();
            }
            Err(problem) if !std::mem::replace(&mut self.reported, true) => {
                info!(client = %self.shared.entry.client, "the store is polled, not watched: {problem}");
            }
            Err(_) => {}
        }
    }

    /// Handles watch events and sends heartbeats for `span`, or until the watch ends.
    async fn follow(&mut self, span: Duration) {
        let clock = Arc::clone(&self.shared.entry.clock);
        let end = clock.now() + span;
        while clock.now() < end {
            self.heartbeat_if_due().await;
            let next = end.min(self.check_at).since(clock.now());
            let event = async {
                match &mut self.watch {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            let of_lease = async {
                match &mut self.lease {
                    Some((watch, _)) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = tokio::time::timeout(next, event) => event,
                lease = of_lease => {
                    self.on_lease_event(lease);
                    continue;
                }
                () = self.shared.recheck.notified() => return,
            };
            match event {
                Ok(Some(secret)) => {
                    if let Some(now) = version(&secret) {
                        now.clone_into(&mut self.version);
                    }
                    let content = self.shared.content(&secret);
                    self.shared.tracker.polled(Version::Content(content));
                }
                Ok(None) => {
                    self.watch = None;
                    if clock.now().since(self.begun) > POLL_UNWATCHED {
                        self.rest = PAUSE.0;
                    }
                    // a watch that always ends at once must not cause a storm of calls
                    tokio::time::sleep(jittered(self.rest)).await;
                    self.rest = (self.rest * 2).min(POLL_UNWATCHED);
                    return;
                }
                Err(_elapsed) => {}
            }
        }
    }

    /// The Lease changed, or its watch ended.
    fn on_lease_event(&mut self, lease: Option<Value>) {
        let Some(lease) = lease else {
            self.lease = None;
            return;
        };
        self.shared.is_held(&lease, Duration::MAX);
        if let Some((_, told)) = &mut self.lease {
            *told = Some(lease);
        }
        self.check_at = self.shared.entry.clock.now();
    }

    /// Sends a heartbeat, if one is due.
    async fn heartbeat_if_due(&mut self) {
        let clock = Arc::clone(&self.shared.entry.clock);
        if clock.now() < self.check_at {
            return;
        }
        if self.lease.is_none() && clock.now() >= self.watch_lease_at {
            match self.shared.api.watch(Kind::Lease).await {
                Ok(watch) => self.lease = Some((watch, None)),
                // poll it instead
                Err(_) => self.watch_lease_at = clock.now() + WATCH_RETRY,
            }
        }
        let again = match self.heartbeat().await {
            Some(()) => jittered(MEMBERSHIP_POLL),
            None => jittered(PAUSE.1),
        };
        self.check_at = (clock.now() + again).min(self.heartbeat_at.max(clock.now() + PAUSE.0));
    }

    /// Writes a heartbeat to the Lease if one is due or a standby place is free, and updates the
    /// membership. `None` if a call failed.
    async fn heartbeat(&mut self) -> Option<()> {
        let shared = Arc::clone(&self.shared);
        let me = &*shared.member;
        let mut told = self.lease.as_ref().and_then(|(_, told)| told.clone());
        for _ in 0..TRIES {
            let (mut lease, was_told) = match told.take() {
                Some(lease) => (lease, true),
                None => (shared.api.get(Kind::Lease).await.ok()?, false),
            };
            shared.is_held(&lease, Duration::MAX);
            let now = shared.entry.clock.now();
            let text = annotation(&lease, &shared.members).unwrap_or_default();
            let is_standby = heartbeats::without(text, me).is_some();
            let (written, membership) = self.heartbeats.heartbeat(text, me, now);
            let moves = written
                .as_deref()
                .is_some_and(|now| !heartbeats::is_same(text, now));
            if was_told && moves {
                // a watch may be open and yet report nothing
                continue;
            }
            if written.is_some() && (!is_standby || now >= self.heartbeat_at) {
                annotate(&mut lease, &shared.members, written);
                let replaced = shared.api.replace(Kind::Lease, &lease).await.ok()?;
                if let Replaced::Conflict = replaced {
                    jittered_pause().await;
                    continue;
                }
                self.heartbeat_at = now + HEARTBEAT.mul_f64(0.95 + 0.1 * ThreadJitter.next());
            }
            *locked(&shared.membership) = membership;
            return Some(());
        }
        None
    }
}
