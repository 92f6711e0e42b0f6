//! The loop of one client: carries out the actions of its [`Renewal`], reports their results, and
//! publishes the state to requests. It decides nothing.

mod repeats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant, millis};
use crate::random::Jitter;
use crate::telemetry::{Label, Operation, StoreMetrics, StoreOutcome};
use crate::token::budget::Budget;
use crate::token::cache::{NextAttempt, Status, TokenSlot};
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, TokenEndpoint, TokenStore,
};
use crate::token::renewal::{Action, Context, Event, Note, Renewal, StoreState};
use crate::token::schedule::{self, RateLimitCause};
use crate::token::token::Token;
use repeats::Repeats;

/// The shortest timeout of a store operation.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// What an engine needs.
#[derive(Debug)]
pub struct Parts<J, O> {
    /// The client's name in the configuration.
    pub client: Arc<str>,
    /// What a change of the configuration replaces.
    pub settings: Settings,
    /// The predecessor's state, for when the store has none.
    pub initial: Option<Record>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Spreads delays.
    pub jitter: J,
    /// Called with the duration of every token request and its outcome, for metrics.
    pub observer: O,
}

/// The settings of an engine by its client's configuration.
#[derive(Debug)]
pub struct Settings {
    /// When tokens are renewed, from the next one on.
    pub schedule: schedule::Config,
    /// The client's id at the issuer.
    pub client_id: ClientId,
    /// The issuer.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// The store.
    pub store: Arc<dyn TokenStore>,
    /// Counts the store's operations.
    pub store_metrics: Arc<StoreMetrics>,
}

/// What changed about the client that requests tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the next request stays due.
    Nothing,
    /// Only the credentials: requests a token at once, from the same pool.
    Credentials,
    /// The client itself, and with it the pool.
    Client,
}

/// A command to an engine.
#[derive(Debug)]
pub enum Order {
    /// Apply the client's changed configuration. The current token stays in use until it expires,
    /// even if the client before the change requested it.
    Configure(Settings, Change),
    /// Request a new token now, if that is allowed.
    Renew {
        /// The generation of the token to be replaced; 0: none.
        generation: u64,
        /// Receives the result.
        reply: oneshot::Sender<Result<(), NotNow>>,
    },
}

/// Why a token is not renewed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// A request is in progress.
    #[error("a token request is already in flight; wait for its result")]
    InFlight,
    /// The mirrored pool is empty, or the issuer accepts no request yet.
    #[error(
        "the token pool allows no request for another {} s; try again then",
        seconds(*retry_after)
    )]
    Pool {
        /// How long until it allows one.
        retry_after: Duration,
    },
    /// The store is unavailable, and the pool is divided among the replicas.
    #[error(
        "the store is unavailable, and this replica's share of the token pool allows no request for another {} s; try again then, or ask another replica",
        seconds(*retry_after)
    )]
    Share {
        /// How long until the share may allow one.
        retry_after: Duration,
    },
    /// The engine has stopped: its client left the configuration.
    #[error("the client is no longer configured")]
    Stopped,
}

impl NotNow {
    /// How long to wait before the next attempt, if that is known.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            NotNow::Pool { retry_after } | NotNow::Share { retry_after } => Some(retry_after),
            NotNow::InFlight | NotNow::Stopped => None,
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Sends [`Order`]s to an engine, which runs until its last sender is dropped.
pub type Control = mpsc::UnboundedSender<Order>;

/// Makes the engine behind `engine` and `slot` request a new token at once. The current token stays
/// in use until the new one arrives. Returns the current token's generation, 0 if there is none.
///
/// # Errors
/// [`NotNow`] if it does not. Then nothing has changed.
pub async fn renew_now(engine: &Control, slot: &TokenSlot) -> Result<u64, NotNow> {
    let status = slot.status();
    if status.next == NextAttempt::InFlight {
        return Err(NotNow::InFlight);
    }
    let generation = status.token.map_or(0, |token| token.generation());
    let (reply, answer) = oneshot::channel();
    let sent = engine.send(Order::Renew { generation, reply });
    sent.map_err(|_gone| NotNow::Stopped)?;
    answer.await.unwrap_or(Err(NotNow::Stopped))?;
    Ok(generation)
}

/// The engine of one client.
#[derive(Debug)]
pub struct TokenService<J, O> {
    parts: Parts<J, O>,
    renewal: Renewal,
    slot: Arc<TokenSlot>,
    lease: Option<Box<dyn Lease>>,
    repeats: Repeats,
}

impl<J: Jitter, O: Fn(Duration, Result<(), Outcome>) + Send + 'static> TokenService<J, O> {
    /// Returns an engine, and the slot that will hold its token.
    pub fn new(parts: Parts<J, O>) -> (TokenService<J, O>, Arc<TokenSlot>) {
        let now = parts.clock.now();
        let Settings {
            schedule,
            client_id,
            ..
        } = &parts.settings;
        let renewal = Renewal::new(*schedule, client_id.clone(), now);
        let slot = Arc::new(TokenSlot::empty(now, Budget::full(schedule.pool)));
        let service = TokenService {
            parts,
            renewal,
            slot: Arc::clone(&slot),
            lease: None,
            repeats: Repeats::default(),
        };
        (service, slot)
    }

    /// Runs until the last sender of `orders` is dropped. No failure of the endpoint or the store
    /// ends it, not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut event = Event::Started(self.parts.initial.take());
        loop {
            let now = self.parts.clock.now();
            let seen = Context {
                now,
                wall: self.parts.clock.wall(),
                jitter: self.parts.jitter.next(),
                membership: self.parts.settings.store.membership(),
                rejections: self.slot.rejections(),
            };
            let action = self.renewal.on(event, &seen);
            if !self.renewal.holds_lease() {
                self.lease = None;
            }
            let status = self.renewal.status(now);
            self.report(&status, now);
            self.slot.publish(status);
            let (settings, clock) = (&self.parts.settings, &*self.parts.clock);
            event = match action {
                Action::Read => {
                    let read = settings.store.read();
                    Event::Read(
                        settings
                            .count(clock, Operation::Read, read, |_| false)
                            .await,
                    )
                }
                Action::Lease => {
                    let lease = settings.store.lease(settings.schedule.pool.refill);
                    let lease = settings.count(clock, Operation::Lease, lease, Option::is_none);
                    Event::Leased(lease.await.map(|lease| {
                        self.lease = lease;
                        self.lease.is_some()
                    }))
                }
                Action::Publish(record) => Event::Published(match &mut self.lease {
                    Some(lease) => {
                        let published = lease.publish(&record);
                        let published =
                            settings.count(clock, Operation::Publish, published, |()| false);
                        published.await
                    }
                    None => Err(StoreError::Conflict("the lease is gone".to_owned())),
                }),
                Action::Ask => Event::Answered(ask(Arc::clone(&settings.endpoint)).await),
                Action::WaitUntil(at) => self.wait(at, &mut orders).await,
                Action::Leave => {
                    // if it takes too long, this process's place expires
                    let leaving = settings.store.leave();
                    let _ = tokio::time::timeout(settings.patience(), leaving).await;
                    return;
                }
            };
        }
    }

    /// Waits for an event.
    async fn wait(&mut self, at: Instant, orders: &mut mpsc::UnboundedReceiver<Order>) -> Event {
        let due = self.parts.clock.sleep_until(at);
        tokio::select! {
            () = due => Event::Time,
            () = self.slot.verdict_changed() => Event::Time,
            () = self.parts.settings.store.changed() => Event::Changed,
            order = orders.recv() => match order {
                Some(Order::Configure(settings, change)) => {
                    self.parts.settings = settings;
                    let Settings { schedule, client_id, .. } = &self.parts.settings;
                    Event::Configured(*schedule, client_id.clone(), change)
                }
                Some(Order::Renew { generation, reply }) => {
                    let now = self.parts.clock.now();
                    let _ = reply.send(self.renewal.renew_now(generation, now));
                    Event::Time
                }
                None => Event::Stopped,
            },
        }
    }

    /// Logs the machine's notes and counts token requests.
    fn report(&mut self, status: &Status, now: Instant) {
        for note in self.renewal.notes() {
            let observer = &self.parts.observer;
            let failed = status.failure.as_ref().map(|failure| failure.error.outcome);
            let (mut repeated, mut over) = (None, None);
            match (&note, failed) {
                (Note::Received { took }, _) => {
                    observer(*took, Ok(()));
                    over = self.repeats.over(now);
                }
                (Note::Failed { took, .. }, Some(outcome)) => {
                    observer(*took, Err(outcome));
                    repeated = self.repeats.failed(outcome, now);
                }
                (Note::Adopted, _) => over = self.repeats.over(now),
                _ => {}
            }
            let client = &*self.parts.client;
            if let Some((failures, lasted)) = over {
                let lasted_seconds = lasted.as_secs();
                info!(
                    client,
                    failures, lasted_seconds, "token requests succeed again"
                );
            }
            let next = self.renewal.schedule().next_chance(now).since(now);
            log(client, &note, status, now, next, repeated);
        }
    }
}

impl Settings {
    /// Returns the result of a store's `call`, or an error if it takes too long, and counts it. If
    /// its result `is_held`, another process holds the lease.
    async fn count<T>(
        &self,
        clock: &dyn Clock,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        is_held: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        let begun = clock.now();
        let ended = tokio::time::timeout(self.patience(), call).await;
        let outcome = match &ended {
            Ok(Ok(done)) if !is_held(done) => StoreOutcome::Ok,
            Ok(Ok(_) | Err(StoreError::Conflict(_))) => StoreOutcome::Held,
            Ok(Err(StoreError::Unavailable(_))) => StoreOutcome::Error,
            Err(_elapsed) => StoreOutcome::Timeout,
        };
        let took = clock.now().since(begun);
        self.store_metrics.operation(operation, outcome, took);
        ended.unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".to_owned())))
    }

    /// The timeout of a store operation: 1/12 of the refill interval, 5 s at one a minute. A faster
    /// pool does not make a store faster, hence the minimum.
    fn patience(&self) -> Duration {
        (self.schedule.pool.refill / 12).max(SHORTEST_PATIENCE)
    }
}

/// Writes a note to the log; the `next` request is due after that. A failed request is logged if it
/// is `repeated`: the number of failures since the last line about them.
fn log(
    client: &str,
    note: &Note,
    status: &Status,
    now: Instant,
    next: Duration,
    repeated: Option<u32>,
) {
    let token = status.token.as_deref();
    let generation = token.map_or(0, Token::generation);
    let left = token.map_or(Duration::ZERO, |token| token.usable_until().since(now));
    let next_in_seconds = tenths(next.as_secs_f64());
    let pool_available = tenths(status.pool.available(now));
    match note {
        Note::Received { took } => info!(
            client,
            generation,
            lifetime_seconds = token.map_or(0, |token| token.lifetime().as_secs()),
            took_milliseconds = millis(*took),
            next_in_seconds,
            pool_available,
            "token received"
        ),
        Note::Failed { cause, .. } => {
            if let (Some(count), Some(failure)) = (repeated, &status.failure) {
                warn!(
                    client,
                    outcome = failure.error.outcome.label(),
                    count,
                    in_a_row = failure.in_a_row,
                    next_in_seconds,
                    token_seconds_left = left.as_secs(),
                    "token request failed: {}",
                    failure.error
                );
            }
            match cause {
                Some(RateLimitCause::PoolContended) => warn!(
                    client,
                    "the token pool is empty although this proxy stayed within its limit: other programs or proxies use this client too; point the programs at this proxy or give them their own client, and let the proxies share a store"
                ),
                Some(RateLimitCause::RefusalsCharged) => warn!(
                    client,
                    "refused token requests seem to use up the pool too; they are charged from now on"
                ),
                None => {}
            }
        }
        Note::Adopted => info!(
            client,
            generation,
            seconds_left = left.as_secs(),
            next_in_seconds,
            pool_available,
            "token adopted from the store"
        ),
        Note::NotStored(why) => info!(client, "token and pool not stored: {why}"),
        Note::Rejected => warn!(
            client,
            generation, next_in_seconds, "the API answered 401 to the current token"
        ),
        Note::Revoked => warn!(
            client,
            generation,
            "the API rejects the current token for all callers; requests wait for the next token"
        ),
        Note::Store(StoreState::Unavailable(problem)) => warn!(
            client,
            "the store is unavailable, continuing without it: {problem}"
        ),
        Note::Store(StoreState::Unwritable(problem)) => warn!(
            client,
            "the store can be read but not written, continuing without it: {problem}"
        ),
        Note::Store(StoreState::Usable) => info!(client, "the store is available again"),
    }
}

/// Requests one token in a task of its own, so that a panic counts as a failure.
async fn ask(endpoint: Arc<dyn TokenEndpoint>) -> Result<Grant, RequestError> {
    let asking = tokio::spawn(async move { endpoint.request_token().await });
    asking.await.unwrap_or_else(|_panic| {
        Err(RequestError {
            outcome: Outcome::ConnectionLost,
            retry_after: None,
            message: "the token request failed with an internal error; please report it".to_owned(),
        })
    })
}

/// As finely as anybody reads it.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
