//! A fleet whose store becomes unavailable and recovers, in virtual time: who makes requests, and
//! who recovers when.

use super::*;
use crate::token::ports::Membership;

/// A store shared by a fleet, each of whose members has its own position.
#[derive(Clone, Debug)]
struct Ranked(SharedStore, Arc<Mutex<Membership>>);

#[async_trait]
impl TokenStore for Ranked {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        self.0.read().await
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        self.0.lease(length).await
    }

    async fn changed(&self) {
        self.0.changed().await;
    }

    fn membership(&self) -> Membership {
        *self.1.lock().unwrap()
    }
}

/// Returns `store` as seen by the first of a fleet of four.
pub(super) fn first_of_four(store: SharedStore) -> Arc<dyn TokenStore> {
    let membership = Membership::Member { before: 0, all: 4 };
    Arc::new(Ranked(store, Arc::new(Mutex::new(membership))))
}

/// An issuer with a pool, shared by all members of a fleet.
#[derive(Debug)]
struct Issuer {
    clock: TokioClock,
    level: Mutex<(f64, Instant)>,
    issued: AtomicU32,
    refused: AtomicU32,
}

#[async_trait]
impl TokenEndpoint for Issuer {
    async fn request_token(&self) -> Result<Grant, RequestError> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = self.clock.now();
        let granted = {
            let mut pool = self.level.lock().unwrap();
            let (level, at) = *pool;
            let level = (level + now.since(at).as_secs_f64() / 60.0).min(5.0);
            let granted = level >= 1.0 - 1e-6;
            *pool = (level - if granted { 1.0 } else { 0.0 }, now);
            granted
        };
        if granted {
            let nth = self.issued.fetch_add(1, Ordering::SeqCst);
            return Ok(Grant {
                access_token: Secret::from(format!("token-{nth}")),
                expires_in: LIFETIME,
            });
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Err(RequestError {
            outcome: Outcome::RateLimited,
            retry_after: None,
            message: "the pool is empty".to_owned(),
        })
    }
}

pub(super) struct Fleet {
    issuer: Arc<Issuer>,
    pub(super) store: SharedStore,
    pub(super) clock: TokioClock,
    pub(super) cells: Vec<Arc<TokenSlot>>,
}

impl Fleet {
    /// Starts members at these positions, a little apart.
    pub(super) async fn start(ranks: impl IntoIterator<Item = Membership>, away: bool) -> Fleet {
        let store = SharedStore::default();
        store.0.away.store(away, Ordering::SeqCst);
        let fleet = Fleet::at(store, ranks).await;
        fleet.pass(5).await;
        fleet
    }

    /// The same with this store; all have just started.
    pub(super) async fn at(
        store: SharedStore,
        ranks: impl IntoIterator<Item = Membership>,
    ) -> Fleet {
        let ranks = ranks
            .into_iter()
            .map(|membership| Arc::new(Mutex::new(membership)));
        Fleet::learning(store, &ranks.collect::<Vec<_>>()).await
    }

    /// The same with positions that may change.
    pub(super) async fn learning(store: SharedStore, ranks: &[Arc<Mutex<Membership>>]) -> Fleet {
        let clock = TokioClock::start();
        let issuer = Arc::new(Issuer {
            clock,
            level: Mutex::new((5.0, clock.now())),
            issued: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        });
        let mut cells = Vec::new();
        for membership in ranks {
            let ranked = Arc::new(Ranked(store.clone(), Arc::clone(membership)));
            let (_, slot) = engine(issuer.clone(), ranked, clock);
            cells.push(slot);
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        Fleet {
            issuer,
            store,
            clock,
            cells,
        }
    }

    pub(super) async fn of(size: u32) -> Fleet {
        let ranks = (0..size).map(|before| Membership::Member { before, all: size });
        Fleet::start(ranks, false).await
    }

    /// The store becomes unavailable or recovers, and all are notified.
    pub(super) fn away(&self, away: bool) {
        self.store.0.away.store(away, Ordering::SeqCst);
        self.store.0.changed.notify_waiters();
    }

    /// Lets seconds pass; returns the smallest number of members that served.
    pub(super) async fn pass(&self, seconds: u32) -> usize {
        let mut least = self.cells.len();
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            least = least.min(self.serving());
        }
        least
    }

    pub(super) fn serving(&self) -> usize {
        let now = self.clock.now();
        let serving = self.cells.iter().filter(|slot| slot.usable(now).is_some());
        serving.count()
    }

    pub(super) fn issued(&self) -> u32 {
        self.issuer.issued.load(Ordering::SeqCst)
    }

    pub(super) fn refused(&self) -> u32 {
        self.issuer.refused.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn two_minutes_without_the_store_are_not_noticed_whenever_they_begin() {
    for begin in (0..300).step_by(37) {
        let fleet = Fleet::of(30).await;
        fleet.pass(begin).await;
        fleet.away(true);
        assert_eq!(fleet.pass(120).await, 30, "from {begin} s on");
        fleet.away(false);
        assert_eq!(fleet.pass(600).await, 30, "from {begin} s on");
        assert_eq!(fleet.refused(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_it_leaves_as_many_as_the_pool_bears() {
    for begin in [0, 100, 149, 200] {
        let fleet = Fleet::of(30).await;
        fleet.pass(begin).await;
        fleet.away(true);
        fleet.pass(300).await;
        assert_eq!(fleet.serving(), 4);
        assert_eq!(fleet.pass(3_300).await, 4, "without a gap");
        assert_eq!(fleet.refused(), 0);
        let outranked = fleet.cells[29].wait(&fleet.clock, Duration::from_secs(10));
        let told = outranked.await.unwrap_err();
        let seconds = told.retry_after.as_secs();
        assert!((13..=15).contains(&seconds), "{seconds}");
        assert!(told.store_problem.is_some());
        let issued = fleet.issued();
        fleet.away(false);
        fleet.pass(5).await;
        assert_eq!(fleet.serving(), 30, "all are back");
        // the token may be that of one of the four, and due for renewal
        let more = fleet.issued() - issued;
        assert!(more <= 1, "{more} tokens to recover");
        assert_eq!(fleet.pass(3_600).await, 30);
        assert_eq!(fleet.refused(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_fleet_serves_without_it() {
    for size in 1..=4 {
        let fleet = Fleet::of(size).await;
        fleet.away(true);
        assert_eq!(fleet.pass(7_200).await, size as usize);
        assert_eq!(fleet.refused(), 0, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_never_found_the_store_stand_back_once_there_are_too_many() {
    let few = Fleet::start([Membership::Unknown; 3], true).await;
    few.pass(1).await;
    assert_eq!(few.pass(3_600).await, 3);
    assert_eq!(few.refused(), 0);

    let many = Fleet::start([Membership::Unknown; 30], true).await;
    many.pass(3_600).await;
    assert!(many.refused() <= 30, "once each: {}", many.refused());
    assert!(many.serving() >= 4, "{}", many.serving());
    many.away(false);
    many.pass(5).await;
    assert_eq!(many.serving(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_has_lost_is_put_back_and_costs_nothing() {
    let fleet = Fleet::of(30).await;
    fleet.pass(20).await;
    *fleet.store.0.record.lock().unwrap() = None;
    fleet.store.0.changed.notify_waiters();
    fleet.pass(2).await;
    let record = fleet.store.0.record.lock().unwrap().clone().unwrap();
    assert_eq!(record.generation, 1);
    assert!(record.token.is_some());
    assert_eq!(fleet.issued(), 1);
}

/// Each has requested its own token, and all tokens have the same number.
#[tokio::test(start_paused = true)]
async fn replicas_that_were_cut_off_share_one_token_again() {
    let fleet = Fleet::of(4).await;
    fleet.away(true);
    fleet.pass(300).await;
    let tokens = || {
        let held = fleet.cells.iter().map(|slot| slot.status().token.unwrap());
        let mut texts: Vec<_> = held.map(|token| token.access_token().to_owned()).collect();
        texts.sort();
        texts.dedup();
        texts.len()
    };
    assert_eq!(tokens(), 4);
    fleet.away(false);
    fleet.pass(15).await;
    assert_eq!(tokens(), 1);
    assert_eq!(fleet.pass(600).await, 4);
    assert_eq!(fleet.refused(), 0);
}

/// Whoever can write to the store has only old tokens to write.
#[tokio::test(start_paused = true)]
async fn an_old_token_below_a_higher_generation_replaces_none() {
    let fleet = Fleet::of(3).await;
    let old = fleet.store.0.record.lock().unwrap().clone().unwrap();
    fleet.pass(200).await;
    assert_eq!(fleet.issued(), 2);
    *fleet.store.0.record.lock().unwrap() = Some(Record {
        generation: 9,
        ..old
    });
    fleet.store.0.changed.notify_waiters();
    fleet.pass(5).await;
    for slot in &fleet.cells {
        assert_eq!(slot.status().token.unwrap().generation(), 2);
    }
    assert_eq!(fleet.pass(600).await, 3);
    let generation = fleet.cells[0].status().token.unwrap().generation();
    assert!(generation > 9, "{generation}");
    assert_eq!(fleet.refused(), 0);
}

/// A process was stopped between acquiring the lease and requesting a token.
#[tokio::test(start_paused = true)]
async fn who_has_lost_the_right_to_ask_does_not() {
    #[derive(Debug)]
    struct Overtaking(AtomicBool);

    #[derive(Debug)]
    struct Lost;

    #[async_trait]
    impl TokenStore for Overtaking {
        async fn read(&self) -> Result<Option<Record>, StoreError> {
            Ok(None)
        }

        async fn lease(&self, _length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
            let lost = self.0.swap(false, Ordering::SeqCst);
            let lease: Box<dyn Lease> = if lost {
                Box::new(Lost)
            } else {
                Box::new(SharedLease(Arc::default()))
            };
            Ok(Some(lease))
        }

        async fn changed(&self) {
            std::future::pending().await
        }
    }

    #[async_trait]
    impl Lease for Lost {
        async fn publish(&mut self, _record: &Record) -> Result<(), StoreError> {
            Err(StoreError::Conflict("scripted".to_owned()))
        }
    }

    let clock = TokioClock::start();
    let endpoint = Scripted::new(|_| Ok(()));
    let store = Arc::new(Overtaking(AtomicBool::new(true)));
    let (_, slot) = engine(endpoint.clone(), store, clock);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 0);
    let pool = slot.status().pool;
    assert!(
        pool.available(clock.now()) > 4.9,
        "nothing is booked for it"
    );
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1, "it tries again");
}
