//! The transport of an app's connection: a TCP or unix socket, with or without TLS over it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::socket::Accepted;

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
