//! The loop of one client: carries out the actions of its [`Renewal`], reports their results, and
//! publishes the state to requests. It decides nothing.

mod repeats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::random::Jitter;
use crate::telemetry::Label;
use crate::token::budget::Budget;
use crate::token::cache::{NextAttempt, TokenSlot};
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, TokenEndpoint, TokenStore,
};
use crate::token::renewal::{Action, Context, Event, Note, Renewal, StoreState};
use crate::token::schedule::{self, RateLimitCause};
use repeats::{Over, Repeats};

/// The shortest timeout of a store operation.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// Receives the result of every token request, for metrics.
pub trait Observer: Send + 'static {
    /// A token request ended after `duration`, with a token or a failure.
    fn token_request(&self, duration: Duration, outcome: Result<(), Outcome>);
}

/// What an engine needs.
#[derive(Debug)]
pub struct Parts<J, O> {
    /// The client's name in the configuration.
    pub client: Arc<str>,
    /// The client's id at the issuer.
    pub client_id: ClientId,
    /// When the token is renewed.
    pub config: schedule::Config,
    /// The issuer.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// The store.
    pub store: Arc<dyn TokenStore>,
    /// The predecessor's state, for when the store has none.
    pub initial: Option<Record>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Spreads delays.
    pub jitter: J,
    /// Counts token requests.
    pub observer: O,
}

/// New settings of a running engine, after its client's configuration changed.
#[derive(Debug)]
pub struct Orders {
    /// When tokens are renewed, from the next one on.
    pub config: schedule::Config,
    /// The client's id at the issuer.
    pub client_id: ClientId,
    /// The issuer.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// The store.
    pub store: Arc<dyn TokenStore>,
    /// What changed about the client.
    pub change: Change,
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
    /// Apply the client's changed configuration.
    Configure(Orders),
    /// Request a new token now, if that is allowed.
    Renew {
        /// The generation of the token to be replaced; 0: none.
        generation: u64,
        /// Receives the result.
        reply: oneshot::Sender<Result<(), NotNow>>,
    },
}

impl From<Orders> for Order {
    fn from(orders: Orders) -> Order {
        Order::Configure(orders)
    }
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

/// Sends [`Orders`] to an engine, which runs until its last sender is dropped.
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

impl<J: Jitter, O: Observer> TokenService<J, O> {
    /// Returns an engine, and the slot that will hold its token.
    pub fn new(parts: Parts<J, O>) -> (TokenService<J, O>, Arc<TokenSlot>) {
        let now = parts.clock.now();
        let renewal = Renewal::new(parts.config, parts.client_id.clone(), now);
        let slot = Arc::new(TokenSlot::empty(now, Budget::full(parts.config.pool)));
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
            let was_quiet = matches!(event, Event::Time);
            let now = self.parts.clock.now();
            let seen = Context {
                now,
                wall: self.parts.clock.wall(),
                jitter: self.parts.jitter.next(),
                membership: self.parts.store.membership(),
                rejections: self.slot.rejections(),
            };
            let action = self.renewal.on(event, &seen);
            if !self.renewal.holds_lease() {
                self.lease = None;
            }
            self.tell(now);
            let is_quiet = was_quiet && matches!(action, Action::WaitUntil(_));
            if !is_quiet || self.renewal.awaits_peers(now) {
                // if this replica makes no requests, the time to retry moves on; publish it
                self.slot.publish(self.renewal.status(now));
            }
            event = match action {
                Action::WaitUntil(at) => self.wait(at, &mut orders).await,
                Action::Leave => {
                    let leaving = self.parts.store.leave();
                    // if it takes too long, this process's place expires
                    let _ = tokio::time::timeout(self.patience(), leaving).await;
                    return;
                }
                action => self.carry_out(action).await,
            };
        }
    }

    /// Carries out an action that ends by itself.
    async fn carry_out(&mut self, action: Action) -> Event {
        let patience = self.patience();
        match action {
            Action::Read => Event::Read(in_time(patience, self.parts.store.read()).await),
            Action::Lease => {
                let length = self.parts.config.pool.refill;
                let lease = in_time(patience, self.parts.store.lease(length)).await;
                Event::Leased(lease.map(|lease| {
                    self.lease = lease;
                    self.lease.is_some()
                }))
            }
            Action::Publish(record) => Event::Published(match &mut self.lease {
                Some(lease) => in_time(patience, lease.publish(&record)).await,
                None => Err(StoreError::Conflict("the lease is gone".to_owned())),
            }),
            Action::Ask => Event::Answered(ask(Arc::clone(&self.parts.endpoint)).await),
            Action::WaitUntil(_) | Action::Leave => Event::Time,
        }
    }

    /// Waits for an event.
    async fn wait(&mut self, at: Instant, orders: &mut mpsc::UnboundedReceiver<Order>) -> Event {
        let due = self.parts.clock.sleep_until(at);
        tokio::select! {
            () = due => Event::Time,
            () = self.slot.verdict_changed() => Event::VerdictChanged,
            () = self.parts.store.changed() => Event::Changed,
            order = orders.recv() => match order {
                Some(Order::Configure(orders)) => self.follow(orders),
                Some(Order::Renew { generation, reply }) => {
                    let now = self.parts.clock.now();
                    let _ = reply.send(self.renewal.renew_now(generation, now));
                    Event::Time
                }
                None => Event::Stopped,
            },
        }
    }

    /// Applies new settings. The current token stays valid until it expires, whoever requested it.
    fn follow(&mut self, orders: Orders) -> Event {
        self.parts.config = orders.config;
        self.parts.client_id.clone_from(&orders.client_id);
        self.parts.endpoint = orders.endpoint;
        self.parts.store = orders.store;
        Event::Configured(orders.config, orders.client_id, orders.change)
    }

    /// Logs the machine's notes and counts token requests.
    fn tell(&mut self, now: Instant) {
        for note in self.renewal.notes() {
            let observer = &self.parts.observer;
            let mut repeated = None;
            let mut over = None;
            match &note {
                Note::Received { took, .. } => {
                    observer.token_request(*took, Ok(()));
                    over = self.repeats.over(now);
                }
                Note::Failed { took, error, .. } => {
                    observer.token_request(*took, Err(error.outcome));
                    repeated = self.repeats.failed(error.outcome, now);
                }
                Note::Adopted { .. } => over = self.repeats.over(now),
                _ => {}
            }
            let client = &*self.parts.client;
            if let Some(Over { failures, lasted }) = over {
                let lasted_seconds = lasted.as_secs();
                info!(
                    client,
                    failures, lasted_seconds, "token requests succeed again"
                );
            }
            log(client, &note, repeated);
        }
    }

    /// The timeout of a store operation: 1/12 of the refill interval, 5 s at one a minute. A faster
    /// pool does not make a store faster, hence the minimum.
    fn patience(&self) -> Duration {
        (self.parts.config.pool.refill / 12).max(SHORTEST_PATIENCE)
    }
}

/// Writes a note to the log. A failed request is logged if it is `repeated`: the number of failures
/// since the last line about them.
fn log(client: &str, note: &Note, repeated: Option<u32>) {
    match note {
        Note::Received { token, took, ahead } => info!(
            client,
            generation = token.generation(),
            lifetime_seconds = token.expires().since(token.issued()).as_secs(),
            took_milliseconds = millis(*took),
            next_in_seconds = tenths(ahead.next.as_secs_f64()),
            pool_available = tenths(ahead.pool),
            "token received"
        ),
        Note::Failed {
            error,
            in_a_row,
            next,
            left,
            cause,
            ..
        } => {
            if let Some(count) = repeated {
                warn!(
                    client,
                    outcome = error.outcome.label(),
                    count,
                    in_a_row,
                    next_in_seconds = tenths(next.as_secs_f64()),
                    token_seconds_left = left.as_secs(),
                    "token request failed: {error}"
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
        Note::Adopted { token, left, ahead } => info!(
            client,
            generation = token.generation(),
            seconds_left = left.as_secs(),
            next_in_seconds = tenths(ahead.next.as_secs_f64()),
            pool_available = tenths(ahead.pool),
            "token adopted from the store"
        ),
        Note::NotStored(why) => info!(client, "token and pool not stored: {why}"),
        Note::Rejected { generation, next } => warn!(
            client,
            generation,
            next_in_seconds = tenths(next.as_secs_f64()),
            "the API answered 401 to the current token"
        ),
        Note::Revoked { generation } => warn!(
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

/// Returns the store's answer, or an error after `patience`.
async fn in_time<T>(
    patience: Duration,
    says: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(patience, says)
        .await
        .unwrap_or_else(|_elapsed| Err(StoreError::Unavailable("it does not answer".to_owned())))
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
