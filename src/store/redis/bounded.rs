//! Limits how much a Redis server sends.
//!
//! The library buffers a whole value, however large it is. Every response follows a request, and
//! notifications are small and rare. So a server that sends more than [`LARGEST`] bytes without a
//! request in between is not a Redis server. The deadline of the request that waits behind a slow
//! value limits that too.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are accepted since the last request. A record takes a few KiB.
const LARGEST: usize = 1 << 20;

/// A stream that fails when the other side has sent more than 1 MiB since the last write.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    received: usize,
    exceeded: Arc<AtomicBool>,
}

impl<S> Bounded<S> {
    /// Wraps `stream`; sets `exceeded` when it sends too much.
    pub(super) fn new(stream: S, exceeded: Arc<AtomicBool>) -> Bounded<S> {
        Bounded {
            stream,
            received: 0,
            exceeded,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.received += buffer.filled().len() - before;
        if self.received <= LARGEST {
            return Poll::Ready(Ok(()));
        }
        // a failed read has read nothing
        buffer.set_filled(before);
        self.exceeded.store(true, Ordering::Relaxed);
        Poll::Ready(Err(ErrorKind::InvalidData.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.received = 0;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_stream_fails_and_says_why() {
        let exceeded = Arc::new(AtomicBool::new(false));
        let (ours, mut theirs) = tokio::io::duplex(2 * LARGEST);
        let mut stream = Bounded::new(ours, Arc::clone(&exceeded));
        let most = vec![b'x'; LARGEST];
        let mut read = vec![0; LARGEST];
        for _ in 0..3 {
            stream.write_all(b"PING\r\n").await.unwrap();
            theirs.write_all(&most).await.unwrap();
            stream.read_exact(&mut read).await.unwrap();
        }
        assert!(!exceeded.load(Ordering::Relaxed));
        theirs.write_all(b"x").await.unwrap();
        let error = stream.read_exact(&mut read[..1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(exceeded.load(Ordering::Relaxed));
    }
}
