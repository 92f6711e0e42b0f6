//! The loop of one client: carries out what the schedule decides and publishes what comes of it.

use std::sync::Arc;
use std::time::Duration;

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
        };
        (service, cell)
    }

    /// Runs for ever. Nothing that the endpoint does ends it, not even a panic.
    pub async fn run(mut self) {
        loop {
            let now = self.clock.now();
            match self.schedule.next(now) {
                Step::Ask => {
                    self.publish(Next::Answer);
                    let answer = ask(Arc::clone(&self.endpoint)).await;
                    self.answered(now, answer);
                }
                Step::WaitUntil(at) => {
                    tokio::time::sleep(at.since(now).min(LONGEST_SLEEP)).await;
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

    fn started<F>(script: F) -> (Arc<Scripted<F>>, Arc<TokenCell>, TokioClock)
    where
        F: Fn(u32) -> Result<(), Outcome> + Send + Sync + 'static,
    {
        let clock = TokioClock::start();
        let endpoint = Arc::new(Scripted {
            script,
            delay: Duration::from_millis(300),
            asked: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
        });
        let (service, cell) = TokenService::new(
            "catalog".into(),
            CONFIG,
            Arc::clone(&endpoint) as Arc<dyn TokenEndpoint>,
            Arc::new(clock),
            HalfJitter,
            (),
        );
        tokio::spawn(service.run());
        (endpoint, cell, clock)
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
    async fn a_panic_in_a_request_is_a_failure_like_any_other() {
        let (_, cell, clock) = started(|nth| if nth == 1 { panic!("scripted") } else { Ok(()) });
        let token = cell.wait(&clock, Duration::from_secs(10)).await.unwrap();
        assert_eq!(token.generation(), 1);
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
