//! The state of one request, from its head to its access log line.

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

/// The state of one request.
#[derive(Debug)]
pub(super) struct Context {
    /// The plan in force when its head was complete.
    pub(super) plan: Arc<Plan>,
    /// Its caller, as far as it is known.
    pub(super) caller: Caller,
    /// The client whose token it gets.
    pub(super) client: Arc<Client>,
    /// The prefix that was removed from its path.
    pub(super) stripped: Option<Arc<str>>,
    /// Its id in logs, once its head was examined.
    pub(super) id: Option<HeaderValue>,
    /// When its head was complete.
    pub(super) started: Instant,
    /// When it was sent to the instance, the last time.
    pub(super) sent: Option<Instant>,
    /// How long the instance took to send the head of its response.
    pub(super) upstream: Option<Duration>,
    /// The generation of its token.
    pub(super) generation: Option<u64>,
    /// Why the proxy answered it itself.
    pub(super) refusal: Option<Refusal>,
    /// Whether it was sent again after a 401.
    pub(super) replayed: bool,
    /// Its share of its app's limits.
    pub(super) admitted: Option<Admitted>,
    in_flight: Option<InFlight>,
}

impl Context {
    /// Returns the state of a request whose head was complete at `started`.
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

    /// Sets the client.
    pub(super) fn lead_to(&mut self, client: &Arc<Client>) {
        if !Arc::ptr_eq(&self.client, client) {
            self.client = Arc::clone(client);
        }
    }

    /// Sets the caller, and its own client if it has one.
    pub(super) fn comes_from(&mut self, caller: Caller) {
        if let Caller::App(app) = &caller
            && let Some(client) = app.client()
        {
            self.lead_to(client);
        }
        self.caller = caller;
    }

    /// The name of the app that sent it, if any.
    pub(super) fn app(&self) -> Option<&Arc<str>> {
        match &self.caller {
            Caller::App(app) => Some(app.name()),
            Caller::Anyone | Caller::Owner => None,
        }
    }

    /// The metrics of its caller.
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

    /// Releases its share of the app's limits before the last bytes are sent: a caller that has
    /// them may send its next request at once.
    pub(super) fn ends(&mut self) {
        self.admitted = None;
    }

    /// Records that the request is sent at `now` with `token`.
    pub(super) fn goes_out(&mut self, token: &Token, now: Instant) {
        self.generation = Some(token.generation());
        self.sent = Some(now);
    }
}
