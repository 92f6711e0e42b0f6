//! The caller's credentials: a user, a token, or a client of the configuration.

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

/// A token with less than this share of its lifetime left is replaced.
const SHARE_KEPT: f64 = 0.2;

/// The options for a user or a token.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Authentication")]
pub(super) struct Caller {
    /// A user who may manage OAuth applications; prompts for the password, unless it is in
    /// --password-file or COLLIBRA_PASSWORD
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    user: Option<String>,

    /// A file with the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// A file with an access token [or the token itself in env: COLLIBRA_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// All options for the caller's credentials.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Authentication")]
pub(super) struct Anyone {
    #[command(flatten)]
    caller: Caller,

    /// A client of the configuration; uses one token of its pool
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "token_file"])]
    pub(super) client: Option<String>,
}

/// The caller's credentials, ready for use.
#[derive(Debug)]
pub(super) enum Authority {
    /// A user or a token.
    Given(Authorization),
    /// A client, and its current token.
    Client {
        /// Its token endpoint.
        endpoint: Box<TokenClient>,
        /// Its token, and until when it is used.
        held: Option<(Secret, Instant)>,
    },
}

impl Caller {
    /// The credentials that were given; `None` if none were.
    ///
    /// # Errors
    /// If a password or a token cannot be read.
    pub(super) fn given(&self) -> anyhow::Result<Option<Authority>> {
        let authorization = if let Some(user) = &self.user {
            if user.contains(':') {
                return Err(Usage("a user's name must not contain a colon".to_owned()).into());
            }
            Authorization::Basic {
                user: user.clone(),
                password: secrets::password(user, self.password_file.as_deref())?,
            }
        } else if let Some(path) = &self.token_file {
            Authorization::Bearer(secrets::read_file(path)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Authority::Given(authorization)))
    }

    /// The token in the environment; `None` if there is none.
    ///
    /// # Errors
    /// If it is not a valid token.
    pub(super) fn from_environment() -> anyhow::Result<Option<Authority>> {
        let token = secrets::variable(secrets::TOKEN)?;
        Ok(token.map(|token| Authority::Given(Authorization::Bearer(token))))
    }
}

impl Anyone {
    /// The credentials that were given.
    ///
    /// # Errors
    /// [`Usage`] if none were.
    pub(super) fn resolve(&self, site: &Site) -> anyhow::Result<Authority> {
        if let Some(name) = &self.client {
            return Authority::client(site.client(name)?);
        }
        let given = match self.caller.given()? {
            Some(given) => Some(given),
            None => Caller::from_environment()?,
        };
        let missing = "give credentials: --user NAME, --token-file FILE (or COLLIBRA_TOKEN), or --client NAME of the configuration";
        Ok(given.ok_or_else(|| Usage(missing.to_owned()))?)
    }
}

impl Authority {
    /// The credentials of a client of the configuration. Requests no token yet.
    ///
    /// # Errors
    /// If its token endpoint is unusable.
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

    /// Returns the credentials to send. A client's token is requested on demand and reused while it
    /// is valid.
    ///
    /// # Errors
    /// If no token can be obtained.
    pub(super) async fn authorization(&mut self) -> anyhow::Result<Authorization> {
        match self {
            Authority::Given(authorization) => Ok(authorization.clone()),
            Authority::Client { endpoint, held } => {
                let now = SystemClock.now();
                if let Some((token, _)) = held.as_ref().filter(|(_, until)| now < *until) {
                    return Ok(Authorization::Bearer(token.clone()));
                }
                let grant = endpoint.request_token().await;
                let grant = grant.context("cannot get a token for the caller")?;
                let until = now + grant.expires_in.mul_f64(1.0 - SHARE_KEPT);
                *held = Some((grant.access_token.clone(), until));
                Ok(Authorization::Bearer(grant.access_token))
            }
        }
    }
}
