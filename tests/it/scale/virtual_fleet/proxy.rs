//! One proxy of a simulated fleet: its processes, one after the other, each with the program's own
//! engine.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::clock::Clock;
use collibra_auth_proxy::store::memory::MemoryStore;
use collibra_auth_proxy::telemetry::Metrics;
use collibra_auth_proxy::token::budget;
use collibra_auth_proxy::token::cache::TokenSlot;
use collibra_auth_proxy::token::ports::TokenStore;
use collibra_auth_proxy::token::schedule;
use collibra_auth_proxy::token::service::{Control, Parts, Settings, TokenService};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::clock::{Numbers, Seeded, VirtualClock, locked};
use super::issuer::Issuer;
use super::server::Server;
use super::store::Member;

/// The program's defaults.
const CONFIG: schedule::Config = schedule::Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    },
};

/// The context of all proxies.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: VirtualClock,
    pub(super) issuer: Arc<Issuer>,
    /// The server of the shared store, if there is one.
    pub(super) server: Option<Arc<Server>>,
    /// How many processes were started.
    pub(super) processes: AtomicUsize,
}

/// A proxy's place in the fleet.
#[derive(Clone)]
pub(super) struct Proxy {
    world: Arc<World>,
    numbers: Arc<Numbers>,
    process: Arc<Mutex<Option<Process>>>,
}

struct Process {
    who: usize,
    slot: Arc<TokenSlot>,
    running: AbortHandle,
    dead: Arc<AtomicBool>,
    gate: Arc<Gate>,
    /// The newest token that a request was given.
    youngest: u64,
    /// Dropping it would end the engine.
    _control: Control,
}

impl Proxy {
    pub(super) fn new(world: &Arc<World>, seed: u64) -> Proxy {
        Proxy {
            world: Arc::clone(world),
            numbers: Arc::new(Numbers::of(seed)),
            process: Arc::default(),
        }
    }

    /// Returns whether its process has this name in the store.
    pub(super) fn is(&self, who: usize) -> bool {
        locked(&self.process)
            .as_ref()
            .is_some_and(|process| process.who == who)
    }

    pub(super) fn start_after(&self, pause: Duration) {
        let proxy = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            proxy.start();
        });
    }

    /// Shuts the process down after `wait`, and starts another `pause` later.
    pub(super) fn restart_after(&self, wait: Duration, pause: Duration) {
        let proxy = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(process) = locked(&proxy.process).take() {
                process.running.abort();
            }
            tokio::time::sleep(pause).await;
            proxy.start();
        });
    }

    /// `kill -9`: the process releases nothing.
    pub(super) fn kill(&self) {
        if let Some(process) = locked(&self.process).take() {
            process.dead.store(true, Ordering::Relaxed);
            process.running.abort();
        }
    }

    /// Stops for `span`: neither its engine nor its requests continue.
    pub(super) fn stop_for(&self, span: Duration) {
        let Some(gate) = locked(&self.process).as_ref().map(|p| Arc::clone(&p.gate)) else {
            return;
        };
        gate.closed.store(true, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            gate.closed.store(false, Ordering::Relaxed);
            if let Some(waker) = locked(&gate.waker).take() {
                waker.wake();
            }
        });
    }

    /// The API rejects the current token at its next use, within a second.
    pub(super) fn is_refused(&self) {
        let held = locked(&self.process).as_ref().map(|process| {
            let token = process.slot.usable(self.world.clock.now());
            let generation = token.and_then(|held| held.as_ref().map(|token| token.generation()));
            (Arc::clone(&process.slot), generation)
        });
        let Some((slot, Some(generation))) = held else {
            return;
        };
        let after = self.numbers.between(Duration::ZERO, Duration::from_secs(1));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            slot.reject(generation);
        });
    }

    /// Sends a request; returns whether there was a token for it, or `None` if no process is
    /// running.
    pub(super) fn request(&self) -> Option<bool> {
        let mut process = locked(&self.process);
        let process = process.as_mut()?;
        if process.gate.closed.load(Ordering::Relaxed) {
            return None;
        }
        let held = process.slot.usable(self.world.clock.now());
        let Some(token) = held.as_ref().and_then(|held| held.as_ref()) else {
            return Some(false);
        };
        let generation = token.generation();
        assert!(
            self.world.issuer.accepts(token.access_token()),
            "token {generation} is dead"
        );
        assert!(
            generation >= process.youngest,
            "from token {} back to {generation}",
            process.youngest
        );
        process.youngest = generation;
        Some(true)
    }

    fn start(&self) {
        let who = self.world.processes.fetch_add(1, Ordering::Relaxed);
        let dead = Arc::default();
        let store: Arc<dyn TokenStore> = match &self.world.server {
            Some(server) => Arc::new(Member::new(server, who, &dead)),
            None => Arc::new(MemoryStore),
        };
        let (control, orders) = mpsc::unbounded_channel();
        let (service, slot) = TokenService::new(Parts {
            client: "catalog".into(),
            settings: Settings {
                schedule: CONFIG,
                client_id: ClientId::parse("simulated").unwrap(),
                endpoint: self.world.issuer.clone(),
                store,
                store_metrics: Metrics::new("0.0.0").store("simulated"),
            },
            initial: None,
            clock: Arc::new(self.world.clock),
            jitter: Seeded(fastrand::Rng::with_seed(self.numbers.seed())),
            // the endpoint counts
            observer: |_, _| {},
        });
        let gate = Arc::new(Gate::default());
        let engine = Stoppable {
            engine: Box::pin(service.run(orders)),
            gate: Arc::clone(&gate),
        };
        *locked(&self.process) = Some(Process {
            who,
            slot,
            running: tokio::spawn(engine).abort_handle(),
            dead,
            gate,
            youngest: 0,
            _control: control,
        });
    }
}

/// Whether a process is stopped.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// An engine that is suspended while its gate is closed.
struct Stoppable<F> {
    engine: Pin<Box<F>>,
    gate: Arc<Gate>,
}

impl<F: Future> Future for Stoppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.closed.load(Ordering::Relaxed) {
            *locked(&self.gate.waker) = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.engine.as_mut().poll(context)
    }
}
