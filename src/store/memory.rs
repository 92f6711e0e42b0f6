//! The store that keeps nothing.

use std::time::Duration;

use async_trait::async_trait;

use crate::token::ports::{Lease, Record, StoreError, TokenStore};

/// Keeps nothing: every process is alone and starts anew.
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
