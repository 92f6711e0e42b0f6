//! The look that a process has at the Secret and the Lease for as long as its store is in use.
//!
//! The Secret is watched, and read now and then in any case: what a reading finds and the watch has
//! not told ends the watch. One that ends at once is begun again after a pause that grows. It is
//! read at once when a call of the store has failed or was given up, for a watch may stay open
//! while nothing else gets through, and whoever failed waits to be told that the server is back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::info;

use super::api::{Kind, Replaced, Watch};
use super::object::{annotate, annotation, version};
use super::roster::{self, Roster};
use super::shared::Shared;
use super::{TRIES, breathe, spread};
use crate::clock::Instant;
use crate::random::{Jitter, ThreadJitter};
use crate::store::locked;
use crate::store::shared::Seen;

/// How often the Secret is read if no watch tells of a change, on average.
const POLL: Duration = Duration::from_secs(60);

/// The same where there is no watch.
const POLL_ALONE: Duration = Duration::from_secs(5);

/// How often a process with a seat gives a sign of life; less than [`GONE`](super::roster) by the
/// time that it takes.
const SIGN: Duration = Duration::from_secs(12);

/// How often it is seen whether a seat has become free, on average: in what the watch has told, or
/// by reading the Lease where there is no watch of it.
const ATTEND: Duration = Duration::from_secs(4);

/// How often a watch of the Lease is tried again where the Role does not allow it.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// The pause before a server that is away is tried again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// What one process has seen so far.
pub(super) struct Watching {
    shared: Arc<Shared>,
    watch: Option<Watch>,
    /// Since when there is a watch.
    begun: Instant,
    /// The pause before the next watch, should this one end soon.
    rest: Duration,
    /// The version of the Secret that was seen last.
    known: String,
    roster: Roster,
    /// What tells of the Lease, and the Lease as it was told last.
    lease: Option<(Watch, Option<Value>)>,
    watch_lease_at: Instant,
    sign_at: Instant,
    attend_at: Instant,
    told: bool,
}

impl Watching {
    pub(super) fn new(shared: Arc<Shared>) -> Watching {
        let now = shared.kept.clock.now();
        Watching {
            shared,
            watch: None,
            begun: now,
            rest: PAUSE.0,
            known: String::new(),
            roster: Roster::default(),
            lease: None,
            watch_lease_at: now,
            sign_at: now,
            attend_at: now,
            told: false,
        }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE.0;
        loop {
            if self.read().await {
                pause = PAUSE.0;
            } else {
                self.watch = None;
                tokio::time::sleep(spread(pause)).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
            // early, so that who goes on alone is settled before anything happens to the server
            self.give_sign().await;
            if self.watch.is_none() {
                self.begin().await;
            }
            let poll = match self.watch {
                Some(_) => POLL,
                None => POLL_ALONE,
            };
            self.follow(spread(poll)).await;
        }
    }

    /// Reads the Secret; whether that was to be had.
    async fn read(&mut self) -> bool {
        let Ok(secret) = self.shared.api.get(Kind::Secret).await else {
            self.shared.sight.look_is(Seen::Away);
            return false;
        };
        let content = self.shared.content(&secret);
        self.shared.sight.look_is(Seen::Content(content));
        let now = version(&secret).unwrap_or_default();
        if now != self.known {
            // whatever watch there was has not told of it
            self.watch = None;
            now.clone_into(&mut self.known);
        }
        true
    }

    /// Begins a watch, if the server lets this user.
    async fn begin(&mut self) {
        match self.shared.api.watch(Kind::Secret).await {
            Ok(watch) => {
                self.watch = Some(watch);
                self.begun = self.shared.kept.clock.now();
            }
            Err(problem) if !std::mem::replace(&mut self.told, true) => {
                info!(client = %self.shared.kept.client, "the store is looked at by reading alone: {problem}");
            }
            Err(_) => {}
        }
    }

    /// Sees what the watch tells, and gives signs of life, for so long or until the watch ends.
    async fn follow(&mut self, span: Duration) {
        let clock = Arc::clone(&self.shared.kept.clock);
        let end = clock.now() + span;
        while clock.now() < end {
            self.give_sign().await;
            let next = end.min(self.attend_at).since(clock.now());
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
                    self.has_lease(lease);
                    continue;
                }
                () = self.shared.doubt.notified() => return,
            };
            match event {
                Ok(Some(secret)) => {
                    if let Some(now) = version(&secret) {
                        now.clone_into(&mut self.known);
                    }
                    let content = self.shared.content(&secret);
                    self.shared.sight.look_is(Seen::Content(content));
                }
                Ok(None) => {
                    self.watch = None;
                    if clock.now().since(self.begun) > POLL_ALONE {
                        self.rest = PAUSE.0;
                    }
                    // one that ends at once, every time, must not make a storm
                    tokio::time::sleep(spread(self.rest)).await;
                    self.rest = (self.rest * 2).min(POLL_ALONE);
                    return;
                }
                Err(_elapsed) => {}
            }
        }
    }

    /// The Lease has changed, or its watch has ended.
    fn has_lease(&mut self, lease: Option<Value>) {
        let Some(lease) = lease else {
            self.lease = None;
            return;
        };
        self.shared.is_held(&lease, Duration::MAX);
        if let Some((_, told)) = &mut self.lease {
            *told = Some(lease);
        }
        self.attend_at = self.shared.kept.clock.now();
    }

    /// Attends, if that is due.
    async fn give_sign(&mut self) {
        let clock = Arc::clone(&self.shared.kept.clock);
        if clock.now() < self.attend_at {
            return;
        }
        if self.lease.is_none() && clock.now() >= self.watch_lease_at {
            match self.shared.api.watch(Kind::Lease).await {
                Ok(watch) => self.lease = Some((watch, None)),
                // it is read instead
                Err(_) => self.watch_lease_at = clock.now() + ASK_AGAIN,
            }
        }
        let again = match self.attend().await {
            Some(()) => spread(ATTEND),
            None => spread(PAUSE.1),
        };
        self.attend_at = (clock.now() + again).min(self.sign_at.max(clock.now() + PAUSE.0));
    }

    /// Gives a sign of life in the Lease, if one is due or there is a seat to be had, and learns the
    /// rank. `None` if that did not work out.
    async fn attend(&mut self) -> Option<()> {
        let shared = Arc::clone(&self.shared);
        let me = shared.identity.name();
        let mut told = self.lease.as_ref().and_then(|(_, told)| told.clone());
        for _ in 0..TRIES {
            let (mut lease, was_told) = match told.take() {
                Some(lease) => (lease, true),
                None => (shared.api.get(Kind::Lease).await.ok()?, false),
            };
            shared.is_held(&lease, Duration::MAX);
            let now = shared.kept.clock.now();
            let text = annotation(&lease, &shared.members).unwrap_or_default();
            let is_seated = roster::without(text, me).is_some();
            let (written, rank) = self.roster.attend(text, me, now);
            let moves = written
                .as_deref()
                .is_some_and(|now| !roster::is_same(text, now));
            if was_told && moves {
                // a watch may stay open and tell nothing
                continue;
            }
            if written.is_some() && (!is_seated || now >= self.sign_at) {
                annotate(&mut lease, &shared.members, written);
                let replaced = shared.api.replace(Kind::Lease, &lease).await.ok()?;
                if let Replaced::Conflict = replaced {
                    breathe().await;
                    continue;
                }
                self.sign_at = now + SIGN.mul_f64(0.95 + 0.1 * ThreadJitter.next());
            }
            *locked(&shared.rank) = rank;
            return Some(());
        }
        None
    }
}
