//! All of the simulator's state and settings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalogue::Catalogue;
use super::clock::{self, Reading};
use super::faults::{Endpoint, Fault, Faults};
use super::issuer::{Issuer, Rules};
use super::state::State;

/// The settings, in real time.
pub(super) struct Settings {
    /// Simulated seconds per second.
    pub(super) speed: f64,
    /// Pool and lifetime, already divided by the speed.
    pub(super) rules: Rules,
    /// The value of `expires_in`: the lifetime in whole seconds, rounded down.
    pub(super) expires_in: u64,
    /// Whether a 429 has a `Retry-After`.
    pub(super) retry_after: bool,
    /// The default number of rows of an export.
    pub(super) rows: u64,
    /// Whether the server uses TLS.
    pub(super) tls: bool,
    /// Whether a `PUT` on a client changes its secret.
    pub(super) update_rotates_secret: bool,
}

/// The state that connections share. No lock is held while waiting.
pub(super) struct World {
    /// The settings.
    pub(super) settings: Settings,
    issuer: Mutex<Issuer>,
    faults: Mutex<Faults>,
    catalogue: Mutex<Catalogue>,
    requests: AtomicU64,
    unauthorized: AtomicU64,
    token_requests: AtomicU64,
    faulted: AtomicU64,
}

impl World {
    /// Returns a world without history.
    pub(super) fn new(settings: Settings) -> Self {
        let catalogue = Catalogue::seeded(settings.rows, clock::read());
        Self {
            issuer: Mutex::new(Issuer::new(settings.rules)),
            faults: Mutex::default(),
            catalogue: Mutex::new(catalogue),
            requests: AtomicU64::new(0),
            unauthorized: AtomicU64::new(0),
            token_requests: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            settings,
        }
    }

    /// The current time.
    pub(super) fn now(&self) -> Reading {
        clock::read()
    }

    /// Clients and tokens.
    pub(super) fn issuer(&self) -> MutexGuard<'_, Issuer> {
        lock(&self.issuer)
    }

    /// The active faults.
    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Assets, files and jobs.
    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        lock(&self.catalogue)
    }

    /// Counts a request.
    pub(super) fn count_request(&self, endpoint: Endpoint) {
        let counter = match endpoint {
            Endpoint::Token => &self.token_requests,
            Endpoint::Api => &self.requests,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an API request without a valid token.
    pub(super) fn count_unauthorized(&self) {
        self.unauthorized.fetch_add(1, Ordering::Relaxed);
    }

    /// The fault that hits this request, if any; it is counted.
    pub(super) fn strike(&self, endpoint: Endpoint) -> Option<Fault> {
        let fault = self.faults().strike(endpoint, self.now().steady)?;
        self.faulted.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// Removes faults, resets counters and fills pools. Tokens stay valid.
    pub(super) fn reset(&self) {
        self.faults().clear();
        self.issuer().reset(self.now().steady);
        for counter in [
            &self.requests,
            &self.unauthorized,
            &self.token_requests,
            &self.faulted,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// All counters.
    pub(super) fn state(&self) -> State {
        let clients = self.issuer().state(self.now().steady);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        State {
            clients,
            requests: read(&self.requests),
            unauthorized: read(&self.unauthorized),
            token_requests: read(&self.token_requests),
            faulted: read(&self.faulted),
            speed: self.settings.speed,
        }
    }
}

/// Locks a mutex even if it is poisoned: a panic leaves nothing inconsistent here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
