//! A caller's connection, whatever its protocol: its peer, its limits and its listener.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::listener::Listening;
use crate::downstream::idle::Registered;
use crate::downstream::peer::Peer;

/// The keep-alive time between two requests.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its listener.
    pub(super) listening: Arc<Listening>,
    /// Its other end.
    pub(super) peer: Peer,
    /// Its limits.
    pub(super) limits: Limits,
    /// Its place among the listener's connections, which are closed when they are idle.
    pub(super) registered: Registered,
}

/// The limits of a connection, as of its accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_timeout: Duration,
    pub(super) max_header_bytes: usize,
    pub(super) min_body_rate: Option<NonZeroU32>,
}
