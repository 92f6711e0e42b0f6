//! Where a secret goes that is shown only once. It is settled, and made ready, before anything is
//! asked that brings one: what has nowhere to go would be lost.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use serde_json::Value;

#[cfg(feature = "kubernetes")]
use super::kubernetes::{Name, NewSecret};
use crate::atomic_file::Pending;
use crate::cli::Usage;
use crate::registration::{Registered, Registration};
use crate::secret::Secret;

/// The options that say where.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where the secret goes")]
pub(super) struct Output {
    /// A new file for the credentials, mode 0600, as credentials_file of the configuration reads it;
    /// or kubernetes:NAMESPACE/NAME, a new Secret with the keys client_id and client_secret
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "show_secret",
        value_parser = PathBufValueParser::new().try_map(Place::parse)
    )]
    output: Option<Place>,

    /// Print the secret to standard output
    #[arg(long)]
    show_secret: bool,
}

/// Where a secret is to go.
#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Name),
}

impl Place {
    fn parse(typed: PathBuf) -> Result<Place, &'static str> {
        let name = typed.to_str().and_then(|t| t.strip_prefix("kubernetes:"));
        match name {
            None => Ok(Place::File(typed)),
            #[cfg(feature = "kubernetes")]
            Some(name) => Name::parse(name).map(Place::Kubernetes),
            #[cfg(not(feature = "kubernetes"))]
            Some(_) => Err("this program was built without Kubernetes; name a file"),
        }
    }
}

/// A place that is ready to take a secret.
#[derive(Debug)]
pub(super) enum Target {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// What will be put there.
        pending: Pending,
    },
    /// A Secret of Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(NewSecret),
    /// Standard output.
    Terminal,
}

impl Output {
    /// Makes the place ready. `why` says what is lost without one.
    ///
    /// # Errors
    /// [`Usage`] if none is named; otherwise that it cannot be written.
    pub(super) async fn prepare(&self, why: &str) -> anyhow::Result<Target> {
        match &self.output {
            Some(Place::File(path)) => Target::file(path),
            #[cfg(feature = "kubernetes")]
            Some(Place::Kubernetes(name)) => {
                Ok(Target::Kubernetes(NewSecret::prepare(name).await?))
            }
            None if self.show_secret => Ok(Target::Terminal),
            None => {
                let choice =
                    "give --output FILE to keep it there, or --show-secret to have it printed";
                Err(Usage(format!("{why}: {choice}; nothing was done")).into())
            }
        }
    }
}

impl Target {
    fn file(path: &Path) -> anyhow::Result<Target> {
        if fs::symlink_metadata(path).is_ok() {
            bail!(
                "{} is there already; name another file, or move it away if its secret is of no more use",
                path.display()
            );
        }
        Ok(Target::File {
            path: path.to_owned(),
            pending: begin(path)?,
        })
    }

    /// Puts the credentials where they belong; nothing happens if `registered` has no secret.
    /// Gives what may be printed: with the secret only if this is where it goes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) async fn take(self, registered: &Registered) -> anyhow::Result<Value> {
        let told = serde_json::to_value(&registered.registration)?;
        let Some(credentials) = registered.credentials() else {
            return Ok(told);
        };
        match self {
            Target::Terminal => Ok(serde_json::from_str(credentials.expose())?),
            Target::File { path, pending } => {
                put(pending, &path, &credentials)?;
                Ok(told)
            }
            #[cfg(feature = "kubernetes")]
            Target::Kubernetes(new) => {
                new.put(registered).await?;
                Ok(told)
            }
        }
    }

    /// Where the secret went, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Target::File { path, .. } => format!("its credentials are in {}", path.display()),
            #[cfg(feature = "kubernetes")]
            Target::Kubernetes(new) => format!("its credentials are in {}", new.describe()),
            Target::Terminal => "its secret, which is not shown again".to_owned(),
        }
    }
}

/// A client for people, with the secret if `told` has it.
pub(super) fn lines(told: &Value, registration: &Registration) -> String {
    let mut text = super::rows(std::slice::from_ref(registration));
    if let Some(secret) = told["client_secret"].as_str() {
        text.push_str(&format!("\nclient_secret: {secret}\n"));
    }
    text
}

/// Begins a file for credentials.
///
/// # Errors
/// That its directory cannot be written, and what to do.
pub(super) fn begin(path: &Path) -> anyhow::Result<Pending> {
    Pending::begin(path, &beside(path, "tmp")).with_context(|| {
        format!(
            "{} cannot be written; name a file in a directory that this user can write to",
            path.display()
        )
    })
}

/// Puts `content` in place.
///
/// # Errors
/// That it cannot be written.
pub(super) fn put(pending: Pending, path: &Path, content: &Secret) -> anyhow::Result<()> {
    let put = pending.put(content.expose().as_bytes());
    put.with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(())
}

/// `path` with another ending behind its own.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
