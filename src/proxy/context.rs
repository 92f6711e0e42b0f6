//! What is known of one request on its way, from its head to its line in the access log.

use std::sync::Arc;
use std::time::Duration;

use super::plan::{Client, Plan};
use super::respond::Refusal;
use crate::clock::Instant;
use crate::telemetry::InFlight;
use crate::token::token::Token;

/// What is known of one request on its way.
#[derive(Debug)]
pub struct Context {
    /// What is done with it.
    pub(super) plan: Arc<Plan>,
    /// The client whose token it gets.
    pub(super) client: Arc<Client>,
    /// When its head was complete.
    pub(super) started: Instant,
    /// When it was sent to the instance, the last time.
    pub(super) sent: Option<Instant>,
    /// How long the instance took to answer with a head.
    pub(super) upstream: Option<Duration>,
    /// Which token went with it.
    pub(super) generation: Option<u64>,
    /// Why it is answered here.
    pub(super) refusal: Option<Refusal>,
    /// Connections that could not be made for it.
    pub(super) failed_connections: usize,
    /// Whether it was sent a second time, after a 401.
    pub(super) replayed: bool,
    _in_flight: InFlight,
}

impl Context {
    /// A request whose head was complete at `started`.
    pub(super) fn new(plan: Arc<Plan>, started: Instant) -> Context {
        let client = Arc::clone(&plan.client);
        Context {
            started,
            sent: None,
            upstream: None,
            generation: None,
            refusal: None,
            failed_connections: 0,
            replayed: false,
            _in_flight: client.metrics.in_flight(),
            client,
            plan,
        }
    }

    /// The request is sent at `now`, with `token`.
    pub(super) fn goes_out(&mut self, token: &Token, now: Instant) {
        self.generation = Some(token.generation());
        self.sent = Some(now);
    }
}
