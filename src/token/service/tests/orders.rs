//! How an engine reacts when its client's configuration changes.

use super::*;

/// A client: its endpoint, and its store.
struct Client<F> {
    endpoint: Arc<Scripted<F>>,
    store: SharedStore,
}

impl<F> Client<F>
where
    F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
{
    fn new(script: F) -> Client<F> {
        Client {
            endpoint: Scripted::new(script),
            store: SharedStore::default(),
        }
    }

    fn engine(&self, clock: TokioClock) -> (AbortHandle, Arc<TokenSlot>, Control) {
        controlled(self.endpoint.clone(), Arc::new(self.store.clone()), clock)
    }

    fn orders(&self, change: Change) -> Order {
        let client_id = match change {
            Change::Client => "urn:new",
            Change::Nothing | Change::Credentials => OLD,
        };
        let parts = parts(
            self.endpoint.clone(),
            Arc::new(self.store.clone()),
            TokioClock::start(),
        );
        let settings = Settings {
            client_id: ClientId::parse(client_id).unwrap(),
            ..parts.settings
        };
        Order::Configure(settings, change)
    }

    fn asked(&self) -> u32 {
        self.endpoint.asked.load(Ordering::SeqCst)
    }
}

fn issued_to(slot: &TokenSlot) -> String {
    slot.status().issued_to.unwrap().to_string()
}

fn generation(slot: &TokenSlot, clock: TokioClock) -> Option<u64> {
    let token = slot.usable(clock.now())?;
    token.as_ref().map(|token| token.generation())
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_tried_at_once_and_the_old_token_serves_meanwhile() {
    let clock = TokioClock::start();
    let old = Client::new(|_| Ok(()));
    let (_, slot, control) = old.engine(clock);
    pass(1.0).await;
    for (change, held) in [(Change::Credentials, 1), (Change::Client, 2)] {
        let new = Client::new(|_| Ok(()));
        control.send(new.orders(change)).unwrap();
        pass(0.1).await;
        assert_eq!(new.endpoint.under_way.load(Ordering::SeqCst), 1);
        assert_eq!(generation(&slot, clock), Some(held));
        assert_eq!(issued_to(&slot), OLD);
        pass(1.0).await;
        assert_eq!(generation(&slot, clock), Some(held + 1));
    }
    assert_eq!(issued_to(&slot), "urn:new");
    assert_eq!(old.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_slowly_until_others_come() {
    let clock = TokioClock::start();
    let good = Client::new(|_| Ok(()));
    let (_, slot, control) = good.engine(clock);
    pass(1.0).await;
    let wrong = Client::new(|_| Err(Outcome::InvalidClient));
    control.send(wrong.orders(Change::Credentials)).unwrap();
    pass(90.0).await;
    assert_eq!(wrong.asked(), 2);
    assert_eq!(generation(&slot, clock), Some(1), "the old token serves");
    assert!(slot.status().failure.is_some());

    control.send(good.orders(Change::Credentials)).unwrap();
    pass(1.0).await;
    assert_eq!(generation(&slot, clock), Some(2));
    assert!(slot.status().failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_pace_costs_no_token() {
    let clock = TokioClock::start();
    let client = Client::new(|_| Ok(()));
    let (_, slot, control) = client.engine(clock);
    pass(1.0).await;
    control.send(client.orders(Change::Nothing)).unwrap();
    pass(10.0).await;
    assert_eq!((client.asked(), generation(&slot, clock)), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_never_kept_as_that_of_another_client() {
    let clock = TokioClock::start();
    let old = Client::new(|_| Ok(()));
    let (_, slot, control) = old.engine(clock);
    pass(1.0).await;
    let new = Client::new(|_| Err(Outcome::ServerError));
    control.send(new.orders(Change::Client)).unwrap();
    pass(1.0).await;
    let kept = new.store.0.record.lock().unwrap().clone().unwrap();
    assert!(kept.token.is_none());
    assert_eq!(generation(&slot, clock), Some(1), "though it serves");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_of_another_client_has_is_taken_over() {
    let clock = TokioClock::start();
    let new = Client::new(|_| Ok(()));
    // a replica has requested it already
    let (_, _, _replica) = new.engine(clock);
    let old = Client::new(|_| Ok(()));
    let (_, slot, control) = old.engine(clock);
    pass(160.0).await;
    assert_eq!((generation(&slot, clock), new.asked()), (Some(2), 2));
    control.send(new.orders(Change::Client)).unwrap();
    pass(1.0).await;
    assert_eq!(new.asked(), 2);
    // the generation continues, so that a rejection of the previous token does not apply to this
    // one
    assert_eq!(generation(&slot, clock), Some(3));
    assert_eq!(issued_to(&slot), "urn:new");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_nobody_needs_stops() {
    let clock = TokioClock::start();
    let client = Client::new(|_| Ok(()));
    let (running, slot, control) = client.engine(clock);
    pass(1.0).await;
    let second = control.clone();
    drop((slot, control));
    pass(1.0).await;
    assert!(!running.is_finished());
    drop(second);
    pass(1.0).await;
    assert!(running.is_finished());
}

/// The token in hand is valid for minutes, and its renewal would wait until it nears expiry.
#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_tried_at_once_without_the_store() {
    for change in [Change::Credentials, Change::Client] {
        let clock = TokioClock::start();
        let old = Client::new(|_| Ok(()));
        let store = without_store::first_of_four(old.store.clone());
        let (_, slot, control) = controlled(old.endpoint.clone(), store, clock);
        pass(10.0).await;
        old.store.0.away.store(true, Ordering::SeqCst);
        old.store.0.changed.notify_waiters();
        pass(20.0).await;
        let new = Client::new(|_| Ok(()));
        new.store.0.away.store(true, Ordering::SeqCst);
        let Order::Configure(mut settings, _) = new.orders(change) else {
            unreachable!()
        };
        settings.store = without_store::first_of_four(new.store.clone());
        control.send(Order::Configure(settings, change)).unwrap();
        pass(1.0).await;
        assert_eq!((old.asked(), new.asked()), (1, 1), "{change:?}");
        assert_eq!(generation(&slot, clock), Some(2));
        // the next one waits for its share again
        pass(200.0).await;
        assert_eq!(new.asked(), 1, "{change:?}");
    }
}
