//! The caller's credentials: a user, a token, or a client of the configuration.

use std::path::PathBuf;

use anyhow::Context;

use super::secrets;
use crate::cli::Usage;
use crate::cli::own_token::OwnToken;
use crate::config;
use crate::registration::Authorization;

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

/// The caller's credentials, ready for use.
#[derive(Debug)]
pub(super) enum Authority {
    /// A user or a token.
    Given(Authorization),
    /// A client.
    Client(Box<OwnToken>),
}

impl Caller {
    /// The credentials that were given, or the token in the environment; `None` if there are none.
    ///
    /// # Errors
    /// If a password or a token cannot be read.
    pub(super) fn given(&self) -> anyhow::Result<Option<Authorization>> {
        Ok(match (&self.user, &self.token_file) {
            (Some(user), _) if user.contains(':') => {
                return Err(Usage("a user's name must not contain a colon".to_owned()).into());
            }
            (Some(user), _) => Some(Authorization::Basic {
                user: user.clone(),
                password: secrets::password(user, self.password_file.as_deref())?,
            }),
            (None, Some(path)) => Some(Authorization::Bearer(secrets::read_file(path)?)),
            (None, None) => secrets::variable(secrets::TOKEN)?.map(Authorization::Bearer),
        })
    }
}

impl Authority {
    /// The credentials of a client of the configuration. Requests no token yet.
    ///
    /// # Errors
    /// If its token endpoint is unusable.
    pub(super) fn of(client: &config::Client) -> anyhow::Result<Authority> {
        Ok(Authority::Client(Box::new(OwnToken::of(&client.oauth)?)))
    }

    /// Returns the credentials to send. A client's token is requested on demand and reused while it
    /// is valid.
    ///
    /// # Errors
    /// If no token can be obtained.
    pub(super) async fn authorization(&mut self) -> anyhow::Result<Authorization> {
        match self {
            Authority::Given(authorization) => Ok(authorization.clone()),
            Authority::Client(token) => {
                let token = token.get().await;
                let token = token.context("cannot get a token for the caller")?;
                Ok(Authorization::Bearer(token))
            }
        }
    }
}
