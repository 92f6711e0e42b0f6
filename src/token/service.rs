//! The loop of one client: carries out the actions of its [`Renewal`], reports what came of them,
//! and publishes the machine's state to the requests. It decides nothing.

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
use crate::token::cache::{Next, TokenCell};
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, TokenEndpoint, TokenStore,
};
use crate::token::renewal::{Action, Event, Note, Renewal, Seen, StoreState};
use crate::token::schedule::{self, Surprise};
use repeats::{Over, Repeats};

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
    /// What the process before this one has left, where the store may have nothing of it.
    pub initial: Option<Record>,
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

/// What an engine is told from outside.
#[derive(Debug)]
pub enum Order {
    /// Go on with the changed configuration of the client.
    Configure(Orders),
    /// Request a new token now, if that is allowed.
    Renew {
        /// The generation of the token to be replaced; 0: none.
        generation: u64,
        /// Gets the answer.
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
    /// Its result comes next.
    #[error("a token request is already in flight; wait for its result")]
    InFlight,
    /// The mirrored pool is empty, or the issuer wants no request yet.
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

/// Where orders for an engine go in. The engine runs until the last of its senders is dropped.
pub type Control = mpsc::UnboundedSender<Order>;

/// Has the engine behind `engine` and `cell` request a new token at once. The token in hand serves
/// until the new one is there. Returns the generation of the token in hand; 0: none.
///
/// # Errors
/// [`NotNow`] if it does not; nothing has changed then.
pub async fn renew_now(engine: &Control, cell: &TokenCell) -> Result<u64, NotNow> {
    let status = cell.status();
    if status.next == Next::Answer {
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
    cell: Arc<TokenCell>,
    lease: Option<Box<dyn Lease>>,
    repeats: Repeats,
}

impl<J: Jitter, O: Observer> TokenService<J, O> {
    /// An engine, and the cell in which its token will be found.
    pub fn new(parts: Parts<J, O>) -> (TokenService<J, O>, Arc<TokenCell>) {
        let now = parts.clock.now();
        let renewal = Renewal::new(parts.config, parts.client_id.clone(), now);
        let cell = Arc::new(TokenCell::empty(now, Budget::full(parts.config.pool)));
        let service = TokenService {
            parts,
            renewal,
            cell: Arc::clone(&cell),
            lease: None,
            repeats: Repeats::default(),
        };
        (service, cell)
    }

    /// Runs until the last sender of `orders` is dropped. Nothing that the endpoint or the store
    /// does ends it, not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut event = Event::Started(self.parts.initial.take());
        loop {
            let was_quiet = matches!(event, Event::Time);
            let now = self.parts.clock.now();
            let seen = Seen {
                now,
                wall: self.parts.clock.wall(),
                jitter: self.parts.jitter.next(),
                rank: self.parts.store.rank(),
                refusals: self.cell.refusals(),
            };
            let action = self.renewal.on(event, &seen);
            if !self.renewal.holds_lease() {
                self.lease = None;
            }
            self.tell(now);
            let is_quiet = was_quiet && matches!(action, Action::WaitUntil(_));
            if !is_quiet || self.renewal.is_outranked(now) {
                // there is always one to tell those who ask when to come again
                self.cell.publish(self.renewal.status(now));
            }
            event = match action {
                Action::WaitUntil(at) => self.wait(at, &mut orders).await,
                Action::Leave => {
                    let leaving = self.parts.store.leave();
                    // if it is not done by then, this process's place expires
                    let _ = tokio::time::timeout(self.patience(), leaving).await;
                    return;
                }
                action => self.carry_out(action).await,
            };
        }
    }

    /// Does what ends by itself.
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
                None => Err(StoreError::Overtaken("there is no lease".to_owned())),
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
            () = self.cell.judged() => Event::Judged,
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

    /// Goes on by other orders. The token in hand is good until its end, whoever asked for it.
    fn follow(&mut self, orders: Orders) -> Event {
        self.parts.config = orders.config;
        self.parts.client_id.clone_from(&orders.client_id);
        self.parts.endpoint = orders.endpoint;
        self.parts.store = orders.store;
        Event::Configured(orders.config, orders.client_id, orders.change)
    }

    /// Tells people and metrics what they are to know.
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
                Note::TakenOver { .. } => over = self.repeats.over(now),
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

    /// How long the store may take: a twelfth of the refill interval, 5 s of a minute. A store is
    /// no faster where the pool is.
    fn patience(&self) -> Duration {
        (self.parts.config.pool.refill / 12).max(SHORTEST_PATIENCE)
    }
}

/// What operators read of it. A failed request is logged if it is `repeated`: so many times since
/// the last line about it.
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
            surprise,
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
            match surprise {
                Some(Surprise::OthersDrink) => warn!(
                    client,
                    "the token pool is empty although this proxy took no more than it may: other programs use this client too, or another replica does; point them at this proxy or give them a client of their own"
                ),
                Some(Surprise::RefusalsCount) => warn!(
                    client,
                    "refused token requests seem to use up the pool as well; they are counted from now on"
                ),
                None => {}
            }
        }
        Note::TakenOver { token, left, ahead } => info!(
            client,
            generation = token.generation(),
            seconds_left = left.as_secs(),
            next_in_seconds = tenths(ahead.next.as_secs_f64()),
            pool_available = tenths(ahead.pool),
            "token taken over from the store"
        ),
        Note::NotStored(why) => info!(client, "what is in hand is not stored: {why}"),
        Note::Refused { generation, next } => warn!(
            client,
            generation,
            next_in_seconds = tenths(next.as_secs_f64()),
            "the API answered 401 to the token in hand"
        ),
        Note::Dead { generation } => warn!(
            client,
            generation,
            "the API refuses the token in hand to all callers; calls wait for the next token"
        ),
        Note::Store(StoreState::Away(problem)) => warn!(
            client,
            "the store cannot be used, going on without it: {problem}"
        ),
        Note::Store(StoreState::Unwritable(problem)) => warn!(
            client,
            "the store can be read but not written, going on without it: {problem}"
        ),
        Note::Store(StoreState::Usable) => info!(client, "the store can be used again"),
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

/// As finely as anybody reads it.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
