//! The byte stream of a caller's connection. Writes are combined into few packets, and a caller
//! that does not read at the listener's `min_body_rate` is cut.
//!
//! Reads are not limited here: [`super::connection`] limits heads, [`super::exchange`] bodies.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use super::min_rate::MinRate;
use super::transport::Transport;
use crate::upstream::io::{Received, pingora_io};

/// The size of the write buffer, in bytes: a short response, head and body, is one packet. The
/// buffer is flushed at the end of a response and before every read, so nothing is delayed for
/// long.
const WRITE_BUFFER: usize = 1460;

/// The byte stream of a caller's connection.
pub(super) struct CallerStream {
    inner: BufWriter<Transport>,
    /// The rate at which the caller reads.
    min_rate: MinRate,
    /// The bytes that its system had acknowledged at the last check.
    confirmed: Option<u64>,
    /// The bytes that its socket accepted, for systems without this figure.
    written: u64,
    received: Received,
}

impl CallerStream {
    /// Returns a stream over `transport` whose caller must read at `min_rate`.
    pub(super) fn new(transport: Transport, min_rate: Option<NonZeroU32>) -> CallerStream {
        CallerStream {
            inner: BufWriter::with_capacity(WRITE_BUFFER, transport),
            min_rate: MinRate::of(min_rate),
            confirmed: None,
            written: 0,
            received: Received::default(),
        }
    }

    /// The counter of received bytes.
    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }

    /// The transport, without the bytes that were not flushed.
    pub(super) fn into_transport(self) -> Transport {
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
        let transport = self.inner.get_ref();
        let confirmed = || transport.confirmed().unwrap_or(self.written);
        let mut before = *self.confirmed.get_or_insert_with(confirmed);
        while self.min_rate.wait(cx).is_ready() {
            let now = confirmed();
            if now == before {
                transport.cut();
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
        if polled.is_ready() && buf.filled().len() > before {
            this.received.add(buf, before);
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

pingora_io!(CallerStream, |stream| stream.inner.get_ref().descriptor());

impl fmt::Debug for CallerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerStream").finish_non_exhaustive()
    }
}
