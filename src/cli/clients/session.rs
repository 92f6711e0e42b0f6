//! What all commands but `rotate` do first: select the instance, and get the caller's credentials.

use anyhow::Context;
use serde::Serialize;

use super::authority::Anyone;
use super::site::SiteArgs;
use super::{print, print_json};
use crate::registration::{Authorization, Error, RegistrationClient};

/// The options that every such command has.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SessionArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Anyone,

    #[command(flatten)]
    at: SiteArgs,
}

/// The registration API of an instance, and the credentials for it.
pub(super) struct Session {
    /// The API.
    pub(super) api: RegistrationClient,
    /// The caller's credentials.
    pub(super) by: Authorization,
    json: bool,
}

impl SessionArgs {
    /// Selects the instance, and gets the caller's credentials.
    ///
    /// # Errors
    /// Wrong usage, faults of the configuration, or no token for the caller.
    pub(super) async fn open(&self) -> anyhow::Result<Session> {
        let site = self.at.resolve(self.by.client.as_deref())?;
        let by = self.by.resolve(&site)?.authorization().await?;
        Ok(Session {
            api: site.api,
            by,
            json: self.json,
        })
    }
}

impl Session {
    /// Prints the result: as JSON with `--json`, otherwise as text.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn print(
        &self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self.json {
            true => print_json(json),
            false => print(&text()),
        }
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
