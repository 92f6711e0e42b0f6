//! The destination of a secret that is shown only once. It is chosen and prepared before the
//! request that returns the secret, which would be lost without one.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;
use clap::builder::{PathBufValueParser, TypedValueParser};
use serde_json::Value;

#[cfg(feature = "kubernetes")]
use super::kubernetes::{Name, NewSecret};
use crate::atomic_file::Pending;
use crate::cli::{Usage, new_file};
use crate::registration::{Registered, Registration};

/// The options that choose the destination.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Destination of the secret")]
pub(super) struct Output {
    /// A new file for the credentials, mode 0600, usable as credentials_file in the configuration;
    /// or kubernetes:NAMESPACE/NAME, a new Secret with the keys client_id and client_secret
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "show_secret",
        value_parser = PathBufValueParser::new().try_map(Destination::parse)
    )]
    output: Option<Destination>,

    /// Print the secret to standard output
    #[arg(long)]
    show_secret: bool,
}

/// The destination of a secret.
#[derive(Clone, Debug)]
enum Destination {
    File(PathBuf),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Name),
}

impl Destination {
    fn parse(typed: PathBuf) -> Result<Destination, &'static str> {
        let name = typed.to_str().and_then(|t| t.strip_prefix("kubernetes:"));
        match name {
            None => Ok(Destination::File(typed)),
            #[cfg(feature = "kubernetes")]
            Some(name) => Name::parse(name).map(Destination::Kubernetes),
            #[cfg(not(feature = "kubernetes"))]
            Some(_) => Err("this program was built without Kubernetes; name a file"),
        }
    }
}

/// A destination that is prepared to take a secret.
#[derive(Debug)]
pub(super) enum Target {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// The new file before it is renamed into place.
        pending: Pending,
    },
    /// A Kubernetes Secret.
    #[cfg(feature = "kubernetes")]
    Kubernetes(NewSecret),
    /// Standard output.
    Terminal,
}

impl Output {
    /// Prepares the destination. `why` says what is lost without one.
    ///
    /// # Errors
    /// [`Usage`] if none is given; otherwise that it cannot be written.
    pub(super) async fn prepare(&self, why: &str) -> anyhow::Result<Target> {
        match &self.output {
            Some(Destination::File(path)) if fs::symlink_metadata(path).is_ok() => bail!(
                "{} already exists; name another file, or move it away if its secret is no longer needed",
                path.display()
            ),
            Some(Destination::File(path)) => Ok(Target::File {
                path: path.clone(),
                pending: new_file::begin(path)?,
            }),
            #[cfg(feature = "kubernetes")]
            Some(Destination::Kubernetes(name)) => {
                Ok(Target::Kubernetes(NewSecret::prepare(name).await?))
            }
            None if self.show_secret => Ok(Target::Terminal),
            None => {
                let choice = "give --output FILE to store it there, or --show-secret to print it";
                Err(Usage(format!("{why}: {choice}; nothing was done")).into())
            }
        }
    }
}

impl Target {
    /// Stores the credentials; does nothing if `registered` has no secret. Returns what may be
    /// printed, with the secret only if it goes to the terminal.
    ///
    /// # Errors
    /// If the destination cannot be written.
    pub(super) async fn store(self, registered: &Registered) -> anyhow::Result<Value> {
        let told = serde_json::to_value(&registered.registration)?;
        let Some(credentials) = registered.credentials() else {
            return Ok(told);
        };
        match self {
            Target::Terminal => return Ok(serde_json::from_str(credentials.expose())?),
            Target::File { path, pending } => {
                new_file::put(pending, &path, credentials.expose())?;
            }
            #[cfg(feature = "kubernetes")]
            Target::Kubernetes(new) => new.create(Some(registered)).await?,
        }
        Ok(told)
    }

    /// The destination, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Target::File { path, .. } => format!("its credentials are in {}", path.display()),
            #[cfg(feature = "kubernetes")]
            Target::Kubernetes(new) => format!("its credentials are in {}", new.name),
            Target::Terminal => "its secret, which is not shown again".to_owned(),
        }
    }
}

/// Formats a client for the terminal, with the secret if `told` has it.
pub(super) fn lines(told: &Value, registration: &Registration) -> String {
    let mut text = super::rows(std::slice::from_ref(registration));
    if let Some(secret) = told["client_secret"].as_str() {
        text.push_str(&format!("\nclient_secret: {secret}\n"));
    }
    text
}
