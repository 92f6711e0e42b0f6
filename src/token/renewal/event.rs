//! The machine's inputs and outputs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::client_id::ClientId;
use crate::clock::Instant;
use crate::token::cache::Rejections;
use crate::token::ports::{Grant, Membership, Record, RequestError, StoreError};
use crate::token::schedule::{Config, RateLimitCause};
use crate::token::service::Change;

/// The circumstances of an event.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The monotonic time.
    pub now: Instant,
    /// The wall-clock time.
    pub wall: SystemTime,
    /// Spreads delays; in `[0, 1)`.
    pub jitter: f64,
    /// This process's position in the fleet, as far as the store knows.
    pub membership: Membership,
    /// The API's verdicts on the tokens that it was sent.
    pub rejections: Rejections,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The engine starts, perhaps with its predecessor's state. Always the first event, and sent
    /// once.
    Started(Option<Record>),
    /// The time of [`Action::WaitUntil`] has come, or a part of it has passed, or the API's verdict
    /// on a token changed.
    Time,
    /// The store reports that the record may have changed.
    Changed,
    /// The result of [`Action::Read`].
    Read(Result<Option<Record>, StoreError>),
    /// The result of [`Action::Lease`]: whether the lease was granted.
    Leased(Result<bool, StoreError>),
    /// The result of [`Action::Publish`].
    Published(Result<(), StoreError>),
    /// The result of [`Action::Ask`].
    Answered(Result<Grant, RequestError>),
    /// The client's configuration changed, and perhaps its store.
    Configured(Config, ClientId, Change),
    /// The engine is no longer needed.
    Stopped,
}

/// What to do next. Release a held lease unless
/// [`Renewal::holds_lease`](super::Renewal::holds_lease).
#[derive(Debug)]
pub enum Action {
    /// Read the store; report [`Event::Read`].
    Read,
    /// Acquire the lease; report [`Event::Leased`].
    Lease,
    /// Store this record under the lease; report [`Event::Published`].
    Publish(Box<Record>),
    /// Send one token request; report [`Event::Answered`].
    Ask,
    /// Wait for any event. Report [`Event::Time`] if none came by then.
    WaitUntil(Instant),
    /// Leave the fleet, and end.
    Leave,
}

/// Something to log or count. The [`Status`](crate::token::cache::Status) after the event has the
/// details.
#[derive(Clone, Debug)]
pub enum Note {
    /// A token was issued.
    Received {
        /// How long the request took.
        took: Duration,
    },
    /// A request failed.
    Failed {
        /// How long the request took.
        took: Duration,
        /// Why the issuer sent an unexpected 429.
        cause: Option<RateLimitCause>,
    },
    /// A token was adopted from the store.
    Adopted,
    /// The local state was not stored, because the store has a newer one.
    NotStored(String),
    /// The API answered 401 to the current token.
    Rejected,
    /// The API rejects the current token for all callers; it is no longer sent.
    Revoked,
    /// The store's state changed.
    Store(StoreState),
}

/// Whether the store is usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// It can be read and written.
    #[default]
    Usable,
    /// It can be read but not written, for this reason.
    Unwritable(Arc<str>),
    /// It cannot be read, for this reason.
    Unavailable(Arc<str>),
}

impl StoreState {
    /// Why the store is unusable, if it is.
    #[must_use]
    pub fn problem(&self) -> Option<&Arc<str>> {
        match self {
            StoreState::Usable => None,
            StoreState::Unwritable(problem) | StoreState::Unavailable(problem) => Some(problem),
        }
    }
}
