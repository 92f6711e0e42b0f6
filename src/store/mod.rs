//! Stores for a client's token and pool; a store also decides which of the processes that share a
//! client requests the next token.
//!
//! [`memory`] stores nothing. [`mod@file`] serves the processes of one host. [`mod@redis`] and
//! `kubernetes` (a cargo feature) serve the proxies of a fleet. `shared` is what the stores have in
//! common. [`record`] is the stored form, in which a process also hands its state off to its
//! successor; [`key`] is the key that seals it.
//!
//! Guarantees: no store holds a token in the clear, or any part of a secret. Stored data is trusted
//! only as far as [`record::open`] validates it, whoever wrote it. Undecodable data counts as
//! absent and is reported once.

pub mod file;
pub mod key;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod memory;
pub mod record;
pub mod redis;
mod shared;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::Digest;

use crate::clock::Clock;
use crate::random::unique;
use crate::tls;
use crate::token::ports::TokenStore;
use key::Key;

/// Where tokens are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Config {
    /// In the process only.
    #[default]
    Memory,
    /// In a directory, shared by the processes of one host.
    File {
        /// The directory; created if it does not exist.
        directory: PathBuf,
    },
    /// On a Redis or Valkey server, shared by the proxies of a fleet.
    Redis(redis::Config),
    /// In Kubernetes, shared by the proxies of a cluster.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Config),
}

impl Config {
    /// The kind of store, as named in the configuration and in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Config::Memory => "memory",
            Config::File { .. } => "file",
            Config::Redis(_) => "redis",
            #[cfg(feature = "kubernetes")]
            Config::Kubernetes(_) => "kubernetes",
        }
    }
}

/// Why a store could not be built. Permanent until the configuration or the environment is fixed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory is unusable.
    #[error(transparent)]
    File(#[from] file::Unusable),
    /// No certificate authority is available to verify the server.
    #[error("the store's server: {0}")]
    Redis(#[from] tls::Error),
}

/// Builds the store of the client of `key`; `client` is its name in messages. Call it on a runtime.
///
/// # Errors
/// [`BuildError`] says what is unusable and what to do.
pub fn build(
    config: &Config,
    client: &str,
    key: Key,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn TokenStore>, BuildError> {
    Ok(match config {
        Config::Memory => Arc::new(memory::MemoryStore),
        Config::File { directory } => {
            Arc::new(file::FileStore::new(directory.clone(), client, key, clock)?)
        }
        Config::Redis(config) => Arc::new(redis::RedisStore::new(config, client, key, clock)?),
        #[cfg(feature = "kubernetes")]
        Config::Kubernetes(config) => {
            Arc::new(kubernetes::KubernetesStore::new(config, client, key, clock))
        }
    })
}

/// Returns a unique name for a lease holder.
fn random_name() -> String {
    format!("{:032x}", unique())
}

/// Returns the first `length` bytes of `digest` in hexadecimal digits.
fn hex(digest: &Digest, length: usize) -> String {
    let bytes = digest.as_ref().iter().take(length);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_id::ClientId;
    use crate::clock::SystemClock;
    use crate::secret::Secret;

    fn built(config: &Config) -> Result<Arc<dyn TokenStore>, BuildError> {
        let id = ClientId::parse("id").unwrap();
        let key = Key::new("https://acme.example", &id, &Secret::from("s".to_owned()));
        build(config, "catalog", key, Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn each_kind_is_built() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a");
        for config in [Config::Memory, Config::File { directory }] {
            let store = built(&config).unwrap();
            assert!(store.read().await.unwrap().is_none(), "{config:?}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = file.path().join("a");
        let config = Config::File {
            directory: directory.clone(),
        };
        let error = built(&config).unwrap_err().to_string();
        assert!(error.contains(&*directory.to_string_lossy()), "{error}");
        assert!(error.contains("create it"), "{error}");
    }
}
