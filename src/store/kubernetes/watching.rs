//! The look that a process has at the Secret and the Lease for as long as its store is in use.
//!
//! The Secret is watched, and read now and then in any case: what a reading finds and the watch has
//! not told ends the watch. One that ends at once is begun again after a pause that grows. It is
//! read at once when a call of the store has failed or was given up, for a watch may stay open
//! while nothing else gets through, and whoever failed waits to be told that the server is back.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::api::{Kind, Replaced, Watch};
use super::object::{annotate, annotation, version};
use super::roster::Roster;
use super::shared::Shared;
use super::{TRIES, breathe, spread};
use crate::clock::Instant;
use crate::store::locked;
use crate::store::shared::Seen;

/// How often the Secret is read if no watch tells of a change, on average.
const POLL: Duration = Duration::from_secs(30);

/// The same where there is no watch.
const POLL_ALONE: Duration = Duration::from_secs(5);

/// How often the Lease is looked at for a seat, on average.
const ATTEND: Duration = Duration::from_secs(4);

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
        match self.shared.api.watch().await {
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
            let event = tokio::select! {
                event = tokio::time::timeout(next, event) => event,
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

    /// Attends, if that is due.
    async fn give_sign(&mut self) {
        if self.shared.kept.clock.now() >= self.attend_at {
            let again = match self.attend().await {
                Some(()) => ATTEND,
                None => PAUSE.1,
            };
            self.attend_at = self.shared.kept.clock.now() + spread(again);
        }
    }

    /// Gives a sign of life in the Lease, if there is a seat to be had, and learns the rank. `None` if
    /// that did not work out.
    async fn attend(&mut self) -> Option<()> {
        let shared = &self.shared;
        let me = shared.identity.name();
        for _ in 0..TRIES {
            let mut lease = shared.api.get(Kind::Lease).await.ok()?;
            shared.is_held(&lease, Duration::MAX);
            let text = annotation(&lease, &shared.members).unwrap_or_default();
            let (written, rank) = self.roster.attend(text, me, shared.kept.clock.now());
            if written.is_some() {
                annotate(&mut lease, &shared.members, written);
                let replaced = shared.api.replace(Kind::Lease, &lease).await.ok()?;
                if let Replaced::Conflict = replaced {
                    breathe().await;
                    continue;
                }
            }
            *locked(&shared.rank) = rank;
            return Some(());
        }
        None
    }
}
