//! The store without persistence.

use std::time::Duration;

use async_trait::async_trait;

use crate::token::ports::{Lease, Record, StoreError, TokenStore};

/// Stores nothing: every process is alone and starts without a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStore;

#[async_trait]
impl TokenStore for MemoryStore {
    async fn read(&self) -> Result<Option<Record>, StoreError> {
        Ok(None)
    }

    async fn lease(&self, _length: Duration) -> Result<Option<Box<dyn Lease>>, StoreError> {
        Ok(Some(Box::new(MemoryStore)))
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

#[async_trait]
impl Lease for MemoryStore {
    async fn publish(&mut self, _record: &Record) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everyone_may_ask_and_nothing_ever_changes() {
        let store = MemoryStore;
        let _held = store.lease(Duration::from_secs(60)).await.unwrap().unwrap();
        assert!(
            store
                .lease(Duration::from_secs(60))
                .await
                .unwrap()
                .is_some()
        );
        assert!(store.read().await.unwrap().is_none());
        let year = Duration::from_secs(365 * 24 * 3600);
        assert!(tokio::time::timeout(year, store.changed()).await.is_err());
    }
}
