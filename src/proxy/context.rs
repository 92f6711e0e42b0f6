//! What is known of one request on its way, from its head to its line in the access log.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::identify::Caller;
use super::limit::Admitted;
use super::plan::{Client, Plan};
use super::respond::Refusal;
use crate::clock::Instant;
use crate::telemetry::{AppMetrics, InFlight};
use crate::token::token::Token;

/// What is known of one request on its way.
#[derive(Debug)]
pub(super) struct Context {
    /// What is done with it.
    pub(super) plan: Arc<Plan>,
    /// Who sent it, as far as that is known.
    pub(super) caller: Caller,
    /// The client whose token it gets.
    pub(super) client: Arc<Client>,
    /// The prefix that was cut from its path.
    pub(super) stripped: Option<Arc<str>>,
    /// By what it is found again in other logs, once its head was looked at.
    pub(super) id: Option<HeaderValue>,
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
    /// Whether it was sent a second time, after a 401.
    pub(super) replayed: bool,
    /// Its share of its app's limits.
    pub(super) admitted: Option<Admitted>,
    in_flight: Option<InFlight>,
}

impl Context {
    /// A request whose head was complete at `started`.
    pub(super) fn new(plan: Arc<Plan>, started: Instant) -> Context {
        let client = Arc::clone(&plan.client);
        Context {
            caller: Caller::Anyone,
            stripped: None,
            id: None,
            started,
            sent: None,
            upstream: None,
            generation: None,
            refusal: None,
            replayed: false,
            admitted: None,
            in_flight: None,
            client,
            plan,
        }
    }

    /// Its client is this one.
    pub(super) fn lead_to(&mut self, client: &Arc<Client>) {
        if !Arc::ptr_eq(&self.client, client) {
            self.client = Arc::clone(client);
        }
    }

    /// It was sent by `caller`, who may have a client of its own.
    pub(super) fn comes_from(&mut self, caller: Caller) {
        if let Caller::App(app) = &caller
            && let Some(client) = app.client()
        {
            self.lead_to(client);
        }
        self.caller = caller;
    }

    /// The name of the app that sent it, if one did.
    pub(super) fn app(&self) -> Option<&Arc<str>> {
        match &self.caller {
            Caller::App(app) => Some(app.name()),
            Caller::Anyone | Caller::Owner => None,
        }
    }

    /// The figures of whoever sent it.
    pub(super) fn app_metrics(&self) -> &AppMetrics {
        match &self.caller {
            Caller::App(app) => app.metrics(),
            Caller::Anyone | Caller::Owner => &self.plan.nobody,
        }
    }

    /// The guard that counts the request as in flight. From here on its app and client stay.
    pub(super) fn in_flight(&mut self) -> &InFlight {
        let in_flight = self.in_flight.take();
        let begin = || InFlight::new(self.app_metrics().traffic(&self.client.name));
        let in_flight = in_flight.unwrap_or_else(begin);
        self.in_flight.insert(in_flight)
    }

    /// The answer's last bytes go out. Whoever has them may send the next request at once, and must
    /// not meet a limit by this one.
    pub(super) fn ends(&mut self) {
        self.admitted = None;
    }

    /// The request is sent at `now`, with `token`.
    pub(super) fn goes_out(&mut self, token: &Token, now: Instant) {
        self.generation = Some(token.generation());
        self.sent = Some(now);
    }
}
