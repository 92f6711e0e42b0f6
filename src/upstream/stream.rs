//! The byte stream of a connection to an instance: TCP, optionally with TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::either::Either;

use super::head_frames::HeadFrames;
use super::io::{Received, pingora_io};
use crate::clock;
use crate::outgoing::dial::Transport;
use crate::tls::H2;

/// The byte stream of a connection to an instance.
pub(super) struct InstanceStream {
    inner: Transport,
    received: Received,
    /// Set for HTTP/2.
    frames: Option<HeadFrames>,
    /// Whether the next write may proceed; see [`InstanceStream::defers`].
    has_deferred: bool,
}

impl InstanceStream {
    /// Wraps `transport`. Over HTTP/2, the head of a response may take as long as `header_timeout`.
    pub(super) fn new(transport: Transport, header_timeout: Duration) -> InstanceStream {
        let mut stream = InstanceStream {
            inner: transport,
            received: Received::default(),
            frames: None,
            has_deferred: false,
        };
        if stream.is_http2() {
            stream.frames = Some(HeadFrames::new(header_timeout));
        }
        stream
    }

    /// Returns whether HTTP/2 was negotiated.
    pub(super) fn is_http2(&self) -> bool {
        match &self.inner {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(H2),
        }
    }

    /// Returns whether a write must wait until the runtime has polled the other ready tasks. Over
    /// HTTP/2 the first write after a flush does: requests that arrived together then leave in one
    /// TLS record and one system call, instead of one each.
    fn defers(&mut self, cx: &Context<'_>) -> bool {
        if self.frames.is_none() || self.has_deferred {
            return false;
        }
        self.has_deferred = true;
        cx.waker().wake_by_ref();
        true
    }

    /// The counter of received bytes.
    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }
}

/// Returns whether an idle connection is usable: it is open, and nothing arrived unrequested.
pub(super) fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(stream)
        .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
        .is_pending()
}

impl AsyncRead for InstanceStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if polled.is_ready() {
            this.received.add(buf, before);
            if let Some(frames) = &mut this.frames
                && frames.are_late(&buf.filled()[before..], clock::timers())
            {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for InstanceStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.defers(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.has_deferred &= flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.defers(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

pingora_io!(InstanceStream, |stream| match &stream.inner {
    Either::Left(stream) => stream.as_raw_fd(),
    Either::Right(stream) => stream.get_ref().0.get_ref().as_raw_fd(),
});

impl fmt::Debug for InstanceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceStream").finish_non_exhaustive()
    }
}
