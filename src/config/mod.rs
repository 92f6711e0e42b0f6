//! The configuration: from a TOML file, or from flags and the environment, to what each part of
//! the program is told.
//!
//! Promises: every fault is reported, not only the first, each with its place and what to write
//! instead; a fault or a warning never quotes a value, since any value may be a secret that was
//! written in the wrong place; what [`load`], [`read`] and [`from_flags`] return is valid.

mod app;
mod client;
mod credentials;
pub mod effective;
mod fault;
mod file;
mod flags;
mod forward;
mod instance;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod listener;
mod listener_address;
mod listener_tls;
mod names;
mod nearest;
mod parse;
mod place;
mod policy;
mod raw;
mod redis;
pub mod reload;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod value;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use fault::{Fault, Faults, Origin};
pub use flags::Flags;

use crate::secret::Secret;
use crate::socket::Address;
use crate::{oauth, proxy, token, upstream};
use fault::Report;
use parse::Surroundings;
use place::Place;
use watch::Files;

/// The variable that names the file, if no flag does.
pub const FILE_VARIABLE: &str = "COLLIBRA_AUTH_PROXY_CONFIG";

/// All that the program is told.
#[derive(Debug)]
pub struct Config {
    /// The Collibra environments, by name.
    pub instances: BTreeMap<Arc<str>, Arc<upstream::Instance>>,
    /// The registered applications, by name; at least one.
    pub clients: BTreeMap<Arc<str>, Client>,
    /// The programs that may call, by name; with none, nobody has to say who they are.
    pub apps: BTreeMap<Arc<str>, Arc<proxy::config::App>>,
    /// What is forwarded.
    pub policy: Arc<proxy::policy::Policy>,
    /// Where apps are served; at least one, each with a client of [`Config::clients`].
    pub listeners: Vec<proxy::config::Listener>,
    /// How the process runs.
    pub server: Server,
    /// Where it is watched.
    pub admin: Admin,
    /// Where tokens are stored.
    pub store: crate::store::Config,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Whether the log shows the caller's `User-Agent`.
    pub log_user_agent: bool,
    /// Where spans go, if anywhere.
    pub trace: Option<crate::trace::Config>,
    /// What is accepted, and should be looked at.
    pub warnings: Vec<Fault>,
    /// What all of this was read from: once it changes, the configuration is to be read again.
    pub files: Files,
    /// The text of its own file, unless it was made from flags.
    pub text: Option<Text>,
    /// Where its files, variables and secrets are named, for [`effective`].
    given: effective::Given,
}

/// A file's path and text. The text may hold a secret.
#[derive(Clone, Debug)]
pub struct Text(Arc<PathBuf>, Secret);

/// One registered application, and how its token is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// The name of its instance, which is in [`Config::instances`].
    pub instance: Arc<str>,
    /// Where its id and secret come from.
    pub credentials: Credentials,
    /// How tokens are asked for.
    pub oauth: oauth::Config,
    /// When they are renewed.
    pub schedule: token::schedule::Config,
    /// Whether the pool's size or pace is Collibra's documented one, for want of another word.
    pub is_pool_assumed: bool,
    /// How long a request waits when there is no token; zero: not at all.
    pub wait_for_token: Duration,
}

/// Where a client's id and secret come from, as far as they can be replaced there. Relative paths
/// are settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Both from one file.
    File(PathBuf),
    /// Each from a file of its own.
    Files {
        /// The id's.
        id: PathBuf,
        /// The secret's.
        secret: PathBuf,
    },
    /// From the configuration itself, or from variables.
    Elsewhere,
}

/// How the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; 0: one per core.
    pub threads: usize,
    /// How long what is under way may take to finish after SIGTERM.
    pub drain: Duration,
}

/// Where the process is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of health, metrics and the status page.
    pub address: Address,
    /// Accepted values of `Host` besides localhost and IP addresses, without port, in lower case.
    pub hosts: Vec<String>,
}

/// Reads a file. Relative paths in it count from its directory; `env` reads the environment.
///
/// # Errors
/// Every fault of it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let surroundings = Surroundings::of(directory(path), env);
    let fit = surroundings.note(path);
    let path = Arc::new(path.to_owned());
    let text = fit
        .map_err(|unfit| (None, unfit.to_string()))
        .and_then(|()| {
            std::fs::read(&*path).map_err(|error| (None, format!("it cannot be read: {error}")))
        })
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = sound.iter().filter(|&&byte| byte == b'\n').count() + 1;
                (Some(line), "it is not UTF-8 text".to_owned())
            })
        });
    match text {
        Ok(mut text) => {
            if text.starts_with(credentials::BYTE_ORDER_MARK) {
                text.drain(..credentials::BYTE_ORDER_MARK.len_utf8());
            }
            settle(Text(path, Secret::from(text)), &surroundings)
        }
        Err((line, problem)) => {
            let place = Place {
                origin: Origin::File(path),
                key: String::new(),
                line,
            };
            let mut report = Report::default();
            report.fault(place.fault(problem, "name a TOML file that this user can read"));
            conclude(None, &surroundings, report)
        }
    }
}

impl Text {
    /// Reads again what the files hold that this text names, whatever has become of its own file
    /// since. For a configuration that stays in force because its successor is at fault.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn read_files_again(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        let Text(path, text) = self;
        read(&path, text, env)
    }
}

/// Reads `text` as [`load`] would if it stood in the file `path`, which itself is not looked at.
///
/// # Errors
/// Every fault of it.
pub fn read(
    path: &Path,
    text: Secret,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let surroundings = Surroundings::of(directory(path), env);
    settle(Text(Arc::new(path.to_owned()), text), &surroundings)
}

/// One instance, one client and one listener, from flags and, for what is not among them, the
/// variables `COLLIBRA_URL`, `COLLIBRA_CLIENT_ID` and `COLLIBRA_CLIENT_SECRET`. Relative paths
/// count from the working directory.
///
/// # Errors
/// Every fault of it.
pub fn from_flags(flags: Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let raw = flags.into_raw(env);
    let surroundings = Surroundings::of(Path::new(""), env);
    conclude(Some(raw), &surroundings, Report::default())
}

/// An instance that is named on the command line, for what needs nothing but that.
///
/// # Errors
/// Every fault of it.
pub fn instance(
    url: &str,
    allow_insecure: bool,
    ca_file: Option<&Path>,
) -> Result<Arc<upstream::Instance>, Faults> {
    let raw = flags::instance(url, allow_insecure, ca_file);
    let surroundings = Surroundings::of(Path::new(""), &|_| None);
    let mut report = Report::default();
    let parsed = instance::parse(raw, &surroundings, &mut report);
    report.conclude(&surroundings.files.take())?;
    match parsed {
        Some(parsed) => Ok(parsed.instance),
        None => unreachable!("what is not settled is reported"),
    }
}

fn settle(text: Text, surroundings: &Surroundings<'_>) -> Result<Config, Faults> {
    let origin = Origin::File(Arc::clone(&text.0));
    let mut report = Report::default();
    let raw = raw::read(text.1.expose(), &origin, &mut report);
    if let Some(raw) = &raw {
        flags::warn_of_ignored(raw, surroundings.env, &mut report);
    }
    let config = conclude(raw, surroundings, report)?;
    let text = Some(text);
    Ok(Config { text, ..config })
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn conclude(
    raw: Option<raw::Raw>,
    surroundings: &Surroundings<'_>,
    mut report: Report,
) -> Result<Config, Faults> {
    let config = raw.and_then(|raw| parse::parse(raw, surroundings, &mut report));
    let files = surroundings.files.take();
    let warnings = report.conclude(&files)?;
    match config {
        Some(config) => Ok(Config {
            warnings,
            files,
            ..config
        }),
        None => unreachable!("what is not settled is reported"),
    }
}
