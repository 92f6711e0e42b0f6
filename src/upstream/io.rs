//! The parts that all connections share: a counter of received bytes, and the traits that pingora
//! requires.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::ReadBuf;

/// Counts the received bytes of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    /// The number of bytes.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds the bytes of `buf` after its first `before`.
    pub(crate) fn add(&self, buf: &ReadBuf<'_>, before: usize) {
        let n = buf.filled().len() - before;
        self.0
            .fetch_add(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Implements pingora's traits for a connection besides reading and writing. Of these, this program
/// uses only the shutdown and the id of a connection.
macro_rules! pingora_io {
    ($stream:ty, |$this:ident| $fd:expr) => {
        #[async_trait::async_trait]
        impl pingora::protocols::Shutdown for $stream {
            async fn shutdown(&mut self) {
                // a peer that is gone misses nothing
                let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
            }
        }

        impl pingora::protocols::UniqueID for $stream {
            fn id(&self) -> pingora::protocols::UniqueIDType {
                let $this = self;
                $fd
            }
        }

        impl pingora::protocols::Ssl for $stream {}

        #[async_trait::async_trait]
        impl pingora::protocols::Peek for $stream {}

        impl pingora::protocols::GetTimingDigest for $stream {
            fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
                Vec::new()
            }
        }

        impl pingora::protocols::GetProxyDigest for $stream {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
                None
            }
        }

        impl pingora::protocols::GetSocketDigest for $stream {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
                None
            }
        }
    };
}
pub(crate) use pingora_io;
