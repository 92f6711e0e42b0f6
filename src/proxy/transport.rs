//! The transport of an app's connection: a TCP or unix socket, optionally with TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use pingora::protocols::l4::ext::get_tcp_info;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::peer::Peer;
use crate::socket::{self, Accepted};
use crate::tls::H2;

/// The byte stream below a connection.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Without TLS.
    Plain(Accepted),
    /// With TLS; the handshake is done.
    Tls(Box<TlsStream<BufReader<Accepted>>>),
    /// With TLS inside the tunnel that a CONNECT request opened.
    Tunnel(Box<TlsStream<BufReader<Prefixed>>>),
}

/// A transport whose first bytes were read ahead.
#[derive(Debug)]
pub(crate) struct Prefixed {
    /// The bytes to read first.
    pub(crate) read: BytesMut,
    /// The transport, which continues after them.
    pub(crate) stream: Transport,
}

impl Transport {
    /// The other end.
    pub(crate) fn peer(&self) -> Peer {
        let peer = match self {
            Transport::Plain(_) => Peer::default(),
            Transport::Tls(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                Peer::with_tls(certificates.and_then(<[_]>::first))
            }
            Transport::Tunnel(_) => Peer::with_tls(None),
        };
        let address = socket::peer(self.socket());
        Peer {
            // an IPv4 address as such, although the socket is one of IPv6
            address: address.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())),
            ..peer
        }
    }

    /// Returns whether HTTP/2 was negotiated.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(H2),
            Transport::Tunnel(stream) => stream.get_ref().1.alpn_protocol() == Some(H2),
        }
    }

    /// The bytes that the other side's system has acknowledged, if known.
    pub(crate) fn confirmed(&self) -> Option<u64> {
        let info = get_tcp_info(self.descriptor()).ok()?;
        Some(info.tcpi_bytes_acked)
    }

    /// Makes the system discard unsent data when this is dropped: a caller that does not read it
    /// would not see the end either.
    pub(crate) fn cut(&self) {
        if let Either::Left(stream) = self.socket() {
            let _ = stream.set_zero_linger();
        }
    }

    /// The socket's descriptor.
    pub(crate) fn descriptor(&self) -> RawFd {
        match self.socket() {
            Either::Left(stream) => stream.as_raw_fd(),
            Either::Right(stream) => stream.as_raw_fd(),
        }
    }

    /// The socket.
    fn socket(&self) -> &Accepted {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0.get_ref(),
            Transport::Tunnel(stream) => stream.get_ref().0.get_ref().stream.socket(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Tunnel(stream) => stream.is_write_vectored(),
        }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let most = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..most]);
        self.read.advance(most);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
