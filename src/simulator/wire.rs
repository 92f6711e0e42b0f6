//! A connection that a request's handler can break.
//!
//! hyper flushes a connection only after it has written all of its buffer. The wire breaks the
//! connection then, so that everything before is still sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

const GO_ON: u8 = 0;
const CLOSE: u8 = 1;
const RESET: u8 = 2;

/// A handler's control of its connection.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<AtomicU8>);

impl Line {
    /// Closes the connection once everything is sent. Over TLS no `close_notify` is sent.
    pub(super) fn close(&self) {
        self.0.store(CLOSE, Ordering::Release);
    }

    /// Resets the TCP connection instead of closing it (`SO_LINGER` 0).
    pub(super) fn reset(&self) {
        self.0.store(RESET, Ordering::Release);
    }
}

/// The underlying stream: plain HTTP, or HTTP over TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A TCP or TLS connection that its [`Line`] controls.
pub(super) struct Wire {
    stream: Stream,
    line: Line,
}

impl Wire {
    /// Puts a connection under the control of `line`.
    pub(super) fn new(stream: Stream, line: Line) -> Self {
        Self { stream, line }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        Pin::new(&mut self.get_mut().stream)
    }

    fn obey(&self) -> io::Result<()> {
        match self.line.0.load(Ordering::Acquire) {
            GO_ON => return Ok(()),
            RESET => self.tcp().set_zero_linger()?,
            _ => {}
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "broken on request",
        ))
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Either::Left(tcp) => tcp,
            Either::Right(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().stream().poll_flush(cx))?;
        Poll::Ready(self.obey())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
