//! A client, as the data path needs it: its token, its instance, its own credentials.

use std::sync::Arc;
use std::time::Duration;

use crate::client_id::ClientId;
use crate::local_token;
use crate::secret::Secret;
use crate::telemetry::ClientMetrics;
use crate::token::cache::TokenSlot;
use crate::token::service::Control;
use crate::upstream::Upstream;

/// A client, as a request needs it.
#[derive(Debug)]
pub struct Client {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// Its token.
    pub slot: Arc<TokenSlot>,
    /// How long a request waits for a token.
    pub wait_for_token: Duration,
    /// The connections to its instance.
    pub upstream: Arc<Upstream>,
    /// Its own credentials, which identify a caller as the client's owner.
    pub own: Credentials,
    /// Its metrics.
    pub metrics: Arc<ClientMetrics>,
    /// Keeps its engine running as long as a request may need it.
    pub engine: Control,
}

/// A client's own credentials.
#[derive(Debug)]
pub struct Credentials {
    /// Its id.
    pub id: ClientId,
    /// Its secret.
    pub secret: Secret,
    /// The key that signs local tokens for callers with these credentials.
    pub signing: local_token::Key,
}

impl Credentials {
    /// Returns the credentials `id` and `secret`.
    #[must_use]
    pub fn new(id: ClientId, secret: Secret) -> Credentials {
        let signing = local_token::Key::of(&secret);
        Credentials {
            id,
            secret,
            signing,
        }
    }
}
