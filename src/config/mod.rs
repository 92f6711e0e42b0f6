//! The configuration: from a TOML file, or from flags and the environment, to what each part of
//! the program is told.
//!
//! Promises: every fault is reported, not only the first, each with its place and what to write
//! instead; a fault or a warning never quotes a value, since any value may be a secret that was
//! written in the wrong place; what [`load`] and [`from_flags`] return is valid.

mod fault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use fault::{Fault, Faults, Origin};

use crate::{oauth, proxy, token};

/// All that the program is told.
#[derive(Debug)]
pub struct Config {
    /// The Collibra environments, by name.
    pub instances: BTreeMap<Arc<str>, Arc<proxy::config::Instance>>,
    /// The registered applications, by name; at least one.
    pub clients: BTreeMap<Arc<str>, Client>,
    /// Where apps are served; at least one, each with a client of [`Config::clients`].
    pub listeners: Vec<proxy::config::Listener>,
    /// How the process runs.
    pub server: Server,
    /// Where it is watched.
    pub admin: Admin,
    /// Whether each request is logged.
    pub access_log: bool,
    /// What is accepted, and should be looked at.
    pub warnings: Vec<Fault>,
}

/// One registered application, and how its token is kept.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The name of its instance, which is in [`Config::instances`].
    pub instance: Arc<str>,
    /// How tokens are asked for.
    pub oauth: oauth::Config,
    /// When they are renewed.
    pub schedule: token::schedule::Config,
    /// How long a request waits when there is no token; zero: not at all.
    pub wait_for_token: Duration,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of health, metrics and the status page.
    pub address: SocketAddr,
}
