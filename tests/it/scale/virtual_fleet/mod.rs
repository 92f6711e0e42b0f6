//! A fleet of proxies in virtual time, in one thread: the program's own engine (`token::service`,
//! with schedule, budget and cache), any number of times, with a simulated token endpoint and
//! store.
//!
//! Only the engine's two ports and the clock are simulated. The decisions, the lease and the stored
//! record are handled by the code that runs in `serve`. Every proxy gets one request a minute,
//! which is served if there is a token; the endpoint checks that it is valid.
//!
//! Checked in each run: no expired token is ever used, and no proxy returns to an older token. The
//! report says whether the pool ever refused a request.

mod clock;
mod cost;
mod issuer;
mod proxy;
mod server;
mod store;
mod weather;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use clock::{Numbers, VirtualClock};
pub(crate) use cost::Load;
use issuer::Issuer;
use proxy::{Proxy, World};
use server::Server;
pub(crate) use weather::{Blow, Event, HOURS, a_bad_day};

/// The seconds between two requests to a proxy.
const EVERY: usize = 60;

/// The time within which all proxies start.
const START: Duration = Duration::from_secs(10);

/// The simulation's parameters.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) proxies: usize,
    /// Whether all share a store; otherwise each has its own token.
    pub(crate) sharing: bool,
    pub(crate) hours: usize,
    /// The events, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) seed: u64,
}

/// The results of an hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hour {
    pub(crate) asked: issuer::Asked,
    /// Requests to the proxies.
    pub(crate) requests: u64,
    /// Requests without a token.
    pub(crate) without_token: u64,
    /// The store's total load.
    pub(crate) store: Load,
    /// The load of the second with the most operations.
    pub(crate) worst: Load,
}

/// Runs the plan; returns the results of each hour.
pub(crate) fn run(plan: &Plan) -> Vec<Hour> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { Fleet::start(plan).live(plan).await })
}

struct Fleet {
    world: Arc<World>,
    proxies: Vec<Proxy>,
    numbers: Numbers,
    /// The blows for the next lease holders, one after the other.
    traps: VecDeque<Blow>,
}

impl Fleet {
    fn start(plan: &Plan) -> Fleet {
        let clock = VirtualClock::start();
        let numbers = Numbers::of(plan.seed);
        let world = Arc::new(World {
            clock,
            issuer: Arc::new(Issuer::new(clock, numbers.seed())),
            server: plan.sharing.then(|| Server::new(clock, numbers.seed())),
            processes: AtomicUsize::new(0),
        });
        let proxies: Vec<Proxy> = (0..plan.proxies)
            .map(|_| Proxy::new(&world, numbers.seed()))
            .collect();
        for proxy in &proxies {
            proxy.start_after(numbers.between(Duration::ZERO, START));
        }
        Fleet {
            world,
            proxies,
            numbers,
            traps: VecDeque::new(),
        }
    }

    async fn live(mut self, plan: &Plan) -> Vec<Hour> {
        let mut hours = Vec::new();
        let mut events = plan.events.iter().peekable();
        let mut hour = Hour::default();
        for second in 1..=plan.hours * 3600 {
            self.until(Duration::from_secs(second as u64)).await;
            while let Some((_, blow)) = events.next_if(|(at, _)| at.as_secs() <= second as u64) {
                self.befalls(*blow);
            }
            for proxy in self.proxies.iter().skip(second % EVERY).step_by(EVERY) {
                if let Some(served) = proxy.request() {
                    hour.requests += 1;
                    hour.without_token += u64::from(!served);
                }
            }
            if second % 3600 == 0 {
                hour.asked = self.world.issuer.take();
                if let Some(server) = &self.world.server {
                    let ledger = server.ledger();
                    (hour.store, hour.worst) = ledger.between(second - 3600, second, plan.proxies);
                }
                hours.push(std::mem::take(&mut hour));
            }
        }
        hours
    }

    /// Runs the simulation until `end`, and applies traps to lease holders.
    async fn until(&mut self, end: Duration) {
        loop {
            let left = end.saturating_sub(self.world.clock.passed());
            let (Some(trap), Some(server)) = (self.traps.front().copied(), &self.world.server)
            else {
                return tokio::time::sleep(left).await;
            };
            let Ok(asker) = tokio::time::timeout(left, server.asker()).await else {
                return;
            };
            // its request is in flight by then
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.traps.pop_front();
            let Some(proxy) = self.proxies.iter().find(|proxy| proxy.is(asker)) else {
                continue;
            };
            if trap == Blow::KillAsker {
                proxy.kill();
                proxy.start_after(Duration::from_secs(10));
            } else {
                proxy.stop_for(Duration::from_secs(90));
            }
        }
    }

    fn befalls(&mut self, blow: Blow) {
        let world = Arc::clone(&self.world);
        match (blow, &world.server) {
            (Blow::Endpoint(weather), _) => world.issuer.becomes(weather),
            (Blow::Store(weather), Some(server)) => server.becomes(weather),
            (Blow::StoreForgets, Some(server)) => server.forgets(),
            (Blow::StoreGoesBack, Some(server)) => server.goes_back(),
            (Blow::KillAsker | Blow::StopAsker, Some(_)) => self.traps.push_back(blow),
            (Blow::Roll(within), _) => {
                let all = self.proxies.len();
                for (nth, proxy) in self.proxies.iter().enumerate() {
                    let at = within.mul_f64(nth as f64 / all as f64);
                    proxy.restart_after(at, Duration::from_secs(2));
                }
            }
            (Blow::PowerCut, _) => {
                for proxy in &self.proxies {
                    proxy.kill();
                    let ten = Duration::from_secs(10);
                    proxy.start_after(self.numbers.between(Duration::ZERO, ten));
                }
            }
            (Blow::TokenRefused, _) => self.proxies.iter().for_each(Proxy::is_refused),
            // events of the store do not affect a fleet without one
            (_, None) => {}
        }
    }
}
