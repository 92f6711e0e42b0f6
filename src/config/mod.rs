//! The configuration: reads a TOML file, or flags and the environment, and produces the settings of
//! each part of the program.
//!
//! Promises: every fault is reported, not only the first, each with its location and what to write
//! instead. A fault or a warning never quotes a value, since any value may be a misplaced secret.
//! The results of [`load`], [`read`] and [`from_flags`] are valid.

mod app;
mod authority;
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
mod listener_forward;
mod listener_tls;
mod location;
mod names;
mod nearest;
mod parse;
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

pub use authority::Ca;
pub use fault::{Fault, Faults, Origin};
pub use flags::Flags;

use crate::secret::Secret;
use crate::socket::Address;
use crate::{oauth, proxy, token, upstream};
use fault::Report;
use location::Location;
use parse::LoadContext;
use watch::Files;

/// The variable that names the file if no flag does.
pub const FILE_VARIABLE: &str = "COLLIBRA_AUTH_PROXY_CONFIG";

/// The settings of the whole program.
#[derive(Debug)]
pub struct Config {
    /// The Collibra environments, by name.
    pub instances: BTreeMap<Arc<str>, Arc<upstream::Instance>>,
    /// The registered applications, by name; at least one.
    pub clients: BTreeMap<Arc<str>, Client>,
    /// The programs that may call, by name; if there are none, callers need not authenticate.
    pub apps: BTreeMap<Arc<str>, Arc<proxy::config::App>>,
    /// The rules for paths and session logins.
    pub policy: Arc<proxy::policy::Policy>,
    /// The listeners, at least one; the client of each is in [`Config::clients`].
    pub listeners: Vec<proxy::config::Listener>,
    /// The settings of the process.
    pub server: Server,
    /// The settings of the admin address.
    pub admin: Admin,
    /// The store of the tokens.
    pub store: crate::store::Config,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Whether the log shows the caller's `User-Agent`.
    pub log_user_agent: bool,
    /// The local authority.
    pub ca: Ca,
    /// The trace settings, if traces are sent.
    pub trace: Option<crate::trace::Config>,
    /// Warnings: settings that are valid but probably wrong.
    pub warnings: Vec<Fault>,
    /// The files that were read. A change of one calls for a reload.
    pub files: Files,
    /// The text of the configuration file; `None` if it was built from flags.
    pub text: Option<Text>,
    /// The sources of files, variables and secrets, for [`effective`].
    given: effective::Given,
}

/// A file's path and text. The text may hold a secret.
#[derive(Clone, Debug)]
pub struct Text(Arc<PathBuf>, Secret);

/// A registered application, and the handling of its token.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The client's name in the configuration.
    pub name: Arc<str>,
    /// The name of its instance, which is in [`Config::instances`].
    pub instance: Arc<str>,
    /// The source of its id and secret.
    pub credentials: Credentials,
    /// The settings of its token requests.
    pub oauth: oauth::Config,
    /// When its token is renewed.
    pub schedule: token::schedule::Config,
    /// Whether Collibra's documented defaults fill in the pool's size or refill.
    pub is_pool_assumed: bool,
    /// How long a request waits if there is no usable token; zero for not at all.
    pub wait_for_token: Duration,
}

/// The source of a client's id and secret, as far as `clients rotate` can replace them there.
/// Relative paths are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// One file with both.
    File(PathBuf),
    /// A file for each.
    Files {
        /// The file with the id.
        id: PathBuf,
        /// The file with the secret.
        secret: PathBuf,
    },
    /// The configuration itself, or variables.
    Elsewhere,
}

/// The settings of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; 0: one per core.
    pub threads: usize,
    /// The drain's time limit: how long requests in flight may take after SIGTERM.
    pub drain: Duration,
}

/// The settings of the admin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of health checks, metrics and the status page.
    pub address: Address,
    /// Accepted values of `Host` besides localhost and IP addresses, without port, in lower case.
    pub hosts: Vec<String>,
}

impl Config {
    /// The hosts that the local authority certifies: the DNS names of instances that are called by
    /// https.
    #[must_use]
    pub fn certified_hosts(&self) -> Vec<String> {
        let instances = self.instances.values().map(|instance| &**instance);
        let mut hosts: Vec<String> = authority::hosts(instances).map(str::to_owned).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// Reads a file. Relative paths start from its directory; `env` reads the environment.
///
/// # Errors
/// All its faults.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let context = LoadContext::of(directory(path), env);
    let fit = context.note(path);
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
            parse_text(Text(path, Secret::from(text)), &context)
        }
        Err((line, problem)) => {
            let location = Location {
                origin: Origin::File(path),
                key: String::new(),
                line,
            };
            let mut report = Report::default();
            report.fault(location.fault(problem, "name a TOML file that this user can read"));
            conclude(None, &context, report)
        }
    }
}

impl Text {
    /// Reads the files that this text names again, whatever its own file now contains. For a
    /// configuration that stays in force because a newer one is faulty.
    ///
    /// # Errors
    /// All its faults.
    pub fn read_files_again(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        let Text(path, text) = self;
        read(&path, text, env)
    }
}

/// Reads `text` as [`load`] reads the file at `path`, without reading that file.
///
/// # Errors
/// All its faults.
pub fn read(
    path: &Path,
    text: Secret,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let context = LoadContext::of(directory(path), env);
    parse_text(Text(Arc::new(path.to_owned()), text), &context)
}

/// Builds a configuration with one instance, one client and one listener from flags. Missing ones
/// come from the variables `COLLIBRA_URL`, `COLLIBRA_CLIENT_ID` and `COLLIBRA_CLIENT_SECRET`, and
/// in the container image from `COLLIBRA_AUTH_PROXY_LISTEN` and its siblings. Relative paths start
/// from the working directory.
///
/// # Errors
/// All its faults.
pub fn from_flags(flags: Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let mut report = Report::default();
    let raw = flags.into_raw(env, &mut report);
    let context = LoadContext::of(Path::new(""), env);
    conclude(Some(raw), &context, report)
}

/// Builds an instance from the command line, for commands that need nothing else.
///
/// # Errors
/// All its faults.
pub fn instance(
    url: &str,
    allow_insecure: bool,
    ca_file: Option<&Path>,
) -> Result<Arc<upstream::Instance>, Faults> {
    let raw = flags::instance(url, allow_insecure, ca_file);
    let context = LoadContext::of(Path::new(""), &|_| None);
    let mut report = Report::default();
    let parsed = instance::parse(raw, &context, &mut report);
    report.conclude(&context.files.take())?;
    match parsed {
        Some(parsed) => Ok(parsed.instance),
        None => unreachable!("a fault was reported instead"),
    }
}

fn parse_text(text: Text, context: &LoadContext<'_>) -> Result<Config, Faults> {
    let origin = Origin::File(Arc::clone(&text.0));
    let mut report = Report::default();
    let raw = raw::read(text.1.expose(), &origin, &mut report);
    if let Some(raw) = &raw {
        flags::warn_of_ignored(raw, context.env, &mut report);
    }
    let config = conclude(raw, context, report)?;
    let text = Some(text);
    Ok(Config { text, ..config })
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn conclude(
    raw: Option<raw::Raw>,
    context: &LoadContext<'_>,
    mut report: Report,
) -> Result<Config, Faults> {
    let config = raw.and_then(|raw| parse::parse(raw, context, &mut report));
    let files = context.files.take();
    let warnings = report.conclude(&files)?;
    match config {
        Some(config) => Ok(Config {
            warnings,
            files,
            ..config
        }),
        None => unreachable!("a fault was reported instead"),
    }
}
