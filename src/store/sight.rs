//! What a store's own look at its server has found, and what of it the engine has seen: a difference
//! between the two is what the engine is told of.

use std::sync::Mutex;

use tokio::sync::watch;

use super::locked;

/// What was there at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// The server could not be used.
    Away,
    /// What is kept is this, or is told from all else by this.
    Content(T),
}

/// What was seen, by whom.
#[derive(Debug)]
pub(super) struct Sight<T> {
    /// What was there last.
    looked: watch::Sender<Option<Seen<T>>>,
    /// What was there when the engine last read or wrote.
    seen: Mutex<Seen<T>>,
}

impl<T: Clone + PartialEq> Sight<T> {
    pub(super) fn new() -> Sight<T> {
        Sight {
            looked: watch::Sender::new(None),
            seen: Mutex::new(Seen::Away),
        }
    }

    /// A look has found `now`.
    pub(super) fn look_is(&self, now: Seen<T>) {
        self.looked.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&now);
            *last = Some(now);
            differs
        });
    }

    /// The engine has seen `now`: no change of it need be told.
    pub(super) fn saw(&self, now: Seen<T>) {
        *locked(&self.seen) = now.clone();
        self.looked.send_replace(Some(now));
    }

    /// The engine begins what may fail, or be given up: that the server is there after all is a
    /// change to it from now on. Gives what it had seen, for [`Sight::has_seen`] if all goes well.
    pub(super) fn risks(&self) -> Seen<T> {
        std::mem::replace(&mut *locked(&self.seen), Seen::Away)
    }

    /// The engine has seen no more than this.
    pub(super) fn has_seen(&self, before: Seen<T>) {
        *locked(&self.seen) = before;
    }

    /// Whether the last look found the server away.
    pub(super) fn is_away(&self) -> bool {
        *self.looked.borrow() == Some(Seen::Away)
    }

    /// Ends once a look has found what the engine has not seen.
    pub(super) async fn changed(&self) {
        let mut looked = self.looked.subscribe();
        // taken once: a reader beside this one must not make it miss what it has not seen
        let seen = locked(&self.seen).clone();
        let differs = |now: &Option<Seen<T>>| now.as_ref().is_some_and(|now| *now != seen);
        if looked.wait_for(differs).await.is_err() {
            std::future::pending().await
        }
    }
}
