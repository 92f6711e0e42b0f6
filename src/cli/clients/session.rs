//! What all commands but `rotate` do first: select the instance, and get the caller's credentials.

use anyhow::Context;

use super::authority::{Authority, Caller};
use super::site::SiteArgs;
use crate::cli::Usage;
use crate::registration::{Authorization, Error, RegistrationClient};

/// The options that every such command has.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SessionArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Caller,

    /// A client of the configuration; uses one token of its pool
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Authentication",
        conflicts_with_all = ["user", "token_file"]
    )]
    client: Option<String>,

    #[command(flatten)]
    at: SiteArgs,
}

/// The registration API of an instance, and the credentials for it.
pub(super) struct Session {
    /// The API.
    pub(super) api: RegistrationClient,
    /// The caller's credentials.
    pub(super) by: Authorization,
    /// Whether the result is printed as JSON.
    pub(super) json: bool,
}

impl SessionArgs {
    /// Selects the instance, and gets the caller's credentials.
    ///
    /// # Errors
    /// Wrong usage, faults of the configuration, or no token for the caller.
    pub(super) async fn open(&self) -> anyhow::Result<Session> {
        let site = self.at.resolve(self.client.as_deref())?;
        let missing = "give credentials: --user NAME, --token-file FILE (or COLLIBRA_TOKEN), or --client NAME of the configuration";
        let by = match &self.client {
            Some(name) => Authority::of(site.client(name)?)?.authorization().await?,
            None => self
                .by
                .given()?
                .with_context(|| Usage(missing.to_owned()))?,
        };
        Ok(Session {
            api: site.api,
            by,
            json: self.json,
        })
    }
}

/// Returns the result of a call that changes something. An error after which the change may have
/// happened nevertheless gets `advice`.
pub(super) fn settled<T>(
    called: Result<T, Error>,
    advice: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    match called {
        Err(error) if error.may_have_succeeded => Err(error).with_context(advice),
        called => Ok(called?),
    }
}
