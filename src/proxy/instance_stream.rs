//! The byte stream of a connection to an instance: TCP, optionally with TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::head_frames::HeadFrames;
use super::pace;
use super::stream::Received;
use super::tls::H2;

/// The read-ahead below TLS: one record (RFC 8446, section 5.1).
pub(super) const READ_BUFFER: usize = 16 * 1024;

/// The byte stream of a connection to an instance.
pub(super) struct InstanceStream {
    inner: Inner,
    received: Received,
    /// Set for HTTP/2.
    frames: Option<HeadFrames>,
}

type Inner = Either<TcpStream, Box<TlsStream<BufReader<TcpStream>>>>;

impl InstanceStream {
    /// Returns a stream without TLS.
    pub(super) fn plain(stream: TcpStream) -> InstanceStream {
        InstanceStream::over(Either::Left(stream))
    }

    /// Returns a stream after its TLS handshake. Over HTTP/2 the head of a response may take as
    /// long as `header_timeout`.
    pub(super) fn tls(
        stream: TlsStream<BufReader<TcpStream>>,
        header_timeout: Duration,
    ) -> InstanceStream {
        let mut stream = InstanceStream::over(Either::Right(Box::new(stream)));
        if stream.is_http2() {
            stream.frames = Some(HeadFrames::new(header_timeout));
        }
        stream
    }

    fn over(inner: Inner) -> InstanceStream {
        InstanceStream {
            inner,
            received: Received::default(),
            frames: None,
        }
    }

    /// Returns whether HTTP/2 was negotiated.
    pub(super) fn is_http2(&self) -> bool {
        match &self.inner {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(H2),
        }
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
                && frames.are_late(&buf.filled()[before..], pace::now())
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
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for InstanceStream {
    async fn shutdown(&mut self) {
        // an instance that is gone misses nothing
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for InstanceStream {
    fn id(&self) -> UniqueIDType {
        match &self.inner {
            Either::Left(stream) => stream.as_raw_fd(),
            Either::Right(stream) => stream.get_ref().0.get_ref().as_raw_fd(),
        }
    }
}

impl Ssl for InstanceStream {}

#[async_trait]
impl Peek for InstanceStream {}

impl GetTimingDigest for InstanceStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for InstanceStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for InstanceStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for InstanceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceStream").finish_non_exhaustive()
    }
}
