//! A fleet whose store fails in part, in virtual time: it cannot be written, or only its leases
//! fail.

use super::without_store::Fleet;
use super::*;
use crate::token::ports::Membership;

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Lease,
    Publish,
    Writes,
    All,
}

const WAYS: [Fails; 4] = [Fails::Lease, Fails::Publish, Fails::Writes, Fails::All];

impl Fails {
    /// The part fails from now on, or works again. Nobody is notified: reading may notice nothing.
    fn set(self, store: &SharedStore, fails: bool) {
        let parts = match self {
            Fails::Lease => vec![&store.0.no_lease],
            Fails::Publish => vec![&store.0.no_publish],
            Fails::Writes => vec![&store.0.no_lease, &store.0.no_publish],
            Fails::All => vec![&store.0.away],
        };
        for part in parts {
            part.store(fails, Ordering::SeqCst);
        }
    }
}

/// All standby places are taken by processes that are gone.
const NOT_STANDBY: Membership = Membership::Member { before: 4, all: 5 };

#[tokio::test(start_paused = true)]
async fn whatever_failed_all_hold_a_token_5_s_after_it_works_again() {
    for fails in WAYS {
        for size in [1, 10] {
            for lasts in [1, 5, 61, 300] {
                let store = SharedStore::default();
                fails.set(&store, true);
                let fleet = Fleet::at(store, std::iter::repeat_n(NOT_STANDBY, size)).await;
                fleet.pass(lasts).await;
                fails.set(&fleet.store, false);
                fleet.pass(5).await;
                assert_eq!(fleet.serving(), size, "{fails:?} for {lasts} s");
                assert_eq!(fleet.pass(600).await, size, "{fails:?} for {lasts} s");
                assert_eq!(fleet.refused(), 0, "{fails:?} for {lasts} s");
            }
        }
    }
}

/// One after the other, in every order.
#[tokio::test(start_paused = true)]
async fn nor_does_the_order_matter_in_which_parts_fail_and_work_again() {
    for first in WAYS {
        for second in WAYS {
            let store = SharedStore::default();
            first.set(&store, true);
            let fleet = Fleet::at(store, [NOT_STANDBY; 3]).await;
            fleet.pass(20).await;
            second.set(&fleet.store, true);
            fleet.pass(20).await;
            first.set(&fleet.store, false);
            fleet.pass(20).await;
            second.set(&fleet.store, false);
            for part in WAYS {
                part.set(&fleet.store, false);
            }
            fleet.pass(5).await;
            assert_eq!(fleet.serving(), 3, "{first:?}, then {second:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_ten_whose_store_cannot_be_written_four_ask_and_none_is_refused() {
    for fails in [Fails::Lease, Fails::Publish, Fails::Writes] {
        let store = SharedStore::default();
        fails.set(&store, true);
        let ranks = (0..10).map(|before| Membership::Member { before, all: 10 });
        let fleet = Fleet::at(store, ranks).await;
        fleet.pass(15).await;
        assert_eq!(fleet.pass(585).await, 4, "{fails:?}");
        assert_eq!(fleet.refused(), 0, "{fails:?}");
        let with_token = fleet.cells.iter().filter(|c| c.status().token.is_some());
        assert_eq!(with_token.count(), 4, "{fails:?}");
        for slot in &fleet.cells {
            assert!(slot.status().store_problem.is_some(), "{fails:?}");
        }
    }
}

/// A position that is unknown at first: the store learns it while the engine is running.
#[tokio::test(start_paused = true)]
async fn a_rank_that_becomes_known_counts_before_anyone_asks() {
    let store = SharedStore::default();
    Fails::Publish.set(&store, true);
    let later: Vec<_> = (0..10)
        .map(|_| Arc::new(Mutex::new(Membership::Unknown)))
        .collect();
    let fleet = Fleet::learning(store, &later).await;
    fleet.pass(2).await;
    for (before, membership) in (0..).zip(&later) {
        *membership.lock().unwrap() = Membership::Member { before, all: 10 };
    }
    fleet.pass(20).await;
    assert_eq!(fleet.pass(580).await, 4);
    assert_eq!(fleet.refused(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_4_s_the_renewal_comes_when_it_would_have() {
    for fails in WAYS {
        let fleet = Fleet::of(10).await;
        fleet.pass(55).await;
        fails.set(&fleet.store, true);
        fleet.store.0.changed.notify_waiters();
        fleet.pass(4).await;
        fails.set(&fleet.store, false);
        fleet.store.0.changed.notify_waiters();
        fleet.pass(145 - 64).await;
        assert_eq!(fleet.issued(), 2, "{fails:?}: at 0.485 of the token's life");
    }
}

/// During the renewal itself: a process that tried it then knows of the outage.
#[tokio::test(start_paused = true)]
async fn an_outage_over_the_renewal_delays_it_no_longer_than_it_lasts() {
    for fails in WAYS {
        let fleet = Fleet::of(10).await;
        fleet.pass(130).await;
        fails.set(&fleet.store, true);
        fleet.pass(30).await;
        assert_eq!(fleet.issued(), 1, "{fails:?}");
        fails.set(&fleet.store, false);
        assert_eq!(fleet.pass(5).await, 10, "{fails:?}");
        assert_eq!(fleet.issued(), 2, "{fails:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_one_state_until_all_of_it_works() {
    for fails in [Fails::Lease, Fails::Publish, Fails::Writes] {
        let fleet = Fleet::of(3).await;
        fails.set(&fleet.store, true);
        fleet.pass(250).await;
        let mut changes = 0;
        let mut last = fleet.cells[0].status().store_problem;
        assert!(last.is_some(), "{fails:?}");
        for _ in 0..3_600 {
            fleet.pass(1).await;
            fleet.store.0.changed.notify_waiters();
            let now = fleet.cells[0].status().store_problem;
            changes += u32::from(now.is_some() != last.is_some());
            last = now;
        }
        assert_eq!(changes, 0, "{fails:?}");
    }
}
