//! Tests: an operator requests a new token.

use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// An engine whose endpoint answers by `script`, after its first answer.
async fn controlled_by<F>(
    script: F,
    store: Arc<dyn TokenStore>,
) -> (Arc<Scripted<F>>, Arc<TokenSlot>, Control, TokioClock)
where
    F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
{
    let clock = TokioClock::start();
    let endpoint = Scripted::new(script);
    let (_, slot, control) = controlled(endpoint.clone(), store, clock);
    sleep(SECOND).await;
    (endpoint, slot, control, clock)
}

fn generation(slot: &TokenSlot, clock: TokioClock) -> Option<u64> {
    let token = slot.usable(clock.now())?;
    token.as_ref().map(|token| token.generation())
}

fn asked<F>(endpoint: &Scripted<F>) -> u32 {
    endpoint.asked.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_new_token_comes_at_once_and_the_old_one_serves_meanwhile() {
    let store = Arc::new(SharedStore::default());
    let (endpoint, slot, control, clock) = controlled_by(|_| Ok(()), store).await;
    assert_eq!(renew_now(&control, &slot).await, Ok(1));
    sleep(SECOND / 10).await;
    assert_eq!(endpoint.under_way.load(Ordering::SeqCst), 1);
    assert_eq!(generation(&slot, clock), Some(1), "it serves");
    sleep(SECOND).await;
    assert_eq!(generation(&slot, clock), Some(2));
    // the next one is due by the new token's life
    sleep(SECOND * 130).await;
    assert_eq!(asked(&endpoint), 2);
    sleep(SECOND * 20).await;
    assert_eq!(asked(&endpoint), 3);
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_never_overdrawn_however_often_a_person_asks() {
    let store = Arc::new(SharedStore::default());
    let (endpoint, slot, control, _) = controlled_by(|_| Ok(()), store).await;
    let mut refused = None;
    for second in 1..600_u32 {
        if let Err(error) = renew_now(&control, &slot).await {
            refused = Some(error);
        }
        sleep(SECOND).await;
        assert!(asked(&endpoint) <= 6 + second / 60, "at {second} s");
    }
    let refused = refused.unwrap();
    assert!(matches!(refused, NotNow::Pool { .. }), "{refused:?}");
    let wait = refused.retry_after().unwrap();
    assert!(wait > Duration::ZERO && wait <= SECOND * 60, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_changes_nothing() {
    let store = Arc::new(SharedStore::default());
    let script = |nth| match nth {
        1 => Ok(()),
        _ => Err(Outcome::RateLimited),
    };
    let (endpoint, slot, control, clock) = controlled_by(script, store).await;
    assert_eq!(renew_now(&control, &slot).await, Ok(1));
    sleep(SECOND).await;
    let next = slot.status().next;
    let refused = renew_now(&control, &slot).await.unwrap_err();
    assert!(refused.to_string().contains("another 60 s"), "{refused}");
    assert_eq!((slot.status().next, asked(&endpoint)), (next, 2));
    assert_eq!(generation(&slot, clock), Some(1), "it serves");
}

#[tokio::test(start_paused = true)]
async fn one_request_is_in_flight_at_a_time() {
    let store = Arc::new(SharedStore::default());
    let (endpoint, slot, control, clock) = controlled_by(|_| Ok(()), store).await;
    // both are sent before the engine runs, and the second reaches it after the first request
    let both = tokio::join!(renew_now(&control, &slot), renew_now(&control, &slot));
    assert_eq!(both, (Ok(1), Err(NotNow::InFlight)));
    assert_eq!(asked(&endpoint), 2);
    assert_eq!(renew_now(&control, &slot).await, Ok(2));
    sleep(SECOND / 10).await;
    assert_eq!(renew_now(&control, &slot).await, Err(NotNow::InFlight));
    sleep(SECOND).await;
    assert_eq!(generation(&slot, clock), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_takes_the_new_token_of_the_replica_that_was_asked() {
    let store = SharedStore::default();
    let (endpoint, slot, control, clock) = controlled_by(|_| Ok(()), Arc::new(store.clone())).await;
    let other = Scripted::new(|_| Ok(()));
    let (_, cell_of_other, _control) = controlled(other.clone(), Arc::new(store.clone()), clock);
    sleep(SECOND).await;
    assert_eq!(generation(&cell_of_other, clock), Some(1));
    assert_eq!(renew_now(&control, &slot).await, Ok(1));
    sleep(SECOND).await;
    assert_eq!(generation(&cell_of_other, clock), Some(2));
    assert_eq!((asked(&endpoint), asked(&*other)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_only_this_replicas_share_is_used() {
    let store = SharedStore::default();
    let store_of_fleet = without_store::first_of_four(store.clone());
    let (endpoint, slot, control, _) = controlled_by(|_| Ok(()), store_of_fleet).await;
    store.0.away.store(true, Ordering::SeqCst);
    store.0.changed.notify_waiters();
    sleep(SECOND * 5).await;
    assert_eq!(renew_now(&control, &slot).await, Ok(1));
    sleep(SECOND * 5).await;
    assert_eq!(asked(&endpoint), 2);
    let refused = renew_now(&control, &slot).await.unwrap_err();
    assert!(matches!(refused, NotNow::Share { .. }), "{refused:?}");
    assert_eq!(asked(&endpoint), 2);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_says_so() {
    let store = Arc::new(SharedStore::default());
    let clock = TokioClock::start();
    let (running, slot, control) = controlled(Scripted::new(|_| Ok(())), store, clock);
    sleep(SECOND).await;
    running.abort();
    assert_eq!(renew_now(&control, &slot).await, Err(NotNow::Stopped));
}
