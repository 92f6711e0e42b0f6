//! What the engine needs from outside, and the words in which it is told how that went: whoever
//! issues tokens ([`TokenEndpoint`]), and a place where a token outlives the process
//! ([`TokenStore`]).

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::secret::Secret;
use crate::telemetry::Label;

/// An access token as the issuer gave it (RFC 6749, section 5.1).
#[derive(Clone, Debug)]
pub struct Grant {
    /// `access_token`.
    pub access_token: Secret,
    /// `expires_in`: its life, counted from the moment the request was sent; above zero.
    pub expires_in: Duration,
}

/// Whoever issues tokens. One call is one request on the wire: an implementation never retries,
/// for the engine must see, and book, every attempt.
#[async_trait]
pub trait TokenEndpoint: fmt::Debug + Send + Sync + 'static {
    /// Asks once for a token (RFC 6749, section 4.4.2).
    ///
    /// # Errors
    /// [`RequestError`] says how it failed and when the issuer wants to be asked again. An
    /// implementation ends within a bound of its own.
    async fn request_token(&self) -> Result<Grant, RequestError>;
}

/// A token request that brought no token. Its message is for people and holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// What kind of failure it was.
    pub outcome: Outcome,
    /// `Retry-After`, if the answer had one (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// What failed, on what, and what to do, in a sentence.
    pub message: String,
}

/// The kinds of failure of a token request; their names are the values of the metrics' label
/// `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 429: the pool is empty.
    RateLimited,
    /// The issuer does not accept the client's id and secret.
    InvalidClient,
    /// The issuer refuses the request as it stands: other than 401, 408, 425 and 429, a status of
    /// the 400 class.
    InvalidRequest,
    /// No answer in time.
    Timeout,
    /// The issuer was not reached: name resolution, connection, TLS. It saw no request.
    Connect,
    /// The connection broke after the request was sent.
    ConnectionLost,
    /// The issuer, or what stands before it, failed or points elsewhere: 408, 425, and the
    /// classes of 500 and 300.
    ServerError,
    /// A success that holds no usable token.
    Malformed,
    /// The request came back to the proxy, or to another of its fleet.
    Loop,
}

/// What a failed request may have cost at the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Nothing: it never arrived.
    Nothing,
    /// Nothing, if a refusal is free. Collibra does not say.
    Refused,
    /// Perhaps a token: count it.
    Perhaps,
    /// The pool is empty, whatever was thought of it.
    Empty,
}

impl Label for Outcome {
    const ALL: &'static [Outcome] = &[
        Outcome::RateLimited,
        Outcome::InvalidClient,
        Outcome::InvalidRequest,
        Outcome::Timeout,
        Outcome::Connect,
        Outcome::ConnectionLost,
        Outcome::ServerError,
        Outcome::Malformed,
        Outcome::Loop,
    ];

    fn label(self) -> &'static str {
        match self {
            Outcome::RateLimited => "rate_limited",
            Outcome::InvalidClient => "invalid_client",
            Outcome::InvalidRequest => "invalid_request",
            Outcome::Timeout => "timeout",
            Outcome::Connect => "connect",
            Outcome::ConnectionLost => "connection_lost",
            Outcome::ServerError => "server_error",
            Outcome::Malformed => "malformed",
            Outcome::Loop => "loop",
        }
    }
}

impl Outcome {
    /// Whether asking again unchanged cannot help: a person must mend the credentials or the
    /// configuration.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Outcome::InvalidClient | Outcome::InvalidRequest | Outcome::Loop
        )
    }

    /// What it may have cost.
    #[must_use]
    pub fn draw(self) -> Draw {
        match self {
            Outcome::RateLimited => Draw::Empty,
            Outcome::Connect | Outcome::Loop => Draw::Nothing,
            Outcome::InvalidClient | Outcome::InvalidRequest | Outcome::ServerError => {
                Draw::Refused
            }
            Outcome::Timeout | Outcome::ConnectionLost | Outcome::Malformed => Draw::Perhaps,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What is kept of a client where restarts and replicas find it. Times are by the wall clock, for
/// no other is shared.
#[derive(Clone, Debug)]
pub struct Record {
    /// Counts up with every token of the client; 0: there never was one.
    pub generation: u64,
    /// The youngest token that could be opened: that of this generation, or an older one if this
    /// generation's was sealed with another secret. `None` if there is none.
    pub token: Option<StoredToken>,
    /// The mirrored pool.
    pub pool: StoredPool,
}

/// A token as it is kept.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// Which token of the client it is; at most the record's generation.
    pub generation: u64,
    /// The access token.
    pub access_token: Secret,
    /// When it was asked for.
    pub asked: SystemTime,
    /// How long it lives from then.
    pub lifetime: Duration,
}

/// The mirrored pool as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPool {
    /// When it is full, if nothing more is taken.
    pub full_at: SystemTime,
    /// No request before this.
    pub not_before: SystemTime,
}

/// Where a client's token and pool are kept, and who may ask for the next one is settled. All who
/// share a client share its store: the processes of one host, or the replicas of a fleet.
///
/// A store that fails is no reason to have no token: the engine goes on with what it has in hand.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// What is kept; `None` if nothing is, or nothing that can be read.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached or used.
    async fn read(&self) -> Result<Option<Record>, StoreError>;

    /// Takes the right to ask for a token, which one process has at a time, for at most `length`.
    /// `None` if another has it.
    ///
    /// # Errors
    /// As [`TokenStore::read`].
    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError>;

    /// Ends when what is kept may have changed since it was last read, or the store has gone away
    /// or come back since.
    async fn changed(&self);

    /// This process shares the client no longer: its place among those who go on without the store
    /// is free for another. Ends within a bound; what fails is left to expire.
    async fn leave(&self) {}

    /// Which of those who share the client this process is, as far as the store knew when it was
    /// last there. It is asked for when the store is away, to settle who goes on without it.
    fn rank(&self) -> Rank {
        Rank::Alone
    }
}

/// Which of those who share a client a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The only one, or one of the few of one host, which need not make room for each other.
    Alone,
    /// One of a fleet.
    Among {
        /// So many came before it.
        before: u32,
        /// So many there are, this one included.
        all: u32,
    },
    /// One of a fleet of which nothing is known: it has never found the store.
    Unknown,
}

/// The right to ask, held. Dropping it gives it up.
#[async_trait]
pub trait Lease: fmt::Debug + Send + Sync {
    /// Keeps `record` in place of what is kept; a record of a lower generation never replaces one
    /// of a higher.
    ///
    /// # Errors
    /// [`StoreError::Away`] if it cannot be kept, [`StoreError::Overtaken`] if the right was lost
    /// meanwhile or a higher generation is kept.
    async fn publish(&mut self, record: &Record) -> Result<(), StoreError>;
}

/// A store that did not do what it was to. Its message is for people and holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or used now.
    #[error("{0}")]
    Away(String),
    /// It works, but another took the right to ask meanwhile, or has kept a newer token.
    #[error("{0}")]
    Overtaken(String),
}
