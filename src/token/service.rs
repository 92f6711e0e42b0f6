//! The loop of one client: carries out what the schedule decides, keeps what comes of it in the
//! store, and publishes it to the requests.
//!
//! Whoever asks for a token holds the store's lease meanwhile, and looks first whether another has
//! brought one. The request is booked in the store before it is sent, so that a process that dies
//! over it does not forget what it may have cost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::random::Jitter;
use crate::secret::Secret;
use crate::token::cache::{Failure, Next, Status, TokenCell};
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, StoredPool, StoredToken,
    TokenEndpoint, TokenStore,
};
use crate::token::schedule::{self, Schedule, Step, Surprise};
use crate::token::token::Token;

/// The shortest time that a store is given for an answer.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// Is told of every token request that has ended; for metrics.
pub trait Observer: Send + 'static {
    /// A request that took `duration` ended with a token, or failed.
    fn token_request(&self, duration: Duration, outcome: Result<(), Outcome>);
}

/// What an engine works with.
#[derive(Debug)]
pub struct Parts<J, O> {
    /// The client's name in the configuration.
    pub client: Arc<str>,
    /// Its identifier at the issuer.
    pub client_id: ClientId,
    /// When its token is renewed.
    pub config: schedule::Config,
    /// Who issues tokens.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// Where they are kept.
    pub store: Arc<dyn TokenStore>,
    /// By which clock they live.
    pub clock: Arc<dyn Clock>,
    /// How delays are spread.
    pub jitter: J,
    /// Who counts.
    pub observer: O,
}

/// How an engine goes on, after the configuration of its client has changed.
#[derive(Debug)]
pub struct Orders {
    /// When tokens are renewed, from the next one on.
    pub config: schedule::Config,
    /// The identifier of the client that asks.
    pub client_id: ClientId,
    /// Who issues them.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// Where they are kept.
    pub store: Arc<dyn TokenStore>,
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
    parts: Parts<J, O>,
    schedule: Schedule,
    cell: Arc<TokenCell>,
    token: Option<Arc<Token>>,
    /// The client that the token in hand was issued to.
    issued_to: Option<ClientId>,
    /// The token in hand, and what is known of generations, is another client's: the one before.
    of_another: bool,
    /// The highest generation that is known of, here or in the store.
    generation: u64,
    failure: Option<Failure>,
    /// The API refused the token in hand, and a new one is being asked for.
    doubted: bool,
    /// Up to which generation refusals by the API have been considered.
    considered: u64,
    /// Why the store could not be used when it was last tried, if it could not.
    store_problem: Option<Arc<str>>,
}

impl<J: Jitter, O: Observer> TokenService<J, O> {
    /// An engine, and the cell in which its token will be found.
    pub fn new(parts: Parts<J, O>) -> (TokenService<J, O>, Arc<TokenCell>) {
        let now = parts.clock.now();
        let schedule = Schedule::new(parts.config, now);
        let cell = Arc::new(TokenCell::empty(now, schedule.pool().clone()));
        let service = TokenService {
            parts,
            schedule,
            cell: Arc::clone(&cell),
            token: None,
            issued_to: None,
            of_another: false,
            generation: 0,
            failure: None,
            doubted: false,
            considered: 0,
            store_problem: None,
        };
        (service, cell)
    }

    /// Runs until the last sender of `orders` is dropped. Nothing that the endpoint or the store
    /// does ends it, not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Orders>) {
        self.look_into_the_store().await;
        loop {
            let now = self.parts.clock.now();
            match self.schedule.next(now) {
                Step::Ask => self.renew().await,
                Step::WaitUntil(at) => {
                    let longest = self.parts.clock.longest_sleep();
                    let due = tokio::time::sleep(at.since(now).min(longest));
                    if self.schedule.next_chance(now) != at {
                        // there is always one to tell those who ask when to come again
                        self.publish_next();
                    }
                    tokio::select! {
                        () = due => {}
                        () = self.cell.rejection() => self.consider_rejection(),
                        () = self.parts.store.changed() => self.keep_up_with_the_store().await,
                        order = orders.recv() => match order {
                            Some(order) => self.follow(order),
                            None => return,
                        },
                    }
                }
            }
        }
    }

    /// Takes the right to ask, and asks, unless another has or does.
    async fn renew(&mut self) {
        self.publish(Next::Answer);
        let refill = self.parts.config.pool.refill;
        let lease = self.parts.store.lease(refill);
        let mut lease = match in_time(self.patience(), lease).await {
            Ok(None) => {
                // the holder's token comes by the store; this is for a holder that dies
                self.yield_to_another();
                return;
            }
            Ok(Some(lease)) => Some(lease),
            Err(StoreError::Overtaken(_)) => {
                self.yield_to_another();
                return;
            }
            Err(StoreError::Away(problem)) => {
                self.without_store(&problem);
                None
            }
        };
        if lease.is_some() {
            self.look_into_the_store().await;
        }
        let asked = self.parts.clock.now();
        if self.schedule.next(asked) == Step::Ask {
            self.schedule.ask(asked);
            if self.keep(&mut lease).await {
                let answer = ask(Arc::clone(&self.parts.endpoint)).await;
                self.answered(asked, answer);
                self.keep(&mut lease).await;
            } else {
                let jitter = self.parts.jitter.next();
                self.schedule.withdrawn(self.parts.clock.now(), jitter);
            }
        }
        // whatever was refused while this was under way was answered by it
        self.considered = self.cell.rejected();
        self.doubted = false;
        self.publish_next();
    }

    /// Takes in the answer to the request sent at `asked`.
    fn answered(&mut self, asked: Instant, answer: Result<Grant, RequestError>) {
        let now = self.parts.clock.now();
        let taken = answer.and_then(|grant| self.take(asked, &grant));
        let outcome = taken.as_ref().map(|_| ()).map_err(|e| e.outcome);
        self.parts.observer.token_request(now.since(asked), outcome);
        let jitter = self.parts.jitter.next();
        match taken {
            Ok((token, lifetime)) => {
                info!(
                    client = %self.parts.client,
                    generation = token.generation(),
                    lifetime_seconds = lifetime.as_secs(),
                    took_milliseconds = millis(now.since(asked)),
                    "token received"
                );
                self.schedule
                    .granted(now, lifetime, token.usable_until(), jitter);
                self.generation = token.generation();
                self.token = Some(token);
                self.issued_to = Some(self.parts.client_id.clone());
                self.of_another = false;
                self.failure = None;
            }
            Err(error) => self.failed(now, error, jitter),
        }
    }

    /// Goes on by other orders. The token in hand is good until its end, whoever asked for it.
    fn follow(&mut self, orders: Orders) {
        let now = self.parts.clock.now();
        self.schedule.reconfigure(orders.config, now);
        self.parts.config = orders.config;
        self.parts.client_id = orders.client_id;
        self.parts.endpoint = orders.endpoint;
        self.parts.store = orders.store;
        self.with_store();
        match orders.change {
            Change::Nothing => {}
            Change::Credentials => self.schedule.credentials_changed(now),
            Change::Client => {
                self.schedule.client_changed(now);
                self.of_another = true;
            }
        }
        self.publish_next();
    }

    fn take(&self, asked: Instant, grant: &Grant) -> Result<(Arc<Token>, Duration), RequestError> {
        let generation = self.generation + 1;
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
        let client = &self.parts.client;
        warn!(
            client = %client,
            outcome = error.outcome.label(),
            in_a_row = self.schedule.failures(),
            next_in_seconds = self.schedule.next_chance(now).since(now).as_secs_f64(),
            token_seconds_left = self.token.as_ref().map_or(0, |t| t.usable_until().since(now).as_secs()),
            "token request failed: {error}"
        );
        match surprise {
            Some(Surprise::OthersDrink) => warn!(
                client = %client,
                "the token pool is empty although this proxy took no more than it may: other programs use this client too, or another replica does; point them at this proxy or give them a client of their own"
            ),
            Some(Surprise::RefusalsCount) => warn!(
                client = %client,
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

    /// The API refused a token: if it is the one in hand, a new one is asked for, as far as that
    /// is allowed.
    fn consider_rejection(&mut self) {
        let rejected = self.cell.rejected();
        let held = self.token.as_ref().map_or(0, |token| token.generation());
        if rejected > self.considered && rejected == held {
            let now = self.parts.clock.now();
            self.doubted = self.schedule.rejected(now);
            warn!(
                client = %self.parts.client,
                generation = held,
                next_in_seconds = self.schedule.next_chance(now).since(now).as_secs_f64(),
                "the API answered 401 to the token in hand"
            );
        }
        self.considered = self.considered.max(rejected);
        if !self.doubted {
            self.publish_next();
        }
    }

    /// Looks into the store, and puts there what is in hand if that is newer: the store has lost
    /// it, or was away when it came.
    async fn keep_up_with_the_store(&mut self) {
        let generation = self.generation;
        let is_older = self.look_into_the_store().await;
        if self.store_problem.is_none() && self.generation == generation {
            // no token came of it: another asks, or has asked in vain
            self.yield_to_another();
        }
        if !is_older {
            return;
        }
        let lease = self.parts.store.lease(self.parts.config.pool.refill);
        // if another has the right, it will keep something, and that is a change
        let Ok(Some(lease)) = in_time(self.patience(), lease).await else {
            return;
        };
        if self.look_into_the_store().await {
            self.keep(&mut Some(lease)).await;
        }
    }

    fn yield_to_another(&mut self) {
        let jitter = self.parts.jitter.next();
        self.schedule.yielded(self.parts.clock.now(), jitter);
    }

    /// Reads what is kept, and takes over what is newer than what is in hand. Whether it is older.
    async fn look_into_the_store(&mut self) -> bool {
        let read = self.parts.store.read();
        match in_time(self.patience(), read).await {
            Ok(record) => {
                self.with_store();
                if let Some(record) = &record {
                    self.take_over(record);
                }
                let now = self.parts.clock.now();
                let held = self.token.as_ref().filter(|token| token.is_usable(now));
                let kept = record.map_or(0, |record| record.generation);
                held.is_some_and(|held| !self.of_another && held.generation() > kept)
            }
            Err(StoreError::Away(problem) | StoreError::Overtaken(problem)) => {
                self.without_store(&problem);
                false
            }
        }
    }

    fn take_over(&mut self, record: &Record) {
        let clock = &self.parts.clock;
        let (now, wall) = (clock.now(), clock.wall());
        let until = |at: std::time::SystemTime| now + at.duration_since(wall).unwrap_or_default();
        self.schedule.restore_pool(
            until(record.pool.full_at),
            until(record.pool.not_before),
            now,
        );
        let before = self.generation;
        self.generation = self.generation.max(record.generation);
        let held = self.token.as_ref().map_or(0, |token| token.generation());
        let is_newer = |kept: &&StoredToken| self.of_another || kept.generation > held;
        let Some(kept) = record.token.as_ref().filter(is_newer) else {
            return;
        };
        // here generations go on counting when the client is another; in its store they began anew
        let generation = if self.of_another {
            kept.generation.max(before + 1)
        } else {
            kept.generation
        };
        // a wall clock that was set back must not lengthen a token's life
        let age = wall.duration_since(kept.asked).unwrap_or_default();
        let token = Token::new(&kept.access_token, generation, now - age, kept.lifetime);
        let Ok(token) = token else { return };
        if !token.is_usable(now) {
            return;
        }
        let jitter = self.parts.jitter.next();
        self.schedule
            .adopted(token.issued(), kept.lifetime, token.usable_until(), jitter);
        info!(
            client = %self.parts.client,
            generation = token.generation(),
            seconds_left = token.usable_until().since(now).as_secs(),
            "token taken over from the store"
        );
        self.generation = self.generation.max(token.generation());
        self.token = Some(Arc::new(token));
        self.issued_to = Some(self.parts.client_id.clone());
        self.of_another = false;
        self.failure = None;
        self.considered = self.cell.rejected();
        self.doubted = false;
        self.publish_next();
    }

    /// Keeps the token in hand and the pool, if the right to do so is held. False if another has
    /// taken it, and knows better by now.
    async fn keep(&mut self, lease: &mut Option<Box<dyn Lease>>) -> bool {
        let Some(held) = lease else { return true };
        let wall = |at: Instant| self.parts.clock.wall_at(at);
        let (full_at, not_before) = self.schedule.pool().times();
        let token = self.token.as_ref().filter(|_| !self.of_another);
        let record = Record {
            generation: self.generation,
            token: token.map(|token| StoredToken {
                generation: token.generation(),
                access_token: Secret::from(token.access_token().to_owned()),
                asked: wall(token.issued()),
                lifetime: token.expires().since(token.issued()),
            }),
            pool: StoredPool {
                full_at: wall(full_at),
                not_before: wall(not_before),
            },
        };
        match in_time(self.patience(), held.publish(&record)).await {
            Ok(()) => true,
            Err(StoreError::Away(problem)) => {
                self.without_store(&problem);
                *lease = None;
                true
            }
            Err(StoreError::Overtaken(why)) => {
                info!(client = %self.parts.client, "what is in hand is not stored: {why}");
                *lease = None;
                self.look_into_the_store().await;
                false
            }
        }
    }

    /// The store cannot be used: said once, and gone on without, as far as that is for this
    /// process to do.
    fn without_store(&mut self, problem: &str) {
        if self.store_problem.is_none() {
            let rank = self.parts.store.rank();
            self.schedule.store_away(rank, self.parts.clock.now());
            warn!(
                client = %self.parts.client, ?rank,
                "the store cannot be used, going on without it: {problem}"
            );
        }
        if self.store_problem.as_deref() != Some(problem) {
            self.store_problem = Some(problem.into());
            self.publish_next();
        }
    }

    /// The store can be used.
    fn with_store(&mut self) {
        if self.store_problem.take().is_some() {
            self.schedule.store_back(self.parts.clock.now());
            info!(client = %self.parts.client, "the store can be used again");
            self.publish_next();
        }
    }

    /// How long the store may take: a twelfth of the refill interval, 5 s of a minute. A store is
    /// no faster where the pool is.
    fn patience(&self) -> Duration {
        (self.parts.config.pool.refill / 12).max(SHORTEST_PATIENCE)
    }

    fn publish_next(&self) {
        let now = self.parts.clock.now();
        self.publish(Next::Request(self.schedule.next_chance(now)));
    }

    fn publish(&self, next: Next) {
        self.cell.publish(Status {
            token: self.token.clone(),
            issued_to: self.issued_to.clone(),
            next,
            failure: self.failure.clone(),
            pool: self.schedule.pool().clone(),
            doubted: self.doubted,
            considered: self.considered,
            store_problem: self.store_problem.clone(),
        });
    }
}

/// What the store says, if it says so within `patience`.
async fn in_time<T>(
    patience: Duration,
    says: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(patience, says)
        .await
        .unwrap_or_else(|_elapsed| Err(StoreError::Away("it does not answer".to_owned())))
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
mod tests;
