//! The loop of one client: carries out what the schedule decides and publishes what comes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::clock::{Clock, Instant};
use crate::random::Jitter;
use crate::token::cache::{Failure, Next, Status, TokenCell};
use crate::token::ports::{Grant, Outcome, RequestError, TokenEndpoint};
use crate::token::schedule::{self, Schedule, Step, Surprise};
use crate::token::token::Token;

/// The longest sleep at a stretch. Timers stand still while the machine is suspended, the clock
/// does not: this is how soon after it a renewal that fell due meanwhile is made.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Is told of every token request that has ended; for metrics.
pub trait Observer: Send + 'static {
    /// A request that took `duration` ended with a token, or failed.
    fn token_request(&self, duration: Duration, outcome: Result<(), Outcome>);
}

/// How an engine goes on, after the configuration of its client has changed.
#[derive(Debug)]
pub struct Orders {
    /// When tokens are renewed, from the next one on.
    pub config: schedule::Config,
    /// Who issues them.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// What is different about the one who asks.
    pub change: Change,
}

/// What is different about the one who asks for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the next token is asked for when it would have been.
    Nothing,
    /// The same client asks in another way: it is tried at once, from the same pool.
    Credentials,
    /// It is another client, with another pool.
    Client,
}

/// Where orders for an engine go in. The engine runs until the last of its senders is dropped.
pub type Control = mpsc::UnboundedSender<Orders>;

/// The engine of one client.
#[derive(Debug)]
pub struct TokenService<J, O> {
    client: Arc<str>,
    schedule: Schedule,
    endpoint: Arc<dyn TokenEndpoint>,
    cell: Arc<TokenCell>,
    clock: Arc<dyn Clock>,
    jitter: J,
    observer: O,
    token: Option<Arc<Token>>,
    failure: Option<Failure>,
    /// The API refused the token in hand, and a new one is being asked for.
    doubted: bool,
    /// Up to which generation refusals by the API have been considered.
    considered: u64,
}

impl<J: Jitter, O: Observer> TokenService<J, O> {
    /// An engine for `client`, and the cell in which its token will be found.
    pub fn new(
        client: Arc<str>,
        config: schedule::Config,
        endpoint: Arc<dyn TokenEndpoint>,
        clock: Arc<dyn Clock>,
        jitter: J,
        observer: O,
    ) -> (TokenService<J, O>, Arc<TokenCell>) {
        let now = clock.now();
        let schedule = Schedule::new(config, now);
        let cell = Arc::new(TokenCell::empty(now, schedule.pool().clone()));
        let service = TokenService {
            client,
            schedule,
            endpoint,
            cell: Arc::clone(&cell),
            clock,
            jitter,
            observer,
            token: None,
            failure: None,
            doubted: false,
            considered: 0,
        };
        (service, cell)
    }

    /// Runs until the last sender of `orders` is dropped. Nothing that the endpoint does ends it,
    /// not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Orders>) {
        loop {
            let now = self.clock.now();
            match self.schedule.next(now) {
                Step::Ask => {
                    self.publish(Next::Answer);
                    let answer = ask(Arc::clone(&self.endpoint)).await;
                    self.answered(now, answer);
                }
                Step::WaitUntil(at) => {
                    let due = tokio::time::sleep(at.since(now).min(LONGEST_SLEEP));
                    tokio::select! {
                        () = due => {}
                        () = self.cell.rejection() => self.consider_rejection(),
                        order = orders.recv() => match order {
                            Some(order) => self.follow(order),
                            None => return,
                        },
                    }
                }
                Step::AwaitAnswer => unreachable!("this loop awaits each answer where it asks"),
            }
        }
    }

    /// Takes in the answer to the request sent at `asked`.
    fn answered(&mut self, asked: Instant, answer: Result<Grant, RequestError>) {
        let now = self.clock.now();
        let taken = answer.and_then(|grant| self.take(asked, &grant));
        let outcome = taken.as_ref().map(|_| ()).map_err(|e| e.outcome);
        self.observer.token_request(now.since(asked), outcome);
        let jitter = self.jitter.next();
        match taken {
            Ok((token, lifetime)) => {
                info!(
                    client = %self.client,
                    generation = token.generation(),
                    lifetime_seconds = lifetime.as_secs(),
                    took_milliseconds = millis(now.since(asked)),
                    "token received"
                );
                self.schedule
                    .granted(now, lifetime, token.usable_until(), jitter);
                self.token = Some(token);
                self.failure = None;
            }
            Err(error) => self.failed(now, error, jitter),
        }
        // whatever was refused while this was under way was answered by it
        self.considered = self.cell.rejected();
        self.doubted = false;
        self.publish(Next::Request(self.schedule.next_request()));
    }

    /// The API refused a token: if it is the one in hand, a new one is asked for, as far as that
    /// is allowed.
    fn consider_rejection(&mut self) {
        let rejected = self.cell.rejected();
        let held = self.token.as_ref().map_or(0, |token| token.generation());
        if rejected > self.considered && rejected == held {
            let now = self.clock.now();
            self.doubted = self.schedule.rejected(now);
            warn!(
                client = %self.client,
                generation = held,
                next_in_seconds = self.schedule.next_request().since(now).as_secs_f64(),
                "the API answered 401 to the token in hand"
            );
        }
        self.considered = self.considered.max(rejected);
        if !self.doubted {
            self.publish(Next::Request(self.schedule.next_request()));
        }
    }

    /// Goes on by other orders. The token in hand is good until its end, whoever asked for it.
    fn follow(&mut self, orders: Orders) {
        let now = self.clock.now();
        self.endpoint = orders.endpoint;
        self.schedule.reconfigure(orders.config, now);
        match orders.change {
            Change::Nothing => {}
            Change::Credentials => self.schedule.credentials_changed(now),
            Change::Client => self.schedule.client_changed(now),
        }
        self.publish(Next::Request(self.schedule.next_request()));
    }

    fn take(&self, asked: Instant, grant: &Grant) -> Result<(Arc<Token>, Duration), RequestError> {
        let generation = self.token.as_ref().map_or(0, |token| token.generation()) + 1;
        let token = Token::new(&grant.access_token, generation, asked, grant.expires_in).map_err(
            |problem| RequestError {
                outcome: Outcome::Malformed,
                retry_after: None,
                message: problem.to_string(),
            },
        )?;
        Ok((Arc::new(token), grant.expires_in))
    }

    fn failed(&mut self, now: Instant, error: RequestError, jitter: f64) {
        let surprise = self
            .schedule
            .failed(now, error.outcome, error.retry_after, jitter);
        warn!(
            client = %self.client,
            outcome = error.outcome.label(),
            in_a_row = self.schedule.failures(),
            next_in_seconds = self.schedule.next_request().since(now).as_secs_f64(),
            token_seconds_left = self.token.as_ref().map_or(0, |t| t.usable_until().since(now).as_secs()),
            "token request failed: {error}"
        );
        match surprise {
            Some(Surprise::OthersDrink) => warn!(
                client = %self.client,
                "the token pool is empty although this proxy took no more than it may: other programs use this client too, or another replica does; point them at this proxy or give them a client of their own"
            ),
            Some(Surprise::RefusalsCount) => warn!(
                client = %self.client,
                "refused token requests seem to use up the pool as well; they are counted from now on"
            ),
            None => {}
        }
        self.failure = Some(Failure {
            at: now,
            error,
            in_a_row: self.schedule.failures(),
        });
    }

    fn publish(&self, next: Next) {
        self.cell.publish(Status {
            token: self.token.clone(),
            next,
            failure: self.failure.clone(),
            pool: self.schedule.pool().clone(),
            doubted: self.doubted,
            considered: self.considered,
        });
    }
}

/// Asks once, in a task of its own: a panic in there is a failure like any other.
async fn ask(endpoint: Arc<dyn TokenEndpoint>) -> Result<Grant, RequestError> {
    let asking = tokio::spawn(async move { endpoint.request_token().await });
    asking.await.unwrap_or_else(|_panic| {
        Err(RequestError {
            outcome: Outcome::ConnectionLost,
            retry_after: None,
            message: "the token request ended by an internal error; please report it".to_owned(),
        })
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::clock::TokioClock;
    use crate::secret::Secret;
    use crate::token::budget;
    use crate::token::ports::Draw;

    const CONFIG: schedule::Config = schedule::Config {
        refresh_at: 0.5,
        refresh_jitter: 0.05,
        pool: budget::Config {
            capacity: 5,
            refill: Duration::from_secs(60),
        },
    };
    const LIFETIME: Duration = Duration::from_secs(299);

    struct HalfJitter;

    impl Jitter for HalfJitter {
        fn next(&mut self) -> f64 {
            0.5
        }
    }

    impl Observer for () {
        fn token_request(&self, _duration: Duration, _outcome: Result<(), Outcome>) {}
    }

    /// An endpoint that answers by a function of how often it was asked, after `delay`.
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
                    message: format!("scripted {outcome}"),
                }),
            }
        }
    }

    fn scripted<F>(script: F) -> Arc<Scripted<F>> {
        Arc::new(Scripted {
            script,
            delay: Duration::from_millis(300),
            asked: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
        })
    }

    fn started<F>(script: F) -> (Arc<Scripted<F>>, Arc<TokenCell>, TokioClock)
    where
        F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
    {
        let (endpoint, cell, clock, control) = controlled(script);
        // it is to run for as long as the test does
        std::mem::forget(control);
        (endpoint, cell, clock)
    }

    fn controlled<F>(script: F) -> (Arc<Scripted<F>>, Arc<TokenCell>, TokioClock, Control)
    where
        F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
    {
        let clock = TokioClock::start();
        let endpoint = scripted(script);
        let (control, orders) = mpsc::unbounded_channel();
        let (service, cell) = TokenService::new(
            "catalog".into(),
            CONFIG,
            Arc::clone(&endpoint) as Arc<dyn TokenEndpoint>,
            Arc::new(clock),
            HalfJitter,
            (),
        );
        tokio::spawn(service.run(orders));
        (endpoint, cell, clock, control)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cold_start_of_500_requests_asks_once() {
        let (endpoint, cell, clock) = started(|_| Ok(()));
        let waiting: Vec<_> = (0..500)
            .map(|_| {
                let cell = Arc::clone(&cell);
                tokio::spawn(async move { cell.wait(&clock, Duration::from_secs(10)).await })
            })
            .collect();
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_keeps_the_good_token() {
        let (_, cell, clock) = started(|nth| {
            if nth == 1 {
                Ok(())
            } else {
                Err(Outcome::ServerError)
            }
        });
        tokio::time::sleep(Duration::from_secs(290)).await;
        let token = cell.usable(clock.now()).unwrap();
        assert_eq!(token.as_ref().unwrap().generation(), 1);
        assert!(cell.status().failure.unwrap().in_a_row > 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_to_all_who_wait() {
        let (_, cell, clock) = started(|_| Err(Outcome::InvalidClient));
        let told = cell
            .wait(&clock, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(told.reason.unwrap().0, Outcome::InvalidClient);
        assert_eq!(told.retry_after, Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_the_api_refuses_is_replaced_once_for_all() {
        let (endpoint, cell, clock) = started(|_| Ok(()));
        cell.wait(&clock, Duration::from_secs(10)).await.unwrap();
        let refused: Vec<_> = (0..200)
            .map(|_| {
                let cell = Arc::clone(&cell);
                let patience = Duration::from_secs(10);
                tokio::spawn(async move { cell.replace(1, &clock, patience).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            cell.usable(clock.now()).is_none(),
            "it is not sent meanwhile"
        );
        for one in refused {
            assert_eq!(one.await.unwrap().unwrap().generation(), 2);
        }
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_refusal_within_a_refill_interval_is_passed_on() {
        let (endpoint, cell, clock) = started(|_| Ok(()));
        let patience = Duration::from_secs(10);
        cell.wait(&clock, patience).await.unwrap();
        assert!(cell.replace(1, &clock, patience).await.is_some());
        assert!(cell.replace(2, &clock, patience).await.is_none());
        assert!(cell.usable(clock.now()).is_some(), "it goes on being sent");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(
            endpoint.asked.load(Ordering::SeqCst),
            3,
            "and is replaced in time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_sent_again_if_no_other_is_to_be_had() {
        let (_, cell, clock) = started(|nth| {
            if nth == 1 {
                Ok(())
            } else {
                Err(Outcome::ServerError)
            }
        });
        let patience = Duration::from_secs(10);
        cell.wait(&clock, patience).await.unwrap();
        assert!(cell.replace(1, &clock, patience).await.is_none());
        assert!(cell.usable(clock.now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_an_older_token_costs_nothing() {
        let (endpoint, cell, clock) = started(|_| Ok(()));
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(
            cell.usable(clock.now())
                .unwrap()
                .as_ref()
                .unwrap()
                .generation(),
            2
        );
        let newer = cell
            .replace(1, &clock, Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(newer.generation(), 2);
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_a_request_is_a_failure_like_any_other() {
        let (_, cell, clock) = started(|nth| if nth == 1 { panic!("scripted") } else { Ok(()) });
        let token = cell.wait(&clock, Duration::from_secs(10)).await.unwrap();
        assert_eq!(token.generation(), 1);
    }

    fn orders<F>(endpoint: &Arc<Scripted<F>>, change: Change) -> Orders
    where
        F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
    {
        Orders {
            config: CONFIG,
            endpoint: Arc::clone(endpoint) as Arc<dyn TokenEndpoint>,
            change,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_credentials_are_tried_at_once_and_the_old_token_serves_meanwhile() {
        let (old, cell, clock, control) = controlled(|_| Ok(()));
        let patience = Duration::from_secs(10);
        cell.wait(&clock, patience).await.unwrap();
        for change in [Change::Credentials, Change::Client] {
            let held = cell.status().token.unwrap().generation();
            let new = scripted(|_| Ok(()));
            control.send(orders(&new, change)).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(new.under_way.load(Ordering::SeqCst), 1);
            let token = cell.usable(clock.now()).unwrap();
            assert_eq!(token.as_ref().unwrap().generation(), held);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let token = cell.usable(clock.now()).unwrap();
            assert_eq!(token.as_ref().unwrap().generation(), held + 1);
        }
        assert_eq!(old.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_tried_slowly_until_others_come() {
        let (old, cell, clock, control) = controlled(|_| Err(Outcome::InvalidClient));
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(old.asked.load(Ordering::SeqCst), 2);
        control
            .send(orders(&scripted(|_| Ok(())), Change::Credentials))
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(cell.usable(clock.now()).is_some());
        assert!(cell.status().failure.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_nobody_needs_stops() {
        let (endpoint, cell, _, control) = controlled(|_| Ok(()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop((cell, control));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&endpoint), 1, "the engine is gone");
    }

    /// Four seeds of 24 hours each: the whole engine, looked at every second as an app would.
    #[tokio::test(start_paused = true)]
    async fn a_day_of_random_faults_never_hands_out_a_dead_token() {
        for seed in 0..4 {
            let random = Mutex::new(fastrand::Rng::with_seed(seed));
            let faulty = Mutex::new(false);
            let issued = Arc::new(Mutex::new(Vec::new()));
            let clock = TokioClock::start();
            let record = Arc::clone(&issued);
            let (endpoint, cell, _) = started(move |_| {
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
                let booked = outcome.map_or_else(|o| o.draw() == Draw::Perhaps, |()| true);
                if booked {
                    record.lock().unwrap().push(clock.now());
                }
                outcome
            });
            let mut last_generation = 0;
            for _ in 0..24 * 3600 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let now = clock.now();
                if let Some(token) = cell.usable(now) {
                    let token = token.as_ref().unwrap();
                    assert!(token.expires() > now, "a dead token");
                    assert!(token.generation() >= last_generation, "an older token");
                    last_generation = token.generation();
                }
                if let Next::Request(at) = cell.status().next {
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
}
