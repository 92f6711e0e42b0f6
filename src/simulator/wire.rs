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

/// A TCP or TLS connection that its [`Line`] controls.
pub(super) struct Wire {
    stream: Stream,
    line: Line,
}

/// The underlying stream.
pub(super) enum Stream {
    /// Plain HTTP.
    Plain(TcpStream),
    /// HTTP over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Puts a connection under the control of `line`.
    pub(super) fn new(stream: Stream, line: Line) -> Self {
        Self { stream, line }
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
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        };
        ready!(flushed)?;
        Poll::Ready(self.obey())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
