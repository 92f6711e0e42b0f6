//! A client's token, for commands that call Collibra themselves.

use std::sync::Arc;

use crate::clock::{Clock, Instant, SystemClock};
use crate::oauth::Config;
use crate::oauth::client::{BuildError, TokenClient};
use crate::secret::Secret;
use crate::token::ports::{RequestError, TokenEndpoint};

/// A token with less than this share of its lifetime left is replaced.
const SHARE_KEPT: f64 = 0.2;

/// The token of one client, requested on demand.
#[derive(Debug)]
pub(super) struct OwnToken {
    endpoint: TokenClient,
    /// The current token, and until when it is used.
    held: Option<(Secret, Instant)>,
}

impl OwnToken {
    /// Returns the token of the client of `config`. Requests none yet.
    ///
    /// # Errors
    /// If the token endpoint is unusable.
    pub(super) fn of(config: &Config) -> Result<OwnToken, BuildError> {
        let endpoint = TokenClient::new(config, None, Arc::new(SystemClock))?;
        let held = None;
        Ok(OwnToken { endpoint, held })
    }

    /// Returns the current token, or requests one.
    ///
    /// # Errors
    /// If the request fails.
    pub(super) async fn get(&mut self) -> Result<Secret, RequestError> {
        let now = SystemClock.now();
        if let Some((token, until)) = &self.held
            && now < *until
        {
            return Ok(token.clone());
        }
        let grant = self.endpoint.request_token().await?;
        let until = now + grant.expires_in.mul_f64(1.0 - SHARE_KEPT);
        self.held = Some((grant.access_token.clone(), until));
        Ok(grant.access_token)
    }
}
