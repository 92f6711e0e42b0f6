//! The bytes of a caller's connection: what is written is collected into few packets, and a caller
//! that does not take it at the listener's `min_body_rate` is cut.
//!
//! Reading has no limits here: a head's are those of [`super::connection`], a body's those of
//! [`super::exchange`].

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use super::pace::Pace;
use super::transport::Transport;
use crate::upstream::io::{Received, pingora_io};

/// What is collected before it is sent, in bytes: a short response, head and body, leaves in one
/// packet. Nothing is held back for long: the buffer is flushed at the end of a response and
/// whenever the caller is read from.
const WRITE_BUFFER: usize = 1460;

/// The bytes of a caller's connection.
pub(super) struct CallerStream {
    inner: BufWriter<Transport>,
    /// How fast the caller takes what is sent to it.
    pace: Pace,
    /// The bytes that its system had confirmed when its pace was last looked at.
    confirmed: Option<u64>,
    /// The bytes that its socket has taken, for where nothing is confirmed.
    written: u64,
    received: Received,
}

impl CallerStream {
    /// The bytes of `transport`, whose caller has to take what it is sent at `min_rate`.
    pub(super) fn new(transport: Transport, min_rate: Option<NonZeroU32>) -> CallerStream {
        CallerStream {
            inner: BufWriter::with_capacity(WRITE_BUFFER, transport),
            pace: Pace::of(min_rate),
            confirmed: None,
            written: 0,
            received: Received::default(),
        }
    }

    /// Counts what this connection receives.
    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }

    /// The result of a write. While it is pending the caller uses up its credit; once that is gone
    /// and its system has confirmed nothing more, the connection is cut.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.pace.resume();
            return polled;
        }
        let transport = self.inner.get_ref();
        let confirmed = || transport.confirmed().unwrap_or(self.written);
        let mut before = *self.confirmed.get_or_insert_with(confirmed);
        while self.pace.wait(cx).is_ready() {
            let now = confirmed();
            if now == before {
                transport.cut();
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.pace.resume();
            self.pace.moved(now.saturating_sub(before));
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
            // a new request, or more of one: credit that was earned earlier does not count for it
            this.pace.reset();
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

pingora_io!(CallerStream, |stream| stream
    .inner
    .get_ref()
    .socket()
    .as_raw_fd());

impl fmt::Debug for CallerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerStream").finish_non_exhaustive()
    }
}
