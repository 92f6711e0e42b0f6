//! The engine's interfaces to the outside and their results: the issuer ([`TokenEndpoint`]), and
//! the store that lets a token outlive the process ([`TokenStore`]).

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::secret::Secret;
use crate::telemetry::labels;

/// An access token as issued (RFC 6749, section 5.1).
#[derive(Clone, Debug)]
pub struct Grant {
    /// `access_token`.
    pub access_token: Secret,
    /// `expires_in`: the lifetime, counted from the moment the request was sent; above zero.
    pub expires_in: Duration,
}

/// The issuer of tokens. One call is one request on the wire. An implementation must not retry: the
/// engine has to charge every attempt to the pool.
#[async_trait]
pub trait TokenEndpoint: fmt::Debug + Send + Sync + 'static {
    /// Requests one token (RFC 6749, section 4.4.2).
    ///
    /// # Errors
    /// [`RequestError`] says why it failed and when the issuer accepts the next request. An
    /// implementation enforces its own timeout.
    async fn request_token(&self) -> Result<Grant, RequestError>;
}

/// A failed token request. The message is for operators and contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The kind of failure.
    pub outcome: Outcome,
    /// `Retry-After`, if the response had one (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// What failed, on what, and what to do, in one sentence.
    pub message: String,
}

labels! {
    /// How a token request failed. The names are the values of the metrics' label `outcome`.
    pub enum Outcome {
        /// 429: the pool is empty.
        RateLimited = "rate_limited",
        /// The issuer does not accept the client's id and secret.
        InvalidClient = "invalid_client",
        /// The issuer refuses the request itself: a 4xx status other than 401, 408, 425 and 429.
        InvalidRequest = "invalid_request",
        /// No response within the timeout.
        Timeout = "timeout",
        /// The issuer was not reached (name resolution, connection, TLS) and saw no request.
        Connect = "connect",
        /// The connection broke after the request was sent.
        ConnectionLost = "connection_lost",
        /// The issuer, or a gateway before it, failed or redirected: 408, 425, 5xx and 3xx.
        ServerError = "server_error",
        /// A success response without a usable token.
        Malformed = "malformed",
        /// The request came back to the proxy, or to another of its fleet.
        Loop = "loop",
    }
}

/// What a failed request may have cost at the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: the request never arrived.
    None,
    /// Nothing, provided that refusals are free. Collibra does not document it.
    Refused,
    /// Possibly a token, so charge it to the pool.
    Possible,
    /// The pool is empty, whatever the mirror says.
    PoolEmpty,
}

impl Outcome {
    /// Returns whether a retry cannot help until someone fixes the credentials or the
    /// configuration.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Outcome::InvalidClient | Outcome::InvalidRequest | Outcome::Loop
        )
    }

    /// What the request may have cost.
    #[must_use]
    pub fn cost(self) -> Cost {
        match self {
            Outcome::RateLimited => Cost::PoolEmpty,
            Outcome::Connect | Outcome::Loop => Cost::None,
            Outcome::InvalidClient | Outcome::InvalidRequest | Outcome::ServerError => {
                Cost::Refused
            }
            Outcome::Timeout | Outcome::ConnectionLost | Outcome::Malformed => Cost::Possible,
        }
    }
}

/// A client's stored state, shared by restarts and replicas. Times are wall-clock times: no other
/// clock is shared.
#[derive(Clone, Debug)]
pub struct Record {
    /// The number of the client's latest token; 0 if there never was one.
    pub generation: u64,
    /// The newest token that this process can decrypt. It is older than `generation` if that
    /// generation's token was sealed with another secret.
    pub token: Option<StoredToken>,
    /// The mirrored pool.
    pub pool: StoredPool,
}

/// A stored token.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// The token's own generation; at most the record's.
    pub generation: u64,
    /// The access token.
    pub access_token: Secret,
    /// When it was requested.
    pub asked: SystemTime,
    /// Its lifetime from then.
    pub lifetime: Duration,
}

/// The mirrored pool as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPool {
    /// When the pool will be full if nothing more is taken.
    pub full_at: SystemTime,
    /// No request before this.
    pub not_before: SystemTime,
}

/// Where a client's token and pool are stored, and which replica may request the next token. All
/// processes that share a client share its store: those of one host, or the replicas of a fleet.
///
/// A store failure is no reason to be without a token: the engine continues with its current one.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// Reads the stored record; `None` if there is none or it cannot be decoded.
    ///
    /// # Errors
    /// [`StoreError`] if the store is unavailable.
    async fn read(&self) -> Result<Option<Record>, StoreError>;

    /// Acquires the lease, the exclusive right to request a token, for at most `length`. Returns
    /// `None` if another process holds it.
    ///
    /// # Errors
    /// As [`TokenStore::read`].
    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError>;

    /// Returns once the stored record may have changed since the last read, or the store's
    /// availability has.
    async fn changed(&self);

    /// Leaves the fleet: another process may take this one's place on standby. It returns within a
    /// bounded time. If it fails, the place expires.
    async fn leave(&self) {}

    /// The process's position in the fleet, as last reported by the store. While the store is
    /// unavailable, it decides which replicas may still request tokens.
    fn membership(&self) -> Membership {
        Membership::Single
    }
}

/// A process's position among those that share a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The only process, or one of a few on one host, which need no coordination.
    Single,
    /// One replica of a fleet.
    Member {
        /// How many replicas joined earlier.
        before: u32,
        /// How many replicas there are, this one included.
        all: u32,
    },
    /// The size of the fleet is unknown because the store was never reached.
    Unknown,
}

/// A held lease. Dropping it releases it.
#[async_trait]
pub trait Lease: fmt::Debug + Send + Sync {
    /// Replaces the stored record. A lower generation never replaces a higher one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the record cannot be written, [`StoreError::Conflict`] if the
    /// lease was lost or a higher generation is stored.
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError>;
}

/// A failed store operation. The message is for operators and contains no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or used now.
    #[error("{0}")]
    Unavailable(String),
    /// The store works, but another process took the lease or stored a newer token.
    #[error("{0}")]
    Conflict(String),
}
