//! Everything that the simulator remembers, and what it was told at its start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalogue::Catalogue;
use super::clock::{self, Reading};
use super::faults::{Endpoint, Fault, Faults};
use super::issuer::{Issuer, Rules};
use super::state::State;
use super::unique::Unique;

/// What was decided at the start, in real time.
pub(super) struct Settings {
    /// Simulated seconds a second.
    pub(super) speed: f64,
    /// Pool and lifetime, already divided by the speed.
    pub(super) rules: Rules,
    /// What `expires_in` says: the lifetime in whole seconds, rounded down.
    pub(super) expires_in: u64,
    /// Whether a 429 says when to come back.
    pub(super) retry_after: bool,
    /// How many rows an export has unless it is asked for another number.
    pub(super) rows: u64,
    /// Whether this is served over TLS.
    pub(super) tls: bool,
    /// Whether a `PUT` on a client gives it a new secret.
    pub(super) update_rotates_secret: bool,
}

/// Everything that connections share. No lock is held while waiting.
pub(super) struct World {
    /// What was decided at the start.
    pub(super) settings: Settings,
    /// Where new tokens and identifiers come from.
    pub(super) unique: Unique,
    issuer: Mutex<Issuer>,
    faults: Mutex<Faults>,
    catalogue: Mutex<Catalogue>,
    requests: AtomicU64,
    unauthorized: AtomicU64,
    token_requests: AtomicU64,
    faulted: AtomicU64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub(super) fn new(settings: Settings) -> Self {
        let unique = Unique::default();
        let catalogue = Catalogue::seeded(settings.rows, &unique, clock::read());
        Self {
            issuer: Mutex::new(Issuer::new(settings.rules)),
            faults: Mutex::default(),
            catalogue: Mutex::new(catalogue),
            requests: AtomicU64::new(0),
            unauthorized: AtomicU64::new(0),
            token_requests: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            settings,
            unique,
        }
    }

    /// The time.
    pub(super) fn now(&self) -> Reading {
        clock::read()
    }

    /// Clients and tokens.
    pub(super) fn issuer(&self) -> MutexGuard<'_, Issuer> {
        lock(&self.issuer)
    }

    /// The faults in force.
    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// Assets, files, jobs.
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

    /// Counts a request to the API without a live token.
    pub(super) fn count_unauthorized(&self) {
        self.unauthorized.fetch_add(1, Ordering::Relaxed);
    }

    /// The fault that falls upon this request, counted if one does.
    pub(super) fn strike(&self, endpoint: Endpoint) -> Option<Fault> {
        let fault = self.faults().strike(endpoint, self.now().steady)?;
        self.faulted.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// Lifts faults, zeroes counters and fills pools. Live tokens stay live.
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

/// A panic while a lock was held leaves nothing half done here, so it is passed over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
