//! All of the simulator's state, and its configuration.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalogue::Catalogue;
use super::faults::{Endpoint, Fault, Faults};
use super::issuer::Issuer;
use super::state::State;
use super::{Config, clock};

/// What connections share.
pub(super) struct World {
    /// The configuration, in real time.
    pub(super) config: Config,
    model: Mutex<Model>,
}

/// The state. It is never locked while waiting.
pub(super) struct Model {
    /// Clients and tokens.
    pub(super) issuer: Issuer,
    /// The active faults.
    pub(super) faults: Faults,
    /// The data behind the API.
    pub(super) catalogue: Catalogue,
    /// The counters; without the clients'.
    pub(super) counts: State,
}

impl World {
    /// Returns a world without history; `config` is in real time.
    pub(super) fn new(config: Config) -> Self {
        let now = clock::read();
        let mut issuer = Issuer::new(&config);
        for (id, secret) in &config.clients {
            issuer.add(id.clone(), secret.clone(), id.clone(), now);
        }
        let model = Mutex::new(Model {
            issuer,
            faults: Faults::default(),
            catalogue: Catalogue::seeded(config.rows, now),
            counts: State::default(),
        });
        Self { config, model }
    }

    /// Locks the state, even after a panic, which leaves nothing inconsistent here.
    pub(super) fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All counters.
    pub(super) fn state(&self) -> State {
        let model = self.lock();
        State {
            clients: model.issuer.state(clock::read().steady),
            speed: self.config.speed,
            ..model.counts.clone()
        }
    }
}

impl Model {
    /// The fault that hits a request to `endpoint`, if any; it is counted.
    pub(super) fn strike(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let fault = self.faults.strike(endpoint, clock::read().steady)?;
        self.counts.faulted += 1;
        Some(fault)
    }

    /// Removes faults, resets counters and fills pools. Tokens stay valid.
    pub(super) fn reset(&mut self) {
        self.faults = Faults::default();
        self.issuer.reset(clock::read().steady);
        self.counts = State::default();
    }
}
