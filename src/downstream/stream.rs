//! The byte stream of a caller's connection. Writes are combined into few packets, and a caller
//! that does not read at the listener's `min_body_rate` is cut.
//!
//! Reads are not limited here, but where heads and bodies are read.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use pingora::protocols::l4::ext::get_tcp_info;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio_util::either::Either;

use super::min_rate::MinRate;
use super::transport::Transport;
use crate::socket::Accepted;

/// The size of the write buffer, in bytes: a short response, head and body, is one packet. The
/// buffer is flushed at the end of a response and before every read, so nothing is delayed for
/// long.
const WRITE_BUFFER: usize = 1460;

/// The byte stream of a caller's connection.
pub(crate) struct CallerStream {
    inner: BufWriter<Box<dyn Transport>>,
    /// The rate at which the caller reads.
    min_rate: MinRate,
    /// The bytes that its system had acknowledged at the last check.
    confirmed: Option<u64>,
    /// The bytes that its socket accepted, for systems without this figure.
    written: u64,
    received: Arc<AtomicU64>,
}

impl CallerStream {
    /// Returns a stream over `transport` whose caller must read at `min_rate`.
    pub(crate) fn new(transport: Box<dyn Transport>, min_rate: Option<NonZeroU32>) -> CallerStream {
        CallerStream {
            inner: BufWriter::with_capacity(WRITE_BUFFER, transport),
            min_rate: MinRate::of(min_rate),
            confirmed: None,
            written: 0,
            received: Arc::default(),
        }
    }

    /// The counter of received bytes.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The transport, without the bytes that were not flushed.
    pub(crate) fn into_transport(self) -> Box<dyn Transport> {
        self.inner.into_inner()
    }

    /// Applies the minimum rate to the result of a write. While the write is pending the caller
    /// uses up its credit. When that is gone and its system has acknowledged nothing more, the
    /// connection is cut.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.min_rate.resume();
            return polled;
        }
        let socket = self.inner.get_ref().socket();
        let confirmed = || match get_tcp_info(descriptor(socket)) {
            Ok(info) => info.tcpi_bytes_acked,
            Err(_) => self.written,
        };
        let mut before = *self.confirmed.get_or_insert_with(confirmed);
        while self.min_rate.wait(cx).is_ready() {
            let now = confirmed();
            if now == before {
                // discard unsent data: a caller that does not read it would not see the end either
                if let Either::Left(stream) = socket {
                    let _ = stream.set_zero_linger();
                }
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.min_rate.resume();
            self.min_rate.moved(now.saturating_sub(before));
            before = now;
            self.confirmed = Some(now);
        }
        Poll::Pending
    }

    fn poll_flush_paced(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.paced(cx, polled)
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = polled {
            self.written += u64::try_from(n).unwrap_or(0);
        }
        self.paced(cx, polled)
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.inner.buffer().is_empty()
            && let Poll::Ready(Err(error)) = this.poll_flush_paced(cx)
        {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if polled.is_ready() && read > 0 {
            let read = u64::try_from(read).unwrap_or(0);
            this.received.fetch_add(read, Ordering::Relaxed);
            // a new request, or more of one: credit that was earned earlier does not count
            this.min_rate.reset();
            this.confirmed = None;
        }
        polled
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_paced(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.paced(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl AsRawFd for CallerStream {
    fn as_raw_fd(&self) -> RawFd {
        descriptor(self.inner.get_ref().socket())
    }
}

fn descriptor(socket: &Accepted) -> RawFd {
    match socket {
        Either::Left(stream) => stream.as_raw_fd(),
        Either::Right(stream) => stream.as_raw_fd(),
    }
}

impl fmt::Debug for CallerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerStream").finish_non_exhaustive()
    }
}
