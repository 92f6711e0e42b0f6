//! Accepts connections and serves them until told to stop.
//!
//! The state for requests can be replaced meanwhile ([`Listening::follow`]): the socket and all
//! connections stay open, and the next request on each follows the new state.
//!
//! At `max_connections`, and when the file descriptors are used up, the connection that was idle
//! for longest is closed to make room.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::BufReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{self, ReadAhead};
use super::idle::{Idle, Registered};
use super::limit::Limiter;
use super::listener_state::ListenerState;
use super::peer::Peer;
use super::stream::CallerStream;
use super::tls::Tls;
use super::transport::Transport;
use super::{connect, http2};
use crate::clock::{Clock, Instant};
use crate::descriptors::{Reserve, refill_for_calls};
use crate::socket::{Accepted, Socket};

/// How many local tokens all callers that are no app may ask for in a second.
const STRANGERS_PER_SECOND: f64 = 100.0;

/// The keep-alive time between two requests.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How often idle connections are checked.
const KEEP_ALIVE_CHECK: Duration = Duration::from_secs(5);

/// The read-ahead below TLS: one record (RFC 8446, section 5.1).
pub(super) const READ_BUFFER: usize = 16 * 1024;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The shortest time between two reports of failed accepts.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// How many such pauses a connection may take to close when it makes room.
const SHED_PATIENCE: u32 = 20;

/// How many idle connections are closed at once when the file descriptors are used up.
const SHED_AT_ONCE: usize = 16;

/// How long a caller waits for a descriptor before it is turned away. Most calls end sooner, and
/// free one.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a newly opened connection may wait for its request after its listener closed.
const LINGER: Duration = Duration::from_secs(1);

/// The limits of a connection, as of its accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_timeout: Duration,
    pub(super) max_header_bytes: usize,
    pub(super) min_body_rate: Option<NonZeroU32>,
}

/// A running listener.
#[derive(Debug)]
pub struct Listening {
    /// The state for the next request.
    pub(super) state: ArcSwap<ListenerState>,
    /// The clock for token expiry and request times.
    pub(super) clock: Arc<dyn Clock>,
    /// Whether each connection ends after its request.
    ending: AtomicBool,
    /// Of the local tokens that callers ask for who are no app.
    pub(super) strangers: Arc<Limiter>,
    idle: Idle,
    permits: Arc<Semaphore>,
    max_connections: AtomicUsize,
    closed: watch::Sender<bool>,
    /// Whether another process will accept the callers that wait when this one stops.
    has_successor: AtomicBool,
}

impl Listening {
    /// Returns a listener that serves requests by `state`; `clock` decides when tokens expire.
    #[must_use]
    pub fn new(state: Arc<ListenerState>, clock: Arc<dyn Clock>) -> Listening {
        let max_connections = state.listener.max_connections;
        Listening {
            state: ArcSwap::new(state),
            idle: Idle::new(Arc::clone(&clock)),
            clock,
            ending: AtomicBool::new(false),
            strangers: Arc::new(Limiter::per_second(STRANGERS_PER_SECOND)),
            permits: Arc::new(Semaphore::new(max_connections)),
            max_connections: AtomicUsize::new(max_connections),
            closed: watch::Sender::new(false),
            has_successor: AtomicBool::new(false),
        }
    }

    /// Serves later requests by `state`. Open connections keep their limits for heads.
    pub fn follow(&self, state: Arc<ListenerState>) {
        self.limit(state.listener.max_connections);
        self.state.store(state);
    }

    /// Serves `socket` until [`Listening::close`] or [`Listening::retire`] is called, then closes
    /// it. Connections run as tasks in `connections`.
    pub async fn serve(self: Arc<Self>, socket: Arc<Socket>, connections: TaskTracker) {
        let mut closed = self.closed.subscribe();
        let mut failures = Failures::default();
        refill_for_calls();
        let mut check = tokio::time::interval(KEEP_ALIVE_CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = closed.wait_for(|closed| *closed) => break,
                _ = check.tick() => {
                    self.idle.close_older_than(KEEP_ALIVE);
                    continue;
                }
            };
            let stream = match accepted {
                Ok(stream) => {
                    failures.full_since = None;
                    refill_for_calls();
                    stream
                }
                Err(error) => {
                    self.failed(&mut failures, &error, &socket);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let permit = tokio::select! {
                permit = self.permit() => permit,
                _ = closed.wait_for(|closed| *closed) => {
                    self.admit(stream, None, &connections);
                    break;
                }
            };
            self.admit(stream, permit, &connections);
        }
        if self.has_successor.load(Ordering::Relaxed) {
            return;
        }
        // for the kernel these callers are already connected
        let waiting = || std::future::poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
        while let Poll::Ready(Ok(stream)) = waiting().await {
            self.admit(stream, None, &connections);
        }
    }

    /// The socket stays open in another process: callers waiting at it when this listener closes
    /// are left to that process.
    pub fn has_successor(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
    }

    /// Stops accepting, and closes every idle connection; the others close after their request.
    pub fn close(&self) {
        self.wind_down();
        self.idle.close_all();
    }

    /// As [`Listening::close`], except that a connection that was just opened may have its one
    /// request within a second.
    pub fn drain(self: &Arc<Self>) {
        self.wind_down();
        self.idle.close_used();
        let listening = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            listening.idle.close_all();
        });
    }

    /// As [`Listening::close`], but a newly opened connection may still send one request. Takes a
    /// second.
    pub async fn retire(&self) {
        self.wind_down();
        tokio::time::sleep(LINGER).await;
        self.idle.close_all();
    }

    /// Stops accepting. Every connection may have one more request and then closes.
    pub fn wind_down(&self) {
        self.closed.send_replace(true);
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Returns whether each connection ends after its request.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Waits until each connection must end after its request.
    pub(super) async fn ending(&self) {
        let mut closed = self.closed.subscribe();
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns a permit for one more connection. If there is none, closes the one that was idle for
    /// longest.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let mut patience = 0_u32;
        let freed = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(freed);
        loop {
            // all may be busy and one become idle later; or one that was told to close has just got
            // a request
            if patience == 0 && self.shed(1) == 1 {
                patience = SHED_PATIENCE;
            }
            patience = patience.saturating_sub(1);
            if let Ok(permit) = tokio::time::timeout(ACCEPT_PAUSE, &mut freed).await {
                return permit.ok();
            }
        }
    }

    /// Closes the `most` connections that were idle for longest; returns their number.
    fn shed(&self, most: usize) -> usize {
        let closed = self.idle.close_longest(most);
        self.state.load().metrics.shed(closed);
        closed
    }

    /// Handles a failed accept: closes idle connections to free descriptors. If there has been none
    /// to close for [`ACCEPT_PATIENCE`], turns a caller away, which would wait in vain.
    fn failed(&self, failures: &mut Failures, error: &std::io::Error, socket: &Socket) {
        let now = self.clock.now();
        if self.shed(SHED_AT_ONCE) > 0 {
            failures.full_since = None;
        } else {
            let since = *failures.full_since.get_or_insert(now);
            if now.since(since) >= ACCEPT_PATIENCE && failures.spare.spend() {
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                drop(socket.poll_accept(&mut cx));
            }
        }
        failures.spare.refill();
        failures.count += 1;
        let is_due = failures
            .reported
            .is_none_or(|at| now.since(at) >= REPORT_PAUSE);
        if is_due {
            let listener = Arc::clone(&self.state.load().listener.name);
            let count = std::mem::take(&mut failures.count);
            failures.reported = Some(now);
            warn!(%listener, count, "cannot accept a connection: {error}");
        }
    }

    fn admit(
        self: &Arc<Self>,
        stream: Accepted,
        permit: Option<OwnedSemaphorePermit>,
        connections: &TaskTracker,
    ) {
        let state = self.state.load();
        let listener = &state.listener;
        let limits = Limits {
            header_timeout: listener.header_timeout,
            max_header_bytes: listener.max_header_bytes,
            min_body_rate: listener.min_body_rate,
        };
        let tls = listener.tls.as_ref().map(Tls::acceptor);
        let is_forward = state.forward.is_some();
        let open = state.metrics.connection();
        drop(state);
        let listening = Arc::clone(self);
        connections.spawn(async move {
            if let Some(transport) = shake_hands(stream, tls, limits.header_timeout).await {
                let peer = transport.peer();
                let is_http2 = transport.is_http2();
                let stream = CallerStream::new(transport, limits.min_body_rate);
                let registered = listening.idle.register();
                if is_forward {
                    // boxed, so that the tasks of other listeners do not grow
                    let serving = connect::serve(stream, &peer, limits, &listening, &registered);
                    Box::pin(serving).await;
                } else {
                    serve(stream, &peer, is_http2, limits, &listening, &registered).await;
                }
            }
            drop((permit, open));
        });
    }

    /// Limits concurrent connections to `most`, as soon as enough have ended.
    fn limit(&self, most: usize) {
        let before = self.max_connections.swap(most, Ordering::Relaxed);
        self.permits.add_permits(most.saturating_sub(before));
        let surplus = u32::try_from(before.saturating_sub(most)).unwrap_or(u32::MAX);
        if surplus > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(taken) = permits.acquire_many_owned(surplus).await {
                    taken.forget();
                }
            });
        }
    }
}

/// Serves the requests of a connection.
pub(super) async fn serve(
    stream: CallerStream,
    peer: &Peer,
    is_http2: bool,
    limits: Limits,
    listening: &Arc<Listening>,
    registered: &Registered,
) {
    if is_http2 {
        http2::serve(stream, peer, limits, listening, registered).await;
    } else {
        let ahead = ReadAhead::default();
        connection::serve(stream, ahead, peer, limits, listening, registered).await;
    }
}

/// Connections that could not be accepted.
struct Failures {
    /// A reserved file descriptor, used to accept a caller and turn it away.
    spare: Reserve,
    /// Since when no connection could be accepted, and none was idle.
    full_since: Option<Instant>,
    count: usize,
    reported: Option<Instant>,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures {
            spare: Reserve::new(1),
            full_since: None,
            count: 0,
            reported: None,
        }
    }
}

/// Performs the TLS handshake, if any. A caller that does not speak TLS, or is too slow, is dropped
/// silently.
async fn shake_hands(
    stream: Accepted,
    tls: Option<TlsAcceptor>,
    patience: Duration,
) -> Option<Transport> {
    if let Either::Left(stream) = &stream {
        let _ = stream.set_nodelay(true);
    }
    let Some(tls) = tls else {
        return Some(Transport::Plain(stream));
    };
    // TLS records are read in small pieces
    let stream = BufReader::with_capacity(READ_BUFFER, stream);
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(_)) | Err(_) => None,
    }
}
