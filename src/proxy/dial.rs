//! Opens a connection to an instance: to the first of its addresses that answers, through its
//! forward proxy if it has one, with TLS verified against the instance's own name.
//!
//! Several addresses are tried as in RFC 8305 ("happy eyeballs"). The next attempt starts when the
//! previous one has failed, or has not answered for 250 ms. The first connection wins.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::Instance;
use super::instance_stream::{InstanceStream, READ_BUFFER};
use super::tls::H2;
use crate::outgoing::tunnel;
use crate::tls;

/// The delay before the next address is tried too (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The share of the connect timeout that a forward proxy may use. Its answer, or its silence, can
/// then be reported before the whole attempt times out.
const PROXY_SHARE: f64 = 0.9;

/// The TCP keepalive of an idle connection, which detects one that a firewall has dropped.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// The protocols that a connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    /// HTTP/2 if the instance offers it.
    Any,
    /// HTTP/1.1, for an upgrade.
    Http1,
}

/// Opens connections to one instance.
pub(super) struct Dialer {
    instance: Arc<Instance>,
    /// `None`: without TLS.
    tls: Option<Tls>,
}

struct Tls {
    name: ServerName<'static>,
    any: TlsConnector,
    http1: TlsConnector,
}

/// Why a connection failed. Never quotes what the other side sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No address accepted a connection; this is the last one's error.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        cause: io::Error,
    },
    /// It timed out.
    #[error("no connection to {0} within {limit}", limit = humantime::format_duration(*.1))]
    Late(String, Duration),
    /// The forward proxy is unreachable.
    #[error("cannot connect to the proxy {proxy}: {cause}")]
    NoProxy {
        /// The proxy.
        proxy: String,
        /// What happened.
        cause: String,
        /// Whether it timed out.
        timeout: bool,
    },
    /// The forward proxy did not connect to the instance.
    #[error(transparent)]
    Proxy(#[from] tunnel::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake with {host} failed: {cause}")]
    Tls {
        /// The instance's host.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// The instance did not answer the start of HTTP/2.
    #[error("the instance does not speak HTTP/2 as it said: {0}")]
    Http2(String),
}

impl DialError {
    /// Returns whether it timed out.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            DialError::Late(..) => true,
            DialError::NoProxy { timeout, .. } => *timeout,
            DialError::Proxy(error) => error.is_timeout(),
            DialError::Connect { cause, .. } => cause.kind() == io::ErrorKind::TimedOut,
            DialError::Tls { .. } | DialError::Http2(_) => false,
        }
    }

    /// Returns whether another attempt would fail the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            DialError::Proxy(error) => error.is_final(),
            DialError::Tls { cause, .. } => {
                let rustls = cause
                    .get_ref()
                    .and_then(|e| e.downcast_ref::<rustls::Error>());
                matches!(rustls, Some(rustls::Error::InvalidCertificate(_)))
            }
            _ => false,
        }
    }
}

impl Dialer {
    /// Returns a dialer for `instance`.
    ///
    /// # Errors
    /// [`tls::Error`] if no certificate authority is available to verify it.
    pub(super) fn new(instance: Arc<Instance>) -> Result<Dialer, tls::Error> {
        let tls = if instance.tls {
            let mut config =
                tls::config_of_client(instance.ca_file.as_ref(), instance.identity.as_ref())?;
            let http1_alpn = vec![b"http/1.1".to_vec()];
            config.alpn_protocols.clone_from(&http1_alpn);
            let http1 = config.clone();
            if instance.http2 {
                config.alpn_protocols.insert(0, H2.to_vec());
            }
            let connector = |config| TlsConnector::from(Arc::new(config));
            // a host that is not a valid server name cannot be resolved either
            let name = ServerName::try_from(instance.host.clone());
            name.ok().map(|name| Tls {
                name,
                any: connector(config),
                http1: connector(http1),
            })
        } else {
            None
        };
        Ok(Dialer { instance, tls })
    }

    /// Opens a connection to one of `addresses`, preferring the first; also returns the address.
    /// Takes at most the instance's `connect_timeout`.
    ///
    /// # Errors
    /// [`DialError`] says why there is none.
    pub(super) async fn dial(
        &self,
        addresses: &[SocketAddr],
        protocols: Protocols,
    ) -> Result<(SocketAddr, InstanceStream), DialError> {
        let limit = self.instance.connect_timeout;
        match timeout(limit, self.connect(addresses, protocols)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(DialError::Late(self.instance.authority.clone(), limit)),
        }
    }

    async fn connect(
        &self,
        addresses: &[SocketAddr],
        protocols: Protocols,
    ) -> Result<(SocketAddr, InstanceStream), DialError> {
        let (address, tcp) = match &self.instance.proxy {
            Some(proxy) => self.connect_through(proxy, addresses).await?,
            None => race(addresses)
                .await
                .map_err(|(address, cause)| DialError::Connect { address, cause })?,
        };
        prepare(&tcp);
        let Some(tls) = &self.tls else {
            return Ok((address, InstanceStream::plain(tcp)));
        };
        let connector = match protocols {
            Protocols::Any => &tls.any,
            Protocols::Http1 => &tls.http1,
        };
        // TLS records are read in small pieces
        let tcp = BufReader::with_capacity(READ_BUFFER, tcp);
        let connected = connector.connect(tls.name.clone(), tcp).await;
        let stream = connected.map_err(|cause| DialError::Tls {
            host: self.instance.host.clone(),
            cause,
        })?;
        Ok((
            address,
            InstanceStream::tls(stream, self.instance.header_timeout),
        ))
    }

    async fn connect_through(
        &self,
        proxy: &tunnel::Proxy,
        addresses: &[SocketAddr],
    ) -> Result<(SocketAddr, TcpStream), DialError> {
        let limit = self.instance.connect_timeout.mul_f64(PROXY_SHARE);
        let unreached = |cause: String, timeout| DialError::NoProxy {
            proxy: proxy.to_string(),
            cause,
            timeout,
        };
        let late = tokio::time::sleep(limit);
        tokio::pin!(late);
        let connected = tokio::select! {
            connected = race(addresses) => connected,
            () = &mut late => {
                let limit = humantime::format_duration(limit);
                return Err(unreached(format!("no answer within {limit}"), true));
            }
        };
        let (address, tcp) = connected.map_err(|(_, e)| unreached(e.to_string(), false))?;
        let (host, port) = (self.instance.host.as_str(), self.instance.port);
        let opened = tokio::select! {
            opened = proxy.connect(tcp, host, port) => opened,
            () = &mut late => Err(proxy.late(host, port, limit)),
        };
        Ok((address, opened?))
    }
}

/// Connects to the first of `addresses` that answers. The error is the last attempt's.
async fn race(
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, TcpStream), (SocketAddr, io::Error)> {
    let (first, rest) = match addresses {
        [] => {
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            return Err((nowhere, io::ErrorKind::AddrNotAvailable.into()));
        }
        [only] => {
            let connected = TcpStream::connect(*only).await;
            return connected.map(|tcp| (*only, tcp)).map_err(|e| (*only, e));
        }
        [first, rest @ ..] => (*first, rest),
    };
    let attempt = |address| async move {
        let connected = TcpStream::connect(address).await;
        connected
            .map(|tcp| (address, tcp))
            .map_err(|e| (address, e))
    };
    let mut waiting = rest.iter().copied();
    let mut attempts = JoinSet::new();
    attempts.spawn(attempt(first));
    let mut failure = None;
    loop {
        tokio::select! {
            biased;
            ended = attempts.join_next(), if !attempts.is_empty() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => failure = Some(error),
                Some(Err(_)) | None => {}
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 && !attempts.is_empty() => {}
        }
        match waiting.next() {
            Some(next) => {
                attempts.spawn(attempt(next));
            }
            None if attempts.is_empty() => {
                return Err(failure.unwrap_or((first, io::ErrorKind::NotConnected.into())));
            }
            None => {}
        }
    }
}

fn prepare(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}
