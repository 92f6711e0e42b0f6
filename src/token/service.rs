//! The loop of one client: carries out the actions of its [`Renewal`], reports what came of them,
//! and publishes the machine's state to the requests. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::random::Jitter;
use crate::telemetry::Label;
use crate::token::budget::Budget;
use crate::token::cache::TokenCell;
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, TokenEndpoint, TokenStore,
};
use crate::token::renewal::{Action, Event, Note, Renewal, Seen, StoreState};
use crate::token::schedule::{self, Surprise};

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

/// Where orders for an engine go in. The engine runs until the last of its senders is dropped.
pub type Control = mpsc::UnboundedSender<Orders>;

/// The engine of one client.
#[derive(Debug)]
pub struct TokenService<J, O> {
    parts: Parts<J, O>,
    renewal: Renewal,
    cell: Arc<TokenCell>,
    lease: Option<Box<dyn Lease>>,
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
        };
        (service, cell)
    }

    /// Runs until the last sender of `orders` is dropped. Nothing that the endpoint or the store
    /// does ends it, not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Orders>) {
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
            self.tell();
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
    async fn wait(&mut self, at: Instant, orders: &mut mpsc::UnboundedReceiver<Orders>) -> Event {
        let due = self.parts.clock.sleep_until(at);
        tokio::select! {
            () = due => Event::Time,
            () = self.cell.judged() => Event::Judged,
            () = self.parts.store.changed() => Event::Changed,
            order = orders.recv() => match order {
                Some(order) => self.follow(order),
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
    fn tell(&mut self) {
        for note in self.renewal.notes() {
            match &note {
                Note::Received { took, .. } => self.parts.observer.token_request(*took, Ok(())),
                Note::Failed { took, error, .. } => {
                    self.parts.observer.token_request(*took, Err(error.outcome));
                }
                _ => {}
            }
            log(&self.parts.client, &note);
        }
    }

    /// How long the store may take: a twelfth of the refill interval, 5 s of a minute. A store is
    /// no faster where the pool is.
    fn patience(&self) -> Duration {
        (self.parts.config.pool.refill / 12).max(SHORTEST_PATIENCE)
    }
}

/// What operators read of it.
fn log(client: &str, note: &Note) {
    match note {
        Note::Received { token, took } => info!(
            client,
            generation = token.generation(),
            lifetime_seconds = token.expires().since(token.issued()).as_secs(),
            took_milliseconds = millis(*took),
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
            warn!(
                client,
                outcome = error.outcome.label(),
                in_a_row,
                next_in_seconds = next.as_secs_f64(),
                token_seconds_left = left.as_secs(),
                "token request failed: {error}"
            );
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
        Note::TakenOver { token, left } => info!(
            client,
            generation = token.generation(),
            seconds_left = left.as_secs(),
            "token taken over from the store"
        ),
        Note::NotStored(why) => info!(client, "what is in hand is not stored: {why}"),
        Note::Refused { generation, next } => warn!(
            client,
            generation,
            next_in_seconds = next.as_secs_f64(),
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
