//! What goes into the machine, and what comes out of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::token::cache::Refusals;
use crate::token::ports::{Grant, Rank, Record, RequestError, StoreError};
use crate::token::schedule::{Config, Surprise};
use crate::token::service::Change;
use crate::token::token::Token;

/// What the world looks like when an event comes.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The time.
    pub now: Instant,
    /// The same by the wall clock.
    pub wall: SystemTime,
    /// Spreads delays; in `[0, 1)`.
    pub jitter: f64,
    /// Which one of those who share the client this process is, as far as the store knows.
    pub rank: Rank,
    /// What the API made of the tokens that it was sent.
    pub refusals: Refusals,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The engine starts, perhaps with what the process before it has left. Comes first, and once.
    Started(Option<Record>),
    /// The time of [`Action::WaitUntil`] has come, or less of it has passed.
    Time,
    /// The store tells that what is kept may have changed.
    Changed,
    /// The API has refused a token, or accepts one that it had refused.
    Judged,
    /// What came of [`Action::Read`].
    Read(Result<Option<Record>, StoreError>),
    /// What came of [`Action::Lease`]: whether it was granted.
    Leased(Result<bool, StoreError>),
    /// What came of [`Action::Publish`].
    Published(Result<(), StoreError>),
    /// What came of [`Action::Ask`].
    Answered(Result<Grant, RequestError>),
    /// The configuration of the client has changed, and with it perhaps the store.
    Configured(Config, ClientId, Change),
    /// Nobody needs the engine any more.
    Stopped,
}

/// What to do now. A lease that is held is given up unless [`Renewal::holds_lease`](super::Renewal::holds_lease).
#[derive(Debug)]
pub enum Action {
    /// Read what the store keeps; tell by [`Event::Read`].
    Read,
    /// Take the right to ask; tell by [`Event::Leased`].
    Lease,
    /// Keep this under the lease; tell by [`Event::Published`].
    Publish(Box<Record>),
    /// Send one token request; tell by [`Event::Answered`].
    Ask,
    /// Wait for any event, at most until then, and tell [`Event::Time`] if none came.
    WaitUntil(Instant),
    /// Tell the store that this process no longer shares the client, and end.
    Leave,
}

/// What people are told of.
#[derive(Clone, Debug)]
pub enum Note {
    /// A request brought a token.
    Received {
        /// The token.
        token: Arc<Token>,
        /// How long it took.
        took: Duration,
        /// What comes next.
        ahead: Ahead,
    },
    /// A request brought none.
    Failed {
        /// Why.
        error: RequestError,
        /// How long it took.
        took: Duration,
        /// How many failures in a row, this one included.
        in_a_row: u32,
        /// When the next attempt is due, from now.
        next: Duration,
        /// How long the token in hand may still be sent.
        left: Duration,
        /// What it says of the pool, if that was not expected.
        surprise: Option<Surprise>,
    },
    /// A token was taken over from the store.
    TakenOver {
        /// The token.
        token: Arc<Token>,
        /// How long it may still be sent.
        left: Duration,
        /// What comes next.
        ahead: Ahead,
    },
    /// What is in hand is not stored, for another knows better.
    NotStored(String),
    /// The API answered 401 to the token in hand.
    Refused {
        /// Its generation.
        generation: u64,
        /// When the next attempt is due, from now.
        next: Duration,
    },
    /// The API refuses the token in hand for everyone: it is no longer sent.
    Dead {
        /// Its generation.
        generation: u64,
    },
    /// The store is in another state now.
    Store(StoreState),
}

/// What comes next, after a token came.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// When the next request is due, from now.
    pub next: Duration,
    /// What the mirrored pool holds, in tokens.
    pub pool: f64,
}

/// Whether the store can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// It can be read and written.
    #[default]
    Usable,
    /// It can be read and not written, for this reason.
    Unwritable(Arc<str>),
    /// It cannot be read, for this reason.
    Away(Arc<str>),
}

impl StoreState {
    /// Why it cannot be used, if it cannot.
    #[must_use]
    pub fn problem(&self) -> Option<&Arc<str>> {
        match self {
            StoreState::Usable => None,
            StoreState::Unwritable(problem) | StoreState::Away(problem) => Some(problem),
        }
    }
}
