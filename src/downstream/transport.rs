//! The transport of an app's connection: a TCP or unix socket, with or without TLS over it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::peer::Peer;
use crate::socket::{self, Accepted};
use crate::tls::H2;

/// The read-ahead below TLS: one record (RFC 8446, section 5.1). Records are read in small pieces.
const READ_BUFFER: usize = 16 * 1024;

/// The byte stream below a connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The socket.
    fn socket(&self) -> &Accepted;
}

/// TLS over another transport: a socket, or the tunnel that a CONNECT request opened.
pub(crate) type Secured = TlsStream<BufReader<Box<dyn Transport>>>;

impl Transport for Accepted {
    fn socket(&self) -> &Accepted {
        self
    }
}

impl Transport for Secured {
    fn socket(&self) -> &Accepted {
        self.get_ref().0.get_ref().socket()
    }
}

/// Prepares an accepted connection, with a TLS handshake if there is a certificate. Returns the
/// transport, its other end, and whether HTTP/2 was negotiated.
///
/// # Errors
/// As [`shake_hands`].
pub(crate) async fn open(
    stream: Accepted,
    tls: Option<TlsAcceptor>,
    patience: Duration,
) -> io::Result<(Box<dyn Transport>, Peer, bool)> {
    if let Either::Left(stream) = &stream {
        let _ = stream.set_nodelay(true);
    }
    // an IPv4 address as such, although the socket is one of IPv6
    let address = socket::peer(&stream);
    let address = address.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
    let Some(tls) = tls else {
        let peer = Peer {
            address,
            ..Peer::default()
        };
        return Ok((Box::new(stream), peer, false));
    };
    let secured = shake_hands(Box::new(stream), &[], tls, patience).await?;
    let peer = Peer::with_tls(address, secured.get_ref().1.peer_certificates());
    let is_http2 = is_http2(&secured);
    Ok((Box::new(secured), peer, is_http2))
}

/// Returns whether HTTP/2 was negotiated.
pub(crate) fn is_http2(secured: &Secured) -> bool {
    secured.get_ref().1.alpn_protocol() == Some(H2)
}

/// Performs a TLS handshake over `below`, of which `read` was read already.
///
/// # Errors
/// If the handshake fails; [`ErrorKind::TimedOut`] after `patience`.
pub(crate) async fn shake_hands(
    below: Box<dyn Transport>,
    mut read: &[u8],
    tls: TlsAcceptor,
    mut patience: Duration,
) -> io::Result<Secured> {
    let below = BufReader::with_capacity(READ_BUFFER, below);
    let mut failed = None;
    let accepting = tls.accept_with(below, |session| {
        while !read.is_empty() && failed.is_none() {
            let fed = session.read_tls(&mut read).map(drop);
            let processed = session.process_new_packets().map(drop);
            failed = fed.and(processed.map_err(io::Error::other)).err();
        }
    });
    if failed.is_some() {
        // polled once more, to send the alert
        patience = Duration::ZERO;
    }
    match timeout(patience, accepting).await {
        Ok(accepted) => accepted,
        Err(_elapsed) => Err(failed.unwrap_or_else(|| ErrorKind::TimedOut.into())),
    }
}
