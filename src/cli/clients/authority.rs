//! Who asks: a user, whoever holds a token, or a client of the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::secrets;
use super::site::Site;
use crate::cli::Usage;
use crate::clock::{Clock, Instant, SystemClock};
use crate::config;
use crate::oauth::client::TokenClient;
use crate::registration::Authorization;
use crate::secret::Secret;
use crate::token::ports::TokenEndpoint;

/// A token is asked for anew when it has less than this share of its life left.
const SHARE_KEPT: f64 = 0.2;

/// The options for a user or a token.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Who asks")]
pub(super) struct Caller {
    /// A user who may manage OAuth applications; the password is asked for, unless it is in
    /// --password-file or COLLIBRA_PASSWORD
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    user: Option<String>,

    /// A file that holds the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// A file that holds an access token [or the token itself in env: COLLIBRA_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// All ways to say who asks.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Who asks")]
pub(super) struct Anyone {
    #[command(flatten)]
    caller: Caller,

    /// A client of the configuration: takes one token out of its pool
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "token_file"])]
    pub(super) client: Option<String>,
}

/// Whoever asks, ready to.
#[derive(Debug)]
pub(super) enum Authority {
    /// A user or a token.
    Given(Authorization),
    /// A client, and the token that it holds.
    Client {
        /// Where it gets one.
        endpoint: Box<TokenClient>,
        /// What it holds, and until when that is used.
        held: Option<(Secret, Instant)>,
    },
}

impl Caller {
    /// Whoever was named; `None` if nobody was.
    ///
    /// # Errors
    /// If a password or a token cannot be read.
    pub(super) fn given(&self) -> anyhow::Result<Option<Authority>> {
        let authorization = if let Some(user) = &self.user {
            if user.contains(':') {
                return Err(Usage("a user's name has no colon in it".to_owned()).into());
            }
            Authorization::Basic {
                user: user.clone(),
                password: secrets::password(user, self.password_file.as_deref())?,
            }
        } else if let Some(path) = &self.token_file {
            Authorization::Bearer(secrets::of_file(path)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Authority::Given(authorization)))
    }

    /// Whoever holds the token in the environment; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be a token.
    pub(super) fn of_environment() -> anyhow::Result<Option<Authority>> {
        let token = secrets::variable(secrets::TOKEN)?;
        Ok(token.map(|token| Authority::Given(Authorization::Bearer(token))))
    }
}

impl Anyone {
    /// Whoever was named.
    ///
    /// # Errors
    /// [`Usage`] if nobody was.
    pub(super) fn settle(&self, site: &Site) -> anyhow::Result<Authority> {
        if let Some(name) = &self.client {
            return Authority::client(site.client(name)?);
        }
        let given = match self.caller.given()? {
            Some(given) => Some(given),
            None => Caller::of_environment()?,
        };
        let missing = "say who asks: --user NAME, --token-file FILE (or COLLIBRA_TOKEN), or --client NAME of the configuration";
        Ok(given.ok_or_else(|| Usage(missing.to_owned()))?)
    }
}

impl Authority {
    /// A client of the configuration. Asks for nothing yet.
    ///
    /// # Errors
    /// If its token endpoint cannot be used.
    pub(super) fn client(client: &config::Client) -> anyhow::Result<Authority> {
        Ok(Authority::Client {
            endpoint: Box::new(TokenClient::new(
                &client.oauth,
                None,
                Arc::new(SystemClock),
            )?),
            held: None,
        })
    }

    /// What to show. A client's token is taken when it is needed and kept for as long as it is
    /// good.
    ///
    /// # Errors
    /// If no token comes.
    pub(super) async fn authorization(&mut self) -> anyhow::Result<Authorization> {
        match self {
            Authority::Given(authorization) => Ok(authorization.clone()),
            Authority::Client { endpoint, held } => {
                let now = SystemClock.now();
                if let Some((token, _)) = held.as_ref().filter(|(_, until)| now < *until) {
                    return Ok(Authorization::Bearer(token.clone()));
                }
                let grant = endpoint.request_token().await;
                let grant = grant.context("whoever asks needs a token")?;
                let until = now + grant.expires_in.mul_f64(1.0 - SHARE_KEPT);
                *held = Some((grant.access_token.clone(), until));
                Ok(Authorization::Bearer(grant.access_token))
            }
        }
    }
}
