//! A connection that a request's handler can break.
//!
//! hyper flushes a connection only after it has written all of its buffer. The wire breaks the
//! connection then, so that everything before is still sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

const GO_ON: u8 = 0;
const CLOSE: u8 = 1;
const RESET: u8 = 2;

/// A handler's control of its connection; an extension of each request.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<AtomicU8>);

impl Line {
    /// The control of the connection that a request came on.
    pub(super) fn of(head: &Parts) -> Self {
        head.extensions.get().cloned().unwrap_or_default()
    }

    /// Closes the connection once everything is sent, and never returns. Over TLS no `close_notify`
    /// is sent.
    pub(super) async fn close<T>(&self) -> T {
        self.0.store(CLOSE, Ordering::Release);
        std::future::pending().await
    }

    /// Resets the TCP connection instead of closing it (`SO_LINGER` 0), and never returns.
    pub(super) async fn reset<T>(&self) -> T {
        self.0.store(RESET, Ordering::Release);
        std::future::pending().await
    }
}

/// The underlying stream: plain HTTP, or HTTP over TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A TCP or TLS connection that its [`Line`] controls.
pub(super) struct Wire(pub(super) Stream, pub(super) Line);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self(stream, Line(order)) = &mut *self;
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        match order.load(Ordering::Acquire) {
            GO_ON => return Poll::Ready(Ok(())),
            RESET => match stream {
                Either::Left(tcp) => tcp.set_zero_linger()?,
                Either::Right(tls) => tls.get_ref().0.set_zero_linger()?,
            },
            _ => {}
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
