//! The engine in virtual time, from outside: what its slot holds and how often its endpoint is
//! asked.

mod counted;
mod orders;
mod partly;
mod renew_now;
mod without_store;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::*;
use crate::clock::{SLICE, TokioClock};
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::token::budget;
use crate::token::cache::NextAttempt;
use crate::token::ports::{Cost, StoredPool, StoredToken};

const CONFIG: schedule::Config = schedule::Config {
    refresh_at: 0.5,
    refresh_jitter: 0.05,
    pool: budget::Config {
        capacity: 5,
        refill: Duration::from_secs(60),
    },
};
/// The client that every engine starts with.
const OLD: &str = "urn:old";
const LIFETIME: Duration = Duration::from_secs(299);

struct HalfJitter;

impl Jitter for HalfJitter {
    fn next(&mut self) -> f64 {
        0.5
    }
}

/// Counts no token request.
type Nobody = fn(Duration, Result<(), Outcome>);

/// An endpoint that answers by its request count, after `delay`.
struct Scripted<F> {
    script: F,
    delay: Duration,
    asked: AtomicU32,
    under_way: AtomicU32,
}

impl<F> fmt::Debug for Scripted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl<F> TokenEndpoint for Scripted<F>
where
    F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
{
    async fn request_token(&self) -> Result<Grant, RequestError> {
        let nth = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(self.under_way.fetch_add(1, Ordering::SeqCst), 0);
        tokio::time::sleep(self.delay).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        match (self.script)(nth) {
            Ok(()) => Ok(Grant {
                access_token: Secret::from(format!("token-{nth}")),
                expires_in: LIFETIME,
            }),
            Err(outcome) => Err(RequestError {
                outcome,
                retry_after: None,
                message: format!("scripted {outcome:?}"),
            }),
        }
    }
}

impl<F> Scripted<F>
where
    F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
{
    fn new(script: F) -> Arc<Scripted<F>> {
        Arc::new(Scripted {
            script,
            delay: Duration::from_millis(300),
            asked: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
        })
    }
}

/// Starts an engine that runs until the handle is aborted.
fn engine(
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn TokenStore>,
    clock: impl Clock,
) -> (AbortHandle, Arc<TokenSlot>) {
    let (running, slot, control) = controlled(endpoint, store, clock);
    // only the handle ends the engine here
    std::mem::forget(control);
    (running, slot)
}

/// Starts an engine that accepts orders until the sender is dropped.
fn controlled(
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn TokenStore>,
    clock: impl Clock,
) -> (AbortHandle, Arc<TokenSlot>, Control) {
    let (control, orders) = mpsc::unbounded_channel();
    let (service, slot) = TokenService::new(parts(endpoint, store, clock));
    let running = tokio::spawn(service.run(orders)).abort_handle();
    (running, slot, control)
}

fn parts(
    endpoint: Arc<dyn TokenEndpoint>,
    store: Arc<dyn TokenStore>,
    clock: impl Clock,
) -> Parts<HalfJitter, Nobody> {
    Parts {
        client: "catalog".into(),
        settings: Settings {
            schedule: CONFIG,
            client_id: ClientId::parse(OLD).unwrap(),
            endpoint,
            store,
            store_metrics: Metrics::new("0.0.0").store("kind"),
        },
        initial: None,
        clock: Arc::new(clock),
        jitter: HalfJitter,
        observer: |_, _| {},
    }
}

fn started<F>(script: F) -> (Arc<Scripted<F>>, Arc<TokenSlot>, TokioClock)
where
    F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
{
    let clock = TokioClock::start();
    let endpoint = Scripted::new(script);
    let (_, slot) = engine(endpoint.clone(), Arc::new(SharedStore::default()), clock);
    (endpoint, slot, clock)
}

/// A store in memory, shared by all engines of a test.
#[derive(Clone, Debug, Default)]
struct SharedStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    record: Mutex<Option<Record>>,
    leased: AtomicBool,
    changed: Notify,
    away: AtomicBool,
    /// Leases fail, whatever else works.
    no_lease: AtomicBool,
    /// Publications fail.
    no_publish: AtomicBool,
}

#[derive(Debug)]
struct SharedLease(Arc<Shared>);

/// Returns an error if the operation is set to fail.
fn works(fails: &AtomicBool) -> Result<(), StoreError> {
    if fails.load(Ordering::SeqCst) {
        Err(StoreError::Unavailable("scripted to fail".to_owned()))
    } else {
        Ok(())
    }
}

#[async_trait]
impl TokenStore for SharedStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        works(&self.0.away)?;
        Ok(self.0.record.lock().unwrap().clone())
    }

    async fn lease(&self, _length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        works(&self.0.away)?;
        works(&self.0.no_lease)?;
        if self.0.leased.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(SharedLease(Arc::clone(&self.0)))))
    }

    async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

#[async_trait]
impl Lease for SharedLease {
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError> {
        works(&self.0.no_publish)?;
        *self.0.record.lock().unwrap() = Some(record.clone());
        self.0.changed.notify_waiters();
        Ok(())
    }
}

impl Drop for SharedLease {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::SeqCst);
    }
}

/// A clock that continues during suspend, while timers do not.
#[derive(Clone, Debug)]
struct Suspendable(TokioClock, Arc<Mutex<Duration>>);

impl Clock for Suspendable {
    fn now(&self) -> Instant {
        self.0.now() + *self.1.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall() + *self.1.lock().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_of_ten_minutes_a_new_token_is_there_within_a_second_or_so() {
    let clock = Suspendable(TokioClock::start(), Arc::default());
    let endpoint = Scripted::new(|_| Ok(()));
    let store = Arc::new(SharedStore::default());
    let (_, slot) = engine(endpoint.clone(), store, clock.clone());
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10_300)).await;

    *clock.1.lock().unwrap() = Duration::from_secs(600);
    assert!(slot.usable(clock.now()).is_none(), "no expired token");
    let woken = clock.now();
    assert_eq!(slot.wait(&clock, patience).await.unwrap().generation(), 2);
    let took = clock.now().since(woken);
    assert!(took <= SLICE + endpoint.delay, "{took:?}");
}

/// With a store that is unavailable, and one that has an older token.
#[tokio::test(start_paused = true)]
async fn what_the_process_before_has_left_is_taken_over_and_brought_to_the_store() {
    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = SharedStore::default();
    store.0.away.store(true, Ordering::SeqCst);
    let left = Record {
        generation: 7,
        token: Some(StoredToken {
            generation: 7,
            access_token: Secret::from("left".to_owned()),
            asked: clock.wall(),
            lifetime: LIFETIME,
        }),
        pool: StoredPool {
            full_at: clock.wall() + Duration::from_secs(60),
            not_before: clock.wall(),
        },
    };
    let (_control, orders) = mpsc::unbounded_channel();
    let (service, slot) = TokenService::new(Parts {
        initial: Some(left),
        ..parts(endpoint.clone(), Arc::new(store.clone()), clock)
    });
    tokio::spawn(service.run(orders));
    // not only when its timer ends
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(slot.status().token.unwrap().generation(), 7);
    store.0.away.store(false, Ordering::SeqCst);
    store.0.changed.notify_waiters();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        store.0.record.lock().unwrap().as_ref().unwrap().generation,
        7
    );
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn twenty_restarts_cost_one_token() {
    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = SharedStore::default();
    for _ in 0..20 {
        let (running, slot) = engine(endpoint.clone(), Arc::new(store.clone()), clock);
        let token = slot.wait(&clock, Duration::from_secs(10)).await.unwrap();
        assert_eq!(token.generation(), 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.abort();
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_over_a_request_has_booked_it() {
    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = SharedStore::default();
    for _ in 0..20 {
        let (running, _) = engine(endpoint.clone(), Arc::new(store.clone()), clock);
        tokio::time::sleep(Duration::from_millis(100)).await;
        running.abort();
        tokio::task::yield_now().await;
    }
    let asked = endpoint.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 5, "the pool's capacity");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_that_share_a_store_ask_as_one() {
    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = SharedStore::default();
    let cells: Vec<_> = (0..100)
        .map(|_| engine(endpoint.clone(), Arc::new(store.clone()), clock).1)
        .collect();
    for slot in &cells {
        slot.wait(&clock, Duration::from_secs(10)).await.unwrap();
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    for _ in 0..3600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(cells.iter().all(|c| c.usable(clock.now()).is_some()));
    }
    let asked = endpoint.asked.load(Ordering::SeqCst);
    assert!((24..=27).contains(&asked), "{asked} tokens in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_no_reason_to_have_no_token() {
    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = SharedStore::default();
    store.0.away.store(true, Ordering::SeqCst);
    let (_, slot) = engine(endpoint.clone(), Arc::new(store.clone()), clock);
    assert!(slot.wait(&clock, Duration::from_secs(10)).await.is_ok());
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(slot.usable(clock.now()).is_some());
    store.0.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(160)).await;
    let kept = store.0.record.lock().unwrap().clone().unwrap();
    assert_eq!(
        kept.generation,
        u64::from(endpoint.asked.load(Ordering::SeqCst))
    );
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_does_not_lengthen_a_stored_life() {
    let clock = TokioClock::start();
    let store = SharedStore::default();
    *store.0.record.lock().unwrap() = Some(Record {
        generation: 7,
        token: Some(StoredToken {
            generation: 7,
            access_token: Secret::from("kept".to_owned()),
            asked: clock.wall() + Duration::from_secs(3_600),
            lifetime: LIFETIME,
        }),
        pool: StoredPool {
            full_at: clock.wall() + Duration::from_secs(9_999),
            not_before: clock.wall(),
        },
    });
    let endpoint = Scripted::new(|_| Err(Outcome::ServerError));
    let (_, slot) = engine(endpoint, Arc::new(store), clock);
    let token = slot.wait(&clock, Duration::from_secs(1)).await.unwrap();
    assert_eq!(token.generation(), 7);
    assert!(token.expires().since(clock.now()) <= LIFETIME);
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_500_requests_asks_once() {
    let (endpoint, slot, clock) = started(|_| Ok(()));
    let waiting: Vec<_> = (0..500)
        .map(|_| {
            let slot = Arc::clone(&slot);
            tokio::spawn(async move { slot.wait(&clock, Duration::from_secs(10)).await })
        })
        .collect();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_good_token() {
    let (_, slot, clock) = started(|nth| {
        if nth == 1 {
            Ok(())
        } else {
            Err(Outcome::ServerError)
        }
    });
    tokio::time::sleep(Duration::from_secs(290)).await;
    let token = slot.usable(clock.now()).unwrap();
    assert_eq!(token.as_ref().unwrap().generation(), 1);
    assert!(slot.status().failure.unwrap().in_a_row > 5);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_all_who_wait() {
    let (_, slot, clock) = started(|_| Err(Outcome::InvalidClient));
    let told = slot
        .wait(&clock, Duration::from_secs(10))
        .await
        .unwrap_err();
    assert_eq!(told.reason.unwrap().0, Outcome::InvalidClient);
    assert_eq!(told.retry_after, Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_refuses_is_replaced_once_for_all() {
    let (endpoint, slot, clock) = started(|_| Ok(()));
    slot.wait(&clock, Duration::from_secs(10)).await.unwrap();
    let refused: Vec<_> = (0..200)
        .map(|_| {
            let slot = Arc::clone(&slot);
            let patience = Duration::from_secs(10);
            tokio::spawn(async move { slot.replace(1, &clock, patience).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        slot.usable(clock.now()).is_none(),
        "it is not sent in the meantime"
    );
    for one in refused {
        assert_eq!(one.await.unwrap().unwrap().generation(), 2);
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_refusal_within_a_refill_interval_is_passed_on() {
    let (endpoint, slot, clock) = started(|_| Ok(()));
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    assert!(slot.replace(1, &clock, patience).await.is_some());
    assert!(slot.replace(2, &clock, patience).await.is_none());
    assert!(slot.usable(clock.now()).is_some(), "it is still sent");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(
        endpoint.asked.load(Ordering::SeqCst),
        3,
        "and is replaced in time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_sent_again_if_no_other_is_to_be_had() {
    let (_, slot, clock) = started(|nth| {
        if nth == 1 {
            Ok(())
        } else {
            Err(Outcome::ServerError)
        }
    });
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    assert!(slot.replace(1, &clock, patience).await.is_none());
    assert!(slot.usable(clock.now()).is_some());
}

/// Revoked, while the token endpoint is unreachable.
#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_refuses_for_everyone_is_not_sent_again() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&is_up);
    let (_, slot, clock) = started(move |_| match up.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(Outcome::ConnectionLost),
    });
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    slot.accept(1);
    is_up.store(false, Ordering::SeqCst);
    for _ in 0..5 {
        assert!(slot.replace(1, &clock, patience).await.is_none());
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..100 {
        assert!(slot.usable(clock.now()).is_none());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told = slot.wait(&clock, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(told.reason.unwrap().0, Outcome::ConnectionLost);

    is_up.store(true, Ordering::SeqCst);
    let patience = Duration::from_secs(60);
    assert_eq!(slot.wait(&clock, patience).await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_among_good_answers_changes_nothing() {
    let (_, slot, clock) = started(|nth| {
        if nth == 1 {
            Ok(())
        } else {
            Err(Outcome::ConnectionLost)
        }
    });
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    for _ in 0..100 {
        slot.accept(1);
        assert!(slot.replace(1, &clock, patience).await.is_none());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(slot.usable(clock.now()).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_api_accepts_again_is_sent_again() {
    let (_, slot, clock) = started(|nth| {
        if nth == 1 {
            Ok(())
        } else {
            Err(Outcome::ConnectionLost)
        }
    });
    let patience = Duration::from_secs(10);
    slot.wait(&clock, patience).await.unwrap();
    slot.accept(1);
    for _ in 0..5 {
        slot.reject(1);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(slot.usable(clock.now()).is_none());
    // a request that was in flight
    slot.accept(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(slot.usable(clock.now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_older_token_costs_nothing() {
    let (endpoint, slot, clock) = started(|_| Ok(()));
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(
        slot.usable(clock.now())
            .unwrap()
            .as_ref()
            .unwrap()
            .generation(),
        2
    );
    let newer = slot
        .replace(1, &clock, Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(newer.generation(), 2);
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_request_is_a_failure_like_any_other() {
    let (_, slot, clock) = started(|nth| if nth == 1 { panic!("scripted") } else { Ok(()) });
    let token = slot.wait(&clock, Duration::from_secs(10)).await.unwrap();
    assert_eq!(token.generation(), 1);
}

/// Four seeds of 24 hours each: the whole engine, checked every second as an app would.
#[tokio::test(start_paused = true)]
async fn a_day_of_random_faults_never_hands_out_a_dead_token() {
    for seed in 0..4 {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let faulty = Mutex::new(false);
        let issued = Arc::new(Mutex::new(Vec::new()));
        let clock = TokioClock::start();
        let record = Arc::clone(&issued);
        let (endpoint, slot, _) = started(move |_| {
            let mut random = random.lock().unwrap();
            let mut faulty = faulty.lock().unwrap();
            if random.u32(..8) == 0 {
                *faulty = !*faulty;
            }
            let outcome = if *faulty {
                Err(*random.choice(Outcome::ALL.iter()).unwrap())
            } else {
                Ok(())
            };
            let booked = outcome.map_or_else(|o| o.cost() == Cost::Possible, |()| true);
            if booked {
                record.lock().unwrap().push(clock.now());
            }
            outcome
        });
        let mut last_generation = 0;
        for _ in 0..24 * 3600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = clock.now();
            if let Some(token) = slot.usable(now) {
                let token = token.as_ref().unwrap();
                assert!(token.expires() > now, "an expired token");
                assert!(token.generation() >= last_generation, "an older token");
                last_generation = token.generation();
            }
            if let NextAttempt::At(at) = slot.status().next {
                assert!(at.since(now) <= Duration::from_secs(3_600), "no next step");
            }
        }
        assert!(last_generation > 100, "it worked most of the day");
        let issued = issued.lock().unwrap();
        for window in issued.windows(7) {
            let span = window[6].since(window[0]);
            assert!(span >= Duration::from_secs(60), "7 within {span:?}");
        }
        drop(endpoint);
    }
}
