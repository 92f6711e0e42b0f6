//! What a process leaves to the one that takes its place, where the store has nothing of it: with
//! it the successor needs no token of its own.
//!
//! It goes from one to the other sealed, as what lies in a store does ([`record`]): a successor
//! whose client is another, or has another secret, makes nothing of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::key::Key;
use super::{Client, record};
use crate::token::ports::{Lease, Rank, Record, StoreError, TokenStore};

/// A store, and what was handed over, which counts once and only if the store has nothing.
#[derive(Debug)]
pub struct HandedStore {
    store: Arc<dyn TokenStore>,
    handed: Mutex<Option<Record>>,
}

/// What is handed over of a client.
///
/// # Errors
/// As for [`record::seal`].
pub fn seal(client: Client<'_>, record: &Record) -> Result<Vec<u8>, StoreError> {
    record::seal(&key(client), record)
}

impl HandedStore {
    /// `store`, and for `client` what was handed over, at the time `now`.
    #[must_use]
    pub fn new(
        store: Arc<dyn TokenStore>,
        client: Client<'_>,
        handed: &[u8],
        now: SystemTime,
    ) -> HandedStore {
        HandedStore {
            store,
            handed: Mutex::new(record::open(&key(client), handed, now).record),
        }
    }
}

fn key(client: Client<'_>) -> Key {
    Key::new(client.instance, client.id, client.secret)
}

#[async_trait]
impl TokenStore for HandedStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let read = self.store.read().await;
        if let Ok(Some(_)) = read {
            return read;
        }
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        match handed.take() {
            Some(record) => Ok(Some(record)),
            None => read,
        }
    }

    async fn lease(&self, length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        self.store.lease(length).await
    }

    async fn changed(&self) {
        self.store.changed().await;
    }

    fn rank(&self) -> Rank {
        self.store.rank()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::client_id::ClientId;
    use crate::secret::Secret;
    use crate::token::ports::{StoredPool, StoredToken};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn record() -> Record {
        Record {
            generation: 3,
            token: Some(StoredToken {
                generation: 3,
                access_token: Secret::from("canary".to_owned()),
                asked: NOW,
                lifetime: Duration::from_secs(300),
            }),
            pool: StoredPool {
                full_at: NOW,
                not_before: NOW,
            },
        }
    }

    /// What a client with the secret `b` reads of what one with the secret `a` left.
    async fn read(a: &str, b: &str) -> (Option<Record>, Option<Record>) {
        let id = ClientId::parse("id").unwrap();
        let [a, b] = [a, b].map(|secret| Secret::from(secret.to_owned()));
        let client = |secret| Client {
            name: "catalog",
            instance: "https://acme.example",
            id: &id,
            secret,
        };
        let sealed = seal(client(&a), &record()).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("canary"));
        let store = HandedStore::new(Arc::new(MemoryStore), client(&b), &sealed, NOW);
        (store.read().await.unwrap(), store.read().await.unwrap())
    }

    #[tokio::test]
    async fn what_was_handed_over_is_read_once() {
        let (first, second) = read("s", "s").await;
        let first = first.unwrap();
        assert_eq!(first.generation, 3);
        assert_eq!(first.token.unwrap().access_token.expose(), "canary");
        assert!(second.is_none());
    }

    #[tokio::test]
    async fn a_token_of_another_secret_is_not_taken_over() {
        let (first, _) = read("s", "another").await;
        assert!(first.unwrap().token.is_none());
    }
}
