//! The state of one request, from its head to its access log line.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora::http::RequestHeader;

use super::client::Client;
use super::connection::Connection;
use super::identity::{Callers, Identity};
use super::listener_state::ListenerState;
use super::respond::Reason;
use crate::clock::{Clock, Instant};
use crate::policy::limit::Admitted;
use crate::telemetry::{AppMetrics, Cut, InFlight};
use crate::trace::{RequestSpan, Tracer};

/// The state of one request.
pub(super) struct Context<'a> {
    /// The connection on which it came.
    pub(super) connection: &'a Connection,
    /// The state in force when its head was complete.
    pub(super) state: Arc<ListenerState>,
    /// Its caller, as far as it is known. Set by [`Context::identified`].
    pub(super) identity: Identity,
    /// The name of the app that its sender claims to be, and did not prove to be.
    pub(super) claimed_app: Option<Arc<str>>,
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
    pub(super) refused: Option<Reason>,
    /// Whether it was sent again after a 401.
    pub(super) replayed: bool,
    /// Its share of its app's limits. Released before the last bytes are sent: a caller that has
    /// them may send its next request at once.
    pub(super) admitted: Option<Admitted>,
    /// Its span, if tracing is on.
    pub(super) span: Option<Box<RequestSpan>>,
    /// The status sent to the caller; 0 if none yet.
    pub(super) status: u16,
    /// Which side ended it early.
    pub(super) cut: Option<Cut>,
    /// What went wrong.
    pub(super) error: Option<String>,
    in_flight: Option<InFlight>,
}

impl Context<'_> {
    /// Returns the state of a request with this `head`, which was just completed.
    pub(super) fn new<'a>(connection: &'a Connection, head: &RequestHeader) -> Context<'a> {
        let listening = &connection.listening;
        let state = listening.state.load_full();
        let wall = || listening.clock.wall();
        let begin = |tracer: &Arc<Tracer>| tracer.request(&head.method, &head.headers, wall());
        Context {
            connection,
            identity: Identity::Anyone,
            claimed_app: None,
            client: Arc::clone(&state.client),
            stripped: None,
            id: None,
            started: listening.clock.now(),
            sent: None,
            upstream: None,
            generation: None,
            refused: None,
            replayed: false,
            admitted: None,
            span: state.tracer.as_ref().map(begin).map(Box::new),
            status: 0,
            cut: None,
            error: None,
            in_flight: None,
            state,
        }
    }

    /// The clock for token expiry and request times.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.connection.listening.clock
    }

    /// Those who may send it.
    pub(super) fn callers(&self) -> Callers<'_> {
        Callers {
            state: &self.state,
            client: &self.client,
            now: self.clock().wall(),
        }
    }

    /// Sets the caller, and its own client if it has one.
    pub(super) fn identified(&mut self, identity: Identity) {
        if let Some(client) = identity.app().and_then(|app| app.client.as_ref()) {
            self.client = Arc::clone(client);
        }
        self.identity = identity;
    }

    /// The name of the app that sent it, if any.
    pub(super) fn app(&self) -> Option<&Arc<str>> {
        self.identity.app().map(|app| app.name())
    }

    /// The metrics of its caller.
    pub(super) fn app_metrics(&self) -> &AppMetrics {
        let app = self.identity.app();
        app.map_or(&self.state.nobody, |app| &app.metrics)
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
}
