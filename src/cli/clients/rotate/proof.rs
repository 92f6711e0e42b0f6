//! Proves that a new client works: it gets a token, and the token opens the API.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, bail};
use http::StatusCode;

use super::files::Credentials;
use crate::cli::own_token::OwnToken;
use crate::cli::polling::poll;
use crate::cli::probe;
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::oauth;
use crate::token::ports::Outcome;
use crate::upstream::Instance;

/// How long a refusal is retried: a new client may not be known everywhere at once. A refusal costs
/// nothing from the pool.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let mut token = OwnToken::of(&config)?;
    let request = async |_| match token.get().await {
        Ok(token) => Ok(ControlFlow::Break(token)),
        Err(error) if error.outcome == Outcome::InvalidClient => {
            Ok(ControlFlow::Continue(error.message))
        }
        Err(error) => Err(error.into()),
    };
    let token = poll(SystemClock.now() + PATIENCE, PAUSE, request).await;
    let token = token.context("the successor cannot get a token")?;
    let call = async |_| {
        let what = "a call with the successor's token";
        let (status, _) = probe::call(instance, path, &token, what).await?;
        if status.is_success() {
            return Ok(ControlFlow::Break(()));
        }
        let refused = format!(
            "{} answered {path} with {} to the successor's token; if a client may not call it, choose another path with --probe",
            instance.authority,
            status.as_u16()
        );
        match status {
            StatusCode::UNAUTHORIZED => Ok(ControlFlow::Continue(refused)),
            _ => bail!(refused),
        }
    };
    poll(SystemClock.now() + PATIENCE, PAUSE, call).await
}
