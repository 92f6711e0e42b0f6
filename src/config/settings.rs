//! The settings of the whole program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::fault::Fault;
use super::watch::Files;
use crate::secret::Secret;
use crate::socket::Address;
use crate::{local_authority, oauth, proxy, store, token, trace, upstream};

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
    pub store: store::Config,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Whether the log shows the caller's `User-Agent`.
    pub log_user_agent: bool,
    /// The local authority.
    pub ca: Ca,
    /// The trace settings, if traces are sent.
    pub trace: Option<trace::Config>,
    /// Warnings: settings that are valid but probably wrong.
    pub warnings: Vec<Fault>,
    /// The files that were read. A change of one calls for a reload.
    pub files: Files,
    /// The text of the configuration file; `None` if it was built from flags.
    pub text: Option<Text>,
    /// The values that count, for display.
    pub(super) shown: Value,
}

/// A file's path and text. The text may hold a secret.
#[derive(Clone, Debug)]
pub struct Text(pub(super) Arc<PathBuf>, pub(super) Secret);

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

/// The local authority.
#[derive(Debug)]
pub struct Ca {
    /// Its files, whether or not they exist.
    pub files: local_authority::Files,
    /// The authority, if a listener uses it and it was made.
    pub authority: Option<local_authority::Authority>,
}

/// The settings of the admin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of health checks, metrics and the status page.
    pub address: Address,
    /// Accepted values of `Host` besides localhost and IP addresses, without port, in lower case.
    pub hosts: Vec<String>,
}
