//! Accepts a listener's connections and serves them until the listener is told to stop.
//!
//! At `max_connections`, and when the file descriptors are used up, the connection that was idle
//! for longest is closed to make room.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{Connection, KEEP_ALIVE, Limits};
use super::listener::Listening;
use super::{connect, http1, http2};
use crate::clock::Instant;
use crate::descriptors::{Reserve, refill_for_calls};
use crate::downstream::stream::CallerStream;
use crate::downstream::tls::Tls;
use crate::downstream::transport::open;
use crate::socket::{Accepted, Socket};

/// How often idle connections are checked.
const KEEP_ALIVE_CHECK: Duration = Duration::from_secs(5);

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

impl Listening {
    /// Serves `socket` until [`Listening::close`] or [`Listening::retire`] is called, then closes
    /// it. Connections run as tasks in `connections`.
    pub async fn serve(self: Arc<Self>, socket: Arc<Socket>, connections: TaskTracker) {
        let mut failures = Failures {
            spare: Reserve::new(1),
            full_since: None,
            count: 0,
            reported: None,
        };
        refill_for_calls();
        let mut check = interval(KEEP_ALIVE_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.ending() => break,
                _ = check.tick() => {
                    self.idle.close_older_than(KEEP_ALIVE);
                    continue;
                }
                accepted = socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    self.failed(&mut failures, &error, &socket);
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failures.full_since = None;
            refill_for_calls();
            let permit = tokio::select! {
                permit = self.permit() => permit,
                () = self.ending() => None,
            };
            self.admit(stream, permit, &connections);
        }
        if self.has_successor.load(Ordering::Relaxed) {
            return;
        }
        // for the kernel these callers are already connected
        let waiting = || poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
        while let Poll::Ready(Ok(stream)) = waiting().await {
            self.admit(stream, None, &connections);
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
            if let Ok(permit) = timeout(ACCEPT_PAUSE, &mut freed).await {
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
                drop(socket.poll_accept(&mut Context::from_waker(Waker::noop())));
            }
        }
        failures.spare.refill();
        failures.count += 1;
        let is_recent = |at: Instant| now.since(at) < REPORT_PAUSE;
        if !failures.reported.is_some_and(is_recent) {
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
        let counted = state.metrics.connection();
        drop(state);
        let listening = Arc::clone(self);
        connections.spawn(async move {
            let _until_it_ends = (permit, counted);
            // a caller that does not speak TLS, or is too slow, is dropped silently
            let Ok(opened) = open(stream, tls, limits.header_timeout).await else {
                return;
            };
            let (transport, peer, is_http2) = opened;
            let stream = CallerStream::new(transport, limits.min_body_rate);
            let connection = Connection {
                registered: listening.idle.register(),
                listening,
                peer,
                limits,
            };
            if is_forward {
                // boxed, so that the tasks of other listeners do not grow
                Box::pin(connect::serve(stream, connection)).await;
            } else if is_http2 {
                http2::serve(stream, connection).await;
            } else {
                http1::serve(stream, Default::default(), None, &connection).await;
            }
        });
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
