//! The open connections to one instance: idle HTTP/1 connections, and shared HTTP/2 connections.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::protocols::Stream;

use super::http2::{Connection, Http2};
use super::io::Received;
use super::stream::is_quiet;
use crate::clock::Instant;

/// How long an unused connection is kept: less than the 60 s after which load balancers commonly
/// close it.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// The most idle HTTP/1 connections.
const MOST_IDLE: usize = 1024;

/// The open connections to one instance.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The most recently used one last.
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Shared>>,
}

/// An idle HTTP/1 connection.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) stream: Stream,
    pub(super) received: Received,
    pub(super) address: SocketAddr,
    since: Instant,
}

struct Shared {
    connection: Connection,
    address: SocketAddr,
    last_used: Instant,
}

impl Pool {
    /// Takes the most recently used idle HTTP/1 connection that is still usable.
    pub(super) fn take(&self) -> Option<Idle> {
        loop {
            let mut idle = lock(&self.http1).pop()?;
            if is_quiet(&mut idle.stream) {
                return Some(idle);
            }
        }
    }

    /// Adds a connection that is idle from `now` on.
    pub(super) fn put(
        &self,
        stream: Stream,
        received: Received,
        address: SocketAddr,
        now: Instant,
    ) {
        let mut idle = lock(&self.http1);
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                stream,
                received,
                address,
                since: now,
            });
        }
    }

    /// Begins a request at `now` on an HTTP/2 connection that has room for it.
    pub(super) fn request(&self, now: Instant) -> Option<Http2> {
        let mut shared = lock(&self.http2);
        shared.retain_mut(|shared| !shared.connection.is_gone());
        shared.iter_mut().find_map(|shared| {
            let request = shared.connection.request(true)?;
            shared.last_used = now;
            Some(request)
        })
    }

    /// Adds an HTTP/2 connection, which is in use at `now`.
    pub(super) fn share(&self, connection: Connection, address: SocketAddr, now: Instant) {
        lock(&self.http2).push(Shared {
            connection,
            address,
            last_used: now,
        });
    }

    /// Closes the connections that are idle for too long at `now`, or closed by the instance.
    pub(super) fn prune(&self, now: Instant) {
        lock(&self.http1)
            .retain_mut(|idle| now.since(idle.since) < KEEP_IDLE && is_quiet(&mut idle.stream));
        lock(&self.http2).retain_mut(|shared| {
            let is_idle = shared.connection.is_idle();
            let is_kept = !is_idle || now.since(shared.last_used) < KEEP_IDLE;
            is_kept && !shared.connection.is_gone()
        });
    }

    /// Closes the idle connections to all other addresses, and sends no more requests on those in
    /// use.
    pub(super) fn keep_only(&self, addresses: &[SocketAddr]) {
        lock(&self.http1).retain(|idle| addresses.contains(&idle.address));
        lock(&self.http2).retain(|shared| addresses.contains(&shared.address));
    }

    /// Returns whether there is no usable connection.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.http1).is_empty() && lock(&self.http2).is_empty()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // a panic elsewhere leaves nothing inconsistent here
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
