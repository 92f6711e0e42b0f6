//! The store's contract with the engine, tested against a server, without processes.

use std::time::{Duration, SystemTime};

use collibra_auth_proxy::clock::{Clock, SystemClock};
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::token::ports::{
    Lease, Membership, Record, StoreError, StoredPool, StoredToken, TokenStore,
};
use tokio::time::timeout;

use super::server::{Kind, Server};
use crate::support::PATIENCE;
use crate::support::relay::Relay;
use crate::support::wait::now;

pub(crate) const LENGTH: Duration = Duration::from_secs(60);

/// Runs a test on its own runtime.
fn kept_by(promise: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(promise);
}

pub(crate) fn record(generation: u64) -> Record {
    let now = SystemClock.wall();
    Record {
        generation,
        token: Some(StoredToken {
            generation,
            access_token: Secret::from(format!("token {generation}")),
            asked: now,
            lifetime: Duration::from_secs(299),
        }),
        pool: StoredPool {
            full_at: now + LENGTH,
            not_before: SystemTime::UNIX_EPOCH,
        },
    }
}

pub(super) async fn kept(store: &dyn TokenStore) -> Option<(u64, String)> {
    let record = store.read().await.unwrap()?;
    let text = record.token.unwrap().access_token.expose().to_owned();
    Some((record.generation, text))
}

pub(super) async fn lease(store: &dyn TokenStore) -> Option<Box<dyn Lease>> {
    store.lease(LENGTH).await.unwrap()
}

/// Waits until the lease is free: a release does not wait for the server.
pub(super) async fn free_lease(store: &dyn TokenStore) -> Box<dyn Lease> {
    let freed = async {
        loop {
            if let Some(lease) = lease(store).await {
                return lease;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap()
}

pub(super) fn what_one_keeps_the_other_reads_and_is_told_of(kind: Kind) {
    let server = Server::start(kind);
    kept_by(async {
        let [one, other, another] = [(); 3].map(|()| server.of_client("id"));
        assert_eq!(kept(&*other).await, None);
        assert_eq!(kept(&*another).await, None);
        // the watch starts after the membership is known
        settles(&*another).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut held = lease(&*one).await.unwrap();
        held.publish(&record(1)).await.unwrap();
        let told = now();
        timeout(PATIENCE, another.changed()).await.unwrap();
        let took = told.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let first = Some((1, "token 1".to_owned()));
        assert_eq!(kept(&*another).await, first);
        assert_eq!(kept(&*other).await, first);

        // a version that was read or written here is no change
        for store in [&one, &other] {
            let again = timeout(Duration::from_millis(1_500), store.changed()).await;
            assert!(again.is_err());
        }
        let stranger = server.of_client("another id");
        assert_eq!(kept(&*stranger).await, None);
        assert!(lease(&*stranger).await.is_some(), "with a lock of its own");
    });
}

pub(super) fn one_at_a_time_has_the_right_to_ask_and_gives_up_no_other_than_its_own(kind: Kind) {
    let server = Server::start(kind);
    kept_by(async {
        let [one, other] = [(); 2].map(|()| server.of_client("id"));
        let held = lease(&*one).await.unwrap();
        assert!(lease(&*other).await.is_none());
        assert!(lease(&*one).await.is_none());
        drop(held);
        let short = Duration::from_millis(50);
        drop(free_lease(&*other).await);
        let late = timeout(PATIENCE, async {
            loop {
                if let Some(lease) = other.lease(short).await.unwrap() {
                    return lease;
                }
            }
        });
        let late = late.await.unwrap();
        // its lock expired, and another process holds it
        let second = free_lease(&*one).await;
        drop(late);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(lease(&*other).await.is_none(), "{second:?} is still held");
    });
}

pub(super) fn who_has_lost_the_right_changes_nothing(kind: Kind) {
    let server = Server::start(kind);
    kept_by(async {
        let [one, other] = [(); 2].map(|()| server.of_client("id"));
        let short = Duration::from_millis(50);
        let mut late = one.lease(short).await.unwrap().unwrap();
        let mut held = free_lease(&*other).await;
        let lost = late.publish(&record(9)).await;
        assert!(matches!(lost, Err(StoreError::Conflict(_))), "{lost:?}");
        assert_eq!(kept(&*other).await, None);
        held.publish(&record(2)).await.unwrap();
        held.publish(&record(3)).await.unwrap();
        // the same generation may update the pool; a lower one changes nothing
        held.publish(&record(3)).await.unwrap();
        let lower = held.publish(&record(2)).await;
        assert!(matches!(lower, Err(StoreError::Conflict(_))), "{lower:?}");
        assert_eq!(kept(&*one).await, Some((3, "token 3".to_owned())));
    });
}

/// Six stores at once, for three clients that share the written objects.
pub(super) fn many_writers_at_once_lose_nothing(kind: Kind) {
    const TIMES: u64 = 4;
    let server = Server::start(kind);
    kept_by(async {
        let ids = ["a", "b", "c", "a", "b", "c"];
        let writers = ids.map(|id| {
            let store = server.of_client(id);
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    let mut held = free_lease(&*store).await;
                    let before = kept(&*store).await.map_or(0, |(generation, _)| generation);
                    held.publish(&record(before + 1)).await.unwrap();
                }
            })
        });
        for writer in writers {
            timeout(PATIENCE, writer).await.unwrap().unwrap();
        }
        for id in ["a", "b", "c"] {
            let (generation, _) = kept(&*server.of_client(id)).await.unwrap();
            assert_eq!(generation, 2 * TIMES, "{id}");
        }
    });
}

pub(super) fn each_knows_how_many_came_before_it(kind: Kind) {
    let server = Server::start(kind);
    kept_by(async {
        let mut stores = Vec::new();
        for nth in 0..3 {
            let store = server.of_client("id");
            assert_eq!(store.membership(), Membership::Unknown);
            assert_eq!(settles(&*store).await, nth);
            stores.push(store);
        }
    });
}

pub(super) fn who_leaves_gives_its_place_to_the_next(kind: Kind) {
    // sooner than a membership expires
    let soon = Duration::from_secs(12);
    the_next_moves_up(kind, soon, async |first| first.leave().await);
}

pub(super) fn one_that_falls_silent_loses_its_place_to_the_next(kind: Kind) {
    // its membership expires after 15 s, which the next notices at its own heartbeat
    let late = Duration::from_secs(60);
    the_next_moves_up(kind, late, async |first| drop(first));
}

/// The second of two members gets the first one's place within `patience` after that `goes`.
fn the_next_moves_up(kind: Kind, patience: Duration, goes: impl AsyncFnOnce(Box<dyn TokenStore>)) {
    let server = Server::start(kind);
    kept_by(async {
        let first = server.of_client("id");
        assert_eq!(settles(&*first).await, 0);
        let second = server.of_client("id");
        assert_eq!(settles(&*second).await, 1);
        goes(first).await;
        let moved_up = async {
            while settles(&*second).await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(patience, moved_up).await.unwrap();
    });
}

/// Returns the result of `work`, and how many hundredths of a second it took. They are counted by a
/// task of the same thread, so a busy machine, which delays both, counts fewer.
async fn ticks<T>(work: impl Future<Output = T>) -> (T, u32) {
    let mut work = std::pin::pin!(work);
    let mut ticks = 0;
    loop {
        tokio::select! {
            done = &mut work => return (done, ticks),
            () = tokio::time::sleep(Duration::from_millis(10)) => ticks += 1,
        }
    }
}

/// Waits for a store's membership; returns how many joined earlier.
async fn settles(store: &dyn TokenStore) -> u32 {
    let settled = async {
        loop {
            if let Membership::Member { before, .. } = store.membership() {
                return before;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap()
}

pub(super) fn a_server_that_swallows_everything_holds_nobody_up(kind: Kind) {
    let server = Server::start(kind);
    kept_by(async {
        let relay = Relay::to(server.port());
        let store = server.of_client_by("id", Some(relay.port));
        assert_eq!(kept(&*store).await, None);
        // the polling has started
        settles(&*store).await;
        relay.swallow(true);
        let (read, ticks) = ticks(store.read()).await;
        assert!(read.is_err() && ticks < 400, "{ticks}");
        let (lease, ticks) = self::ticks(store.lease(LENGTH)).await;
        assert!(lease.is_err() && ticks < 400, "{ticks}");

        relay.swallow(false);
        let (changed, ticks) = self::ticks(timeout(PATIENCE, store.changed())).await;
        changed.unwrap();
        assert!(ticks < 500, "{ticks}");
        assert_eq!(kept(&*store).await, None);
    });
}
