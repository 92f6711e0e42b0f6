//! The configuration: reads a TOML file, or flags and the environment, and produces the settings of
//! each part of the program.
//!
//! Promises: every fault is reported, not only the first, each with its location and what to write
//! instead. A fault or a warning never quotes a value, since any value may be a misplaced secret.
//! The results of [`load`], [`read`] and [`from_flags`] are valid.

mod app;
mod authority;
mod client;
mod context;
mod credentials;
mod declare;
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
mod names;
mod nearest;
mod parse;
mod redis;
pub mod reload;
mod settings;
mod store;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod trace;
mod value;
pub mod watch;

use std::path::Path;
use std::sync::Arc;

pub use fault::{Fault, Faults};

pub use flags::Flags;
pub use settings::{Admin, Ca, Client, Config, Credentials, Server, Text};

use crate::secret::Secret;
use crate::upstream;
use context::LoadContext;
use fault::{Location, Origin};
use tables::Tables;

/// The variable that names the file if no flag does.
pub const FILE_VARIABLE: &str = "COLLIBRA_AUTH_PROXY_CONFIG";

impl Config {
    /// The hosts that the local authority certifies: the DNS names of instances that are called by
    /// https.
    #[must_use]
    pub fn certified_hosts(&self) -> Vec<String> {
        let instances = self.instances.values().map(|instance| &**instance);
        authority::hosts(instances).into_iter().collect()
    }
}

/// Reads a file. Relative paths start from its directory; `env` reads the environment.
///
/// # Errors
/// All its faults.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
    let context = LoadContext::of(directory(path), env);
    let read = || {
        let noted = context.note(path);
        noted.map_err(|unfit| (None, unfit.to_string()))?;
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| (None, format!("it cannot be read: {error}")))?;
        String::from_utf8(bytes).map_err(|error| {
            let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = sound.iter().filter(|&&byte| byte == b'\n').count() + 1;
            (Some(line), "it is not UTF-8 text".to_owned())
        })
    };
    let text = read();
    let path = Arc::new(path.to_owned());
    match text {
        Ok(mut text) => {
            if text.starts_with(credentials::BYTE_ORDER_MARK) {
                text.drain(..credentials::BYTE_ORDER_MARK.len_utf8());
            }
            parse_text(Text(path, Secret::from(text)), &context)
        }
        Err((line, problem)) => {
            let root = Location::of(Origin::File(path), "");
            let location = Location { line, ..root };
            context.fault(location.fault(problem, "name a TOML file that this user can read"));
            Err(context.faults())
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
    let context = LoadContext::of(Path::new(""), env);
    parse::parse(flags.into_tables(&context), None, &context)
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
    let parsed = instance::parse(&raw, &context);
    context.conclude()?;
    Ok(parsed.ok_or_else(|| context.faults())?.instance)
}

fn parse_text(text: Text, context: &LoadContext<'_>) -> Result<Config, Faults> {
    let origin = Origin::File(Arc::clone(&text.0));
    let tables = Tables::parse(text.1.expose(), &origin, context);
    let tables = tables.ok_or_else(|| context.faults())?;
    flags::warn_of_ignored(&tables, context);
    parse::parse(tables, Some(text), context)
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
