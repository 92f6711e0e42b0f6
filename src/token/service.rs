//! The loop of one client: carries out the actions of its [`Renewal`], reports their results, and
//! publishes the state to requests. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::client_id::ClientId;
use crate::clock::{Clock, Instant};
use crate::random::Jitter;
use crate::telemetry::Label;
use crate::token::budget::Budget;
use crate::token::cache::TokenSlot;
use crate::token::ports::{
    Grant, Lease, Outcome, Record, RequestError, StoreError, TokenEndpoint, TokenStore,
};
use crate::token::renewal::{Action, Context, Event, Note, Renewal, StoreState};
use crate::token::schedule::{self, RateLimitCause};

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

/// Sends [`Orders`] to an engine, which runs until its last sender is dropped.
pub type Control = mpsc::UnboundedSender<Orders>;

/// The engine of one client.
#[derive(Debug)]
pub struct TokenService<J, O> {
    parts: Parts<J, O>,
    renewal: Renewal,
    slot: Arc<TokenSlot>,
    lease: Option<Box<dyn Lease>>,
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
        };
        (service, slot)
    }

    /// Runs until the last sender of `orders` is dropped. No failure of the endpoint or the store
    /// ends it, not even a panic.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Orders>) {
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
            self.tell();
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
    async fn wait(&mut self, at: Instant, orders: &mut mpsc::UnboundedReceiver<Orders>) -> Event {
        let due = self.parts.clock.sleep_until(at);
        tokio::select! {
            () = due => Event::Time,
            () = self.slot.verdict_changed() => Event::VerdictChanged,
            () = self.parts.store.changed() => Event::Changed,
            order = orders.recv() => match order {
                Some(order) => self.follow(order),
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

    /// The timeout of a store operation: 1/12 of the refill interval, 5 s at one a minute. A faster
    /// pool does not make a store faster, hence the minimum.
    fn patience(&self) -> Duration {
        (self.parts.config.pool.refill / 12).max(SHORTEST_PATIENCE)
    }
}

/// Writes a note to the log.
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
            cause,
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
        Note::Adopted { token, left } => info!(
            client,
            generation = token.generation(),
            seconds_left = left.as_secs(),
            "token adopted from the store"
        ),
        Note::NotStored(why) => info!(client, "token and pool not stored: {why}"),
        Note::Rejected { generation, next } => warn!(
            client,
            generation,
            next_in_seconds = next.as_secs_f64(),
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
