//! Accepts connections and serves each, until told to stop.
//!
//! What is done with requests can be exchanged meanwhile ([`Listening::follow`]): the socket and every
//! connection stay open, and the next request of each is served as the new plan says.
//!
//! At `max_connections`, and when no file descriptor is left, the connection that has been idle for
//! longest is closed to make room.

use std::fs::File;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::BufReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::idle::{Idle, Registered};
use super::limit::Limiter;
use super::peer::Peer;
use super::plan::Plan;
use super::stream::CallerStream;
use super::tls::Tls;
use super::transport::Transport;
use super::{connection, http2};
use crate::clock::{Clock, Instant};
use crate::socket::{Accepted, Socket};

/// How many local tokens all callers that are no app may ask for in a second.
const STRANGERS_PER_SECOND: f64 = 100.0;

/// How long a connection is kept between two requests.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How often connections are looked over for such.
const KEEP_ALIVE_CHECK: Duration = Duration::from_secs(5);

/// What is read ahead below TLS: a record (RFC 8446, section 5.1).
const READ_BUFFER: usize = 16 * 1024;

/// After a failed accept the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a failed accept is reported at most.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// How many such pauses a connection that makes room for another may take to close.
const SHED_PATIENCE: u32 = 20;

/// How many idle connections make room at once when no file descriptor is left.
const SHED_AT_ONCE: usize = 16;

/// How long a connection that was just opened may take for its request, once its listener is gone.
const LINGER: Duration = Duration::from_secs(1);

/// The limits on a connection, as they were when it was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_timeout: Duration,
    pub(super) max_header_bytes: usize,
    pub(super) min_body_rate: Option<NonZeroU32>,
}

/// A listener while it runs: what is done with the connections that its socket accepts.
#[derive(Debug)]
pub struct Listening {
    /// What is done with the next request.
    pub(super) plan: ArcSwap<Plan>,
    /// The clock by which tokens expire and requests are timed.
    pub(super) clock: Arc<dyn Clock>,
    /// Each connection is to end after its request.
    ending: AtomicBool,
    /// Of the local tokens that callers ask for who are no app.
    pub(super) strangers: Arc<Limiter>,
    idle: Idle,
    permits: Arc<Semaphore>,
    max_connections: AtomicUsize,
    closed: watch::Sender<bool>,
    /// Whether another process will accept those who wait when this one accepts nothing more.
    has_heir: AtomicBool,
}

impl Listening {
    /// A listener that serves requests as `plan` says; `clock` tells when tokens expire.
    #[must_use]
    pub fn new(plan: Arc<Plan>, clock: Arc<dyn Clock>) -> Listening {
        let max_connections = plan.listener.max_connections;
        Listening {
            plan: ArcSwap::new(plan),
            idle: Idle::new(Arc::clone(&clock)),
            clock,
            ending: AtomicBool::new(false),
            strangers: Arc::new(Limiter::per_second(STRANGERS_PER_SECOND)),
            permits: Arc::new(Semaphore::new(max_connections)),
            max_connections: AtomicUsize::new(max_connections),
            closed: watch::Sender::new(false),
            has_heir: AtomicBool::new(false),
        }
    }

    /// Serves every further request as `plan` says. Connections that are open keep their limits on
    /// the heads of requests.
    pub fn follow(&self, plan: Arc<Plan>) {
        self.limit(plan.listener.max_connections);
        self.plan.store(plan);
    }

    /// Serves `socket` until [`Listening::close`] or [`Listening::retire`] is called, then closes
    /// it. Connections go on in tasks that `connections` knows of.
    pub async fn serve(self: Arc<Self>, socket: Arc<Socket>, connections: TaskTracker) {
        let mut closed = self.closed.subscribe();
        let mut failures = Failures::default();
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
                Ok(stream) => stream,
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
        if self.has_heir.load(Ordering::Relaxed) {
            return;
        }
        // the kernel has told these callers already that they are connected
        let waiting = || std::future::poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
        while let Poll::Ready(Ok(stream)) = waiting().await {
            self.admit(stream, None, &connections);
        }
    }

    /// The socket stays open elsewhere: who waits at it when this listener is closed is left to
    /// the process that accepts there next.
    pub fn has_heir(&self) {
        self.has_heir.store(true, Ordering::Relaxed);
    }

    /// Accepts nothing more, and ends every connection that is between two requests; the others
    /// end after theirs.
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

    /// As [`Listening::close`], but gently: a connection that was just opened may still have its
    /// one request. Takes a second.
    pub async fn retire(&self) {
        self.wind_down();
        tokio::time::sleep(LINGER).await;
        self.idle.close_all();
    }

    /// Accepts nothing more. Every connection may have one more request, at whose end it is closed.
    pub fn wind_down(&self) {
        self.closed.send_replace(true);
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Whether each connection is to end after its request.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Ends once each connection is to end after its request.
    pub(super) async fn ending(&self) {
        let mut closed = self.closed.subscribe();
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending().await
        }
    }

    /// A permit for one more connection. If there is none, the longest idle one makes room.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        let mut patience = 0_u32;
        let freed = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(freed);
        loop {
            // a connection may become idle while all are busy; one that was told to close may have
            // had a request just then
            if patience == 0 && self.idle.close_longest(1) == 1 {
                patience = SHED_PATIENCE;
            }
            patience = patience.saturating_sub(1);
            if let Ok(permit) = tokio::time::timeout(ACCEPT_PAUSE, &mut freed).await {
                return permit.ok();
            }
        }
    }

    /// Makes room where none is left, and tells a caller who waits in vain by closing on it.
    fn failed(&self, failures: &mut Failures, error: &std::io::Error, socket: &Socket) {
        let shed = self.idle.close_longest(SHED_AT_ONCE);
        if shed == 0 && failures.spare.take().is_some() {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            drop(socket.poll_accept(&mut cx));
        }
        failures.refill();
        failures.count += 1;
        let now = self.clock.now();
        let is_due = failures
            .reported
            .is_none_or(|at| now.since(at) >= REPORT_PAUSE);
        if is_due {
            let listener = Arc::clone(&self.plan.load().listener.name);
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
        let plan = self.plan.load();
        let listener = &plan.listener;
        let limits = Limits {
            header_timeout: listener.header_timeout,
            max_header_bytes: listener.max_header_bytes,
            min_body_rate: listener.min_body_rate,
        };
        let tls = listener.tls.as_ref().map(Tls::acceptor);
        let open = plan.metrics.connection();
        drop(plan);
        let listening = Arc::clone(self);
        connections.spawn(async move {
            if let Some(transport) = shake_hands(stream, tls, limits.header_timeout).await {
                let peer = transport.peer();
                let is_http2 = transport.is_http2();
                let stream = CallerStream::new(transport, limits.min_body_rate);
                let registered = listening.idle.register();
                serve(stream, &peer, is_http2, limits, &listening, &registered).await;
            }
            drop((permit, open));
        });
    }

    /// Serves at most `most` connections at once from now on, or as soon as enough have ended.
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

async fn serve(
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
        connection::serve(stream, peer, limits, listening, registered).await;
    }
}

/// Connections that could not be accepted.
struct Failures {
    /// A file descriptor held back: with it a caller can be accepted, and so be told.
    spare: Option<File>,
    count: usize,
    reported: Option<Instant>,
}

impl Default for Failures {
    fn default() -> Failures {
        let mut failures = Failures {
            spare: None,
            count: 0,
            reported: None,
        };
        failures.refill();
        failures
    }
}

impl Failures {
    fn refill(&mut self) {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }
}

/// What an accepted connection runs over. A caller that does not speak TLS where it should, or takes
/// too long, is let go without a word.
async fn shake_hands(
    stream: Accepted,
    tls: Option<TlsAcceptor>,
    patience: Duration,
) -> Option<Transport> {
    if let Accepted::Tcp(stream) = &stream {
        let _ = stream.set_nodelay(true);
    }
    let Some(tls) = tls else {
        return Some(Transport::Plain(stream));
    };
    // records are read in small pieces
    let stream = BufReader::with_capacity(READ_BUFFER, stream);
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(_)) | Err(_) => None,
    }
}
