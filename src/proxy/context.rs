//! The state of one request, from its head to its access log line.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora::http::RequestHeader;

use super::identify::Caller;
use super::limit::Admitted;
use super::listener_state::{Client, ListenerState};
use super::respond::Refusal;
use crate::clock::{Clock, Instant};
use crate::telemetry::{AppMetrics, InFlight};
use crate::token::token::Token;
use crate::trace::{RequestSpan, TRACEPARENT};

/// The state of one request.
#[derive(Debug)]
pub(super) struct Context {
    /// The state in force when its head was complete.
    pub(super) state: Arc<ListenerState>,
    /// Its caller, as far as it is known.
    pub(super) caller: Caller,
    /// The name of the app that its sender claims to be, and did not prove to be.
    pub(super) claimed_app: Option<Arc<str>>,
    /// The client whose token it gets.
    pub(super) client: Arc<Client>,
    /// Whether the caller speaks TLS with the proxy.
    pub(super) over_tls: bool,
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
    /// Its span, if tracing is on.
    pub(super) span: Option<Box<RequestSpan>>,
    in_flight: Option<InFlight>,
}

impl Context {
    /// Returns the state of a request whose head was complete at `started`; `over_tls` says whether
    /// it came over TLS.
    pub(super) fn new(state: Arc<ListenerState>, started: Instant, over_tls: bool) -> Context {
        let client = Arc::clone(&state.client);
        Context {
            caller: Caller::Anyone,
            claimed_app: None,
            over_tls,
            stripped: None,
            id: None,
            started,
            sent: None,
            upstream: None,
            generation: None,
            refusal: None,
            replayed: false,
            admitted: None,
            span: None,
            in_flight: None,
            client,
            state,
        }
    }

    /// Sets the client.
    pub(super) fn lead_to(&mut self, client: &Arc<Client>) {
        self.client = Arc::clone(client);
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
            Caller::Anyone | Caller::Owner => &self.state.nobody,
        }
    }

    /// Starts the request's span, if tracing is on.
    pub(super) fn begin_span(&mut self, head: &RequestHeader, clock: &dyn Clock) {
        if let Some(tracer) = &self.state.tracer {
            let span = tracer.request(&head.method, &head.headers, clock.wall());
            self.span = Some(Box::new(span));
        }
    }

    /// Makes the span the parent of what the instance does.
    pub(super) fn inject_span(&self, head: &mut RequestHeader) {
        if let Some(value) = self.span.as_ref().and_then(|span| span.traceparent()) {
            // if the field cannot be set, the instance has no parent span
            let _ = head.insert_header(TRACEPARENT, value);
        }
    }

    /// Counts the request as in flight from now on. Its app and client no longer change.
    pub(super) fn begin_in_flight(&mut self) {
        self.in_flight = Some(self.take_in_flight());
    }

    /// The guard that counts the request as in flight.
    pub(super) fn take_in_flight(&mut self) -> InFlight {
        let counted = self.in_flight.take();
        counted.unwrap_or_else(|| InFlight::new(self.app_metrics().traffic(&self.client.name)))
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
