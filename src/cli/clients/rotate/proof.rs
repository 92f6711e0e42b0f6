//! Proves that a new client works: it gets a token, and the token opens the API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Request, StatusCode};

use super::credentials::Credentials;
use crate::cli::clients::site::TIMEOUT;
use crate::clock::SystemClock;
use crate::config;
use crate::oauth::{self, client::TokenClient};
use crate::outgoing::client::Client;
use crate::outgoing::quotation::Quotation;
use crate::token::ports::{Outcome, TokenEndpoint};
use crate::token::token::Token;
use crate::upstream::Instance;

/// How often a refusal is retried: a new client may not be known everywhere at once. A refusal
/// costs nothing from the pool.
const TRIES: u32 = 5;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Requests a token with `new` as `client` does, and calls `path` with it.
///
/// # Errors
/// Which of the two failed, and how.
pub(super) async fn prove(
    client: &config::Client,
    new: &Credentials,
    instance: &Instance,
    path: &str,
) -> anyhow::Result<()> {
    let config = oauth::Config {
        client_id: new.id.clone(),
        client_secret: new.secret.clone(),
        ..client.oauth.clone()
    };
    let token = token(&config)
        .await
        .context("the successor cannot get a token")?;
    let http = Client::new(&instance.route(), TIMEOUT, None)?;
    let quotation = Quotation::without(vec![token.access_token().to_owned().into()]);
    for left in (0..TRIES).rev() {
        let request = Request::get(path)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, token.authorization().clone())
            .body(Bytes::new())?;
        let what = "a call with the successor's token";
        let sent = http.send(request, 0, what, &quotation).await;
        let status = match sent {
            Ok(answer) => answer.status,
            Err(failure) => bail!(failure.message),
        };
        match status {
            status if status.is_success() => return Ok(()),
            StatusCode::UNAUTHORIZED if left > 0 => tokio::time::sleep(PAUSE).await,
            status => bail!(
                "{} answered {path} with {} to the successor's token; if a client may not call it, choose another path with --probe",
                instance.authority,
                status.as_u16()
            ),
        }
    }
    unreachable!("the last try returns")
}

async fn token(config: &oauth::Config) -> anyhow::Result<Token> {
    let clock = SystemClock;
    let endpoint = TokenClient::new(config, None, Arc::new(clock))?;
    let mut left = TRIES;
    loop {
        left -= 1;
        let asked = crate::clock::Clock::now(&clock);
        match endpoint.request_token().await {
            Ok(grant) => {
                return Ok(Token::new(&grant.access_token, 1, asked, grant.expires_in)?);
            }
            Err(error) if error.outcome == Outcome::InvalidClient && left > 0 => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
