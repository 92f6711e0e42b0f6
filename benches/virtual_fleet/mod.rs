//! A fleet of proxies in virtual time, in one thread: the program's own engine
//! (`token::service`, with schedule, budget and cache), as many of them as one likes, against a
//! simulated token endpoint and a simulated store.
//!
//! Only the two ports of the engine are simulated, and the clock: what decides, what holds the lease
//! and what is kept is the code that runs in `serve`. Every proxy has a request each minute; it
//! is served if there is a token in hand, and the endpoint is asked whether that lives.
//!
//! Promises, of each run: no dead token is ever used, and what is in hand never goes back to an older
//! one. Whether a request is ever refused for the pool's sake is told.

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

/// A proxy has one request in so many seconds.
const EVERY: usize = 60;

/// All proxies are started within so long.
const START: Duration = Duration::from_secs(10);

/// What is simulated.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) proxies: usize,
    /// By a store that all share; otherwise each keeps its own token.
    pub(crate) sharing: bool,
    pub(crate) hours: usize,
    /// What happens, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) seed: u64,
}

/// What an hour showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hour {
    pub(crate) asked: issuer::Asked,
    /// Requests to the proxies.
    pub(crate) requests: u64,
    /// Those of them for which there was no token.
    pub(crate) without_token: u64,
    /// What the store had to do, in all.
    pub(crate) store: Load,
    /// The same, in the second with the most operations.
    pub(crate) worst: Load,
}

/// Runs what is planned; gives each hour.
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
    /// What befalls the proxies that next have the right to ask, one after the other.
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

    /// Waits until the simulation has run for `end`; who walks into a trap meanwhile is caught.
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
            // its request is under way by then
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
            // what befalls a store befalls nobody where there is none
            (_, None) => {}
        }
    }
}
