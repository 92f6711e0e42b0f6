//! Where a client's token and pool are kept, and who of those that share them asks for the next:
//! [`memory`] keeps nothing, [`mod@file`] keeps them for the processes of one host,
//! [`mod@redis`] and `kubernetes` (a feature of the build) for the proxies of a fleet.
//!
//! [`observed`] counts what each is asked for; [`handed`] has what a process left to its successor.
//!
//! `shared` is what they have in common: a store is one file of calls besides.
//!
//! [`record`] is what is kept, as bytes, wherever that is; [`key`] is what it is sealed with.
//!
//! Promises: no store holds a token in the clear, or anything of a secret; what lies in a store is
//! believed no further than [`record::open`] does, whoever wrote it; what cannot be read counts as
//! not being there, and is reported once.

pub mod file;
pub mod handed;
pub mod key;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod memory;
pub mod observed;
pub mod record;
pub mod redis;
mod shared;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use crate::client_id::ClientId;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::tls;
use crate::token::ports::{StoreError, TokenStore};

/// Where tokens are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Config {
    /// In the process, as long as it lives.
    #[default]
    Memory,
    /// In a directory, which the processes of one host can share.
    File {
        /// The directory; it is made if there is none.
        directory: PathBuf,
    },
    /// On a server, which the proxies of a fleet share.
    Redis(redis::Config),
    /// In a cluster, whose proxies share it.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Config),
}

impl Config {
    /// The kind of store, by its name in the configuration and in metrics.
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

/// Whose token is kept.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its name in the configuration, for messages.
    pub name: &'a str,
    /// Its instance's address, like `https://acme.collibra.com`: scheme and authority as an URL
    /// parser gives them, so that all who share the client have the same.
    pub instance: &'a str,
    /// Its id there.
    pub id: &'a ClientId,
    /// Its secret, under which the token is sealed.
    pub secret: &'a Secret,
}

/// Why there is no store. Permanent until a person mends it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory cannot be used.
    #[error(transparent)]
    File(#[from] file::Unusable),
    /// There is no certificate to verify the server by.
    #[error("the store's server: {0}")]
    Redis(#[from] tls::Error),
}

/// The store of one client, as `config` has it. Call it on a runtime.
///
/// # Errors
/// [`BuildError`] says what cannot be used and what to do.
pub fn build(
    config: &Config,
    client: Client<'_>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn TokenStore>, BuildError> {
    match config {
        Config::Memory => Ok(Arc::new(memory::MemoryStore)),
        Config::File { directory } => {
            let key = key::Key::new(client.instance, client.id, client.secret);
            let store = file::FileStore::new(directory.clone(), client.name, key, clock)?;
            Ok(Arc::new(store))
        }
        Config::Redis(config) => {
            let key = key::Key::new(client.instance, client.id, client.secret);
            let store = redis::RedisStore::new(config, client.name, key, clock)?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "kubernetes")]
        Config::Kubernetes(config) => {
            let key = key::Key::new(client.instance, client.id, client.secret);
            let store = kubernetes::KubernetesStore::new(config, client.name, key, clock);
            Ok(Arc::new(store))
        }
    }
}

/// A name that nobody else has.
fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        StoreError::Away("the system gives no random numbers to tell processes apart by".to_owned())
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn built(config: &Config) -> Result<Arc<dyn TokenStore>, BuildError> {
        let client = Client {
            name: "catalog",
            instance: "https://acme.example",
            id: &ClientId::parse("id").unwrap(),
            secret: &Secret::from("s".to_owned()),
        };
        build(config, client, Arc::new(SystemClock))
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
