//! Opens a connection to a server: to the first of its addresses that answers, through a forward
//! proxy if configured, with TLS verified against the server's own name.
//!
//! Races the addresses as in RFC 8305 ("happy eyeballs"): the next attempt starts when one has
//! failed or has not connected within 250 ms. The first complete connection, including TLS, wins.
//! Dialing fails only if every address failed or the time is up.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::Url;

use super::addresses::{Addresses, Target};
use super::failure::list;
pub use super::failure::{DialError, Kind, Step, in_words};
use super::resolve::Problem;
use super::tunnel;
use crate::clock::timers;
use crate::descriptors::{is_shortage, spend_for_call};
use crate::tls::{self, CaFile, H2, Identity};

/// How long an attempt may take to connect before the next one starts (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The same for a tunnel and TLS. It is longer because an address that connects rarely fails later,
/// and a second connection costs the server a handshake.
const HANDSHAKE_DELAY: Duration = Duration::from_secs(1);

/// The share of the connect timeout that a forward proxy may use. The rest leaves time to report
/// its answer or its silence before the whole attempt times out.
const PROXY_SHARE: f64 = 0.9;

/// The share of the connect timeout for which an attempt waits for a file descriptor: listeners
/// close idle connections meanwhile.
const SHORTAGE_SHARE: f64 = 0.9;

/// The pause before the next attempt to get one: shorter than that of a listener that is short, or
/// callers who wait to be accepted would take every descriptor.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// The read-ahead below TLS: one record (RFC 8446, section 5.1).
const READ_BUFFER: usize = 16 * 1024;

/// The TCP keepalive of an idle connection, which detects one that a firewall has dropped.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Where the configuration sets an instance's host and port.
pub const URL: &str = "the instance's url";

/// A connection: TCP, with or without TLS.
pub type Transport = Either<TcpStream, Box<TlsStream<BufReader<TcpStream>>>>;

/// The route to a server.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The server's name or IP address (no brackets), against which its certificate is verified.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The keys that set host and port, for messages.
    pub written: &'static str,
    /// Whether to use TLS.
    pub tls: bool,
    /// Whether to offer HTTP/2 over TLS.
    pub http2: bool,
    /// Trusted authorities besides the system's.
    pub ca_file: Option<&'a CaFile>,
    /// The client certificate, if there is one.
    pub identity: Option<&'a Identity>,
    /// The forward proxy, and the key that configures it.
    pub proxy: Option<(&'a tunnel::Proxy, &'static str)>,
    /// The addresses to connect to instead of the host, without a forward proxy; empty for the
    /// host.
    pub address: &'a [Target],
    /// The timeout of name resolution, connection and TLS together.
    pub connect_timeout: Duration,
}

impl<'a> Route<'a> {
    /// Returns the direct route to the host of `url`, without HTTP/2.
    #[must_use]
    pub fn to(url: &'a Url, connect_timeout: Duration) -> Route<'a> {
        let host = url.host_str().unwrap_or_default();
        Route {
            host: host.trim_matches(['[', ']']),
            port: url.port_or_known_default().unwrap_or(443),
            written: URL,
            tls: url.scheme() == "https",
            http2: false,
            ca_file: None,
            identity: None,
            proxy: None,
            address: &[],
            connect_timeout,
        }
    }

    /// The targets of the first hop: the forward proxy, the configured addresses, or the server.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        match self.proxy {
            Some((proxy, _)) => vec![proxy.target.clone()],
            None if !self.address.is_empty() => self.address.to_vec(),
            None => vec![Target {
                host: self.host.to_owned(),
                port: self.port,
            }],
        }
    }

    /// The key that sets the first hop.
    fn written(&self) -> &'static str {
        match self.proxy {
            Some((_, key)) => key,
            None if !self.address.is_empty() => "the instance's address",
            None => self.written,
        }
    }
}

/// The protocols to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 if the server supports it.
    Any,
    /// HTTP/1.1, for an upgrade.
    Http1,
}

/// Opens connections to one server.
pub struct Dialer {
    server: Target,
    authority: String,
    written: &'static str,
    proxy: Option<tunnel::Proxy>,
    connect_timeout: Duration,
    /// Notified when an attempt finds no file descriptor.
    shortage: Notify,
    addresses: Arc<Addresses>,
    /// `None` without TLS.
    tls: Option<Tls>,
}

struct Tls {
    name: ServerName<'static>,
    any: TlsConnector,
    http1: TlsConnector,
}

/// A new connection.
pub struct Dialed {
    /// The address it leads to.
    pub address: SocketAddr,
    /// Its byte stream.
    pub transport: Transport,
    /// The time of each step.
    pub took: Took,
}

/// The time of each step of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// TCP.
    pub tcp: Duration,
    /// The forward proxy's tunnel.
    pub tunnel: Duration,
    /// The TLS handshake.
    pub tls: Duration,
}

impl Dialer {
    /// Returns a dialer for `route`; `addresses` are those of its [`Route::targets`].
    ///
    /// # Errors
    /// [`tls::Error`] if no certificate authority is available to verify the server.
    pub fn new(route: &Route<'_>, addresses: Arc<Addresses>) -> Result<Dialer, tls::Error> {
        let tls = if route.tls {
            let mut config = tls::config_of_client(route.ca_file, route.identity)?;
            let http1_alpn = vec![b"http/1.1".to_vec()];
            config.alpn_protocols.clone_from(&http1_alpn);
            let http1 = config.clone();
            if route.http2 {
                config.alpn_protocols.insert(0, H2.to_vec());
            }
            let connector = |config| TlsConnector::from(Arc::new(config));
            // a host that is not a valid server name cannot be resolved either
            let name = ServerName::try_from(route.host.to_owned());
            name.ok().map(|name| Tls {
                name,
                any: connector(config),
                http1: connector(http1),
            })
        } else {
            None
        };
        let usual = if route.tls { ":443" } else { ":80" };
        let server = Target {
            host: route.host.to_owned(),
            port: route.port,
        };
        let authority = server.to_string();
        let authority = authority
            .strip_suffix(usual)
            .unwrap_or(&authority)
            .to_owned();
        Ok(Dialer {
            server,
            authority,
            written: route.written(),
            proxy: route.proxy.map(|(proxy, _)| proxy.clone()),
            connect_timeout: route.connect_timeout,
            shortage: Notify::new(),
            addresses,
            tls,
        })
    }

    /// The server's host, and its port unless it is the default. Messages show no more of it.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The addresses of the first hop.
    #[must_use]
    pub fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// Waits until an attempt of this dialer finds no file descriptor.
    pub async fn shortage(&self) {
        self.shortage.notified().await;
    }

    /// Opens a connection within the route's `connect_timeout`.
    ///
    /// # Errors
    /// [`DialError`] if every attempt failed or the time is up.
    pub async fn dial(&self, protocols: Protocols) -> Result<Dialed, DialError> {
        self.addresses.look_up_if_due();
        let began = timers();
        let end = began + self.connect_timeout;
        let mut known = self.addresses.watch();
        let connected = Notify::new();
        let mut attempts = FuturesUnordered::new();
        // the attempts in progress and when each began, and the addresses of all attempts
        let (mut tried, mut seen) = (Vec::new(), Vec::new());
        let mut failures = Vec::new();
        let mut next_at = began;
        loop {
            let is_looking = known.borrow_and_update().is_looking;
            let next = self.addresses.next(&seen);
            let is_due = attempts.is_empty() || next_at <= timers();
            if let Some(address) = next.filter(|_| is_due) {
                let now = timers();
                let attempt = self.attempt(address, protocols, began, &connected);
                attempts.push(async move { (address, attempt.await) });
                tried.push((address, now));
                seen.push(address);
                next_at = now + ATTEMPT_DELAY;
                continue;
            }
            if attempts.is_empty() && !is_looking {
                return Err(self.conclude(failures));
            }
            tokio::select! {
                biased;
                Some((address, ended)) = attempts.next() => match ended {
                    Ok(dialed) => {
                        self.addresses.answered(address);
                        return Ok(dialed);
                    }
                    Err(error) => {
                        let at = tried.iter().position(|(tried, _)| *tried == address);
                        let attempt = at.map(|at| tried.swap_remove(at));
                        if let Some((_, began)) = attempt.filter(|_| !error.is_shortage()) {
                            self.addresses.failed(address, began, &error.to_string());
                        }
                        failures.push(error);
                        next_at = timers();
                    }
                },
                () = connected.notified() => next_at = next_at.max(timers() + HANDSHAKE_DELAY),
                () = sleep_until(next_at), if next.is_some() => {}
                // the sender is held here
                _ = known.changed(), if is_looking => {}
                () = sleep_until(end) => {
                    let late = self.late(tried.is_empty());
                    for (address, began) in tried {
                        self.addresses.failed(address, began, &late.to_string());
                    }
                    return Err(late);
                }
            }
        }
    }

    /// Returns the error for a timeout, during name resolution or later.
    fn late(&self, is_unresolved: bool) -> DialError {
        let limit = humantime::format_duration(self.connect_timeout);
        if is_unresolved {
            return self.unresolved(&format!("no answer from DNS within {limit}"), true);
        }
        if let Some(proxy) = &self.proxy {
            return self.no_proxy(proxy, &format!("no answer within {limit}"), true);
        }
        let (host, written) = (&self.authority, self.written);
        let message = format!(
            "no connection to {host} within {limit}; a firewall may drop it: check {written} and the way out of this network"
        );
        DialError::new(Step::Connect, true, message)
    }

    fn unresolved(&self, problem: &str, is_timeout: bool) -> DialError {
        let names = self.addresses.targets().iter();
        let host = names
            .map(|target| &*target.host)
            .collect::<Vec<_>>()
            .join(", ");
        let written = self.written;
        let message = format!(
            "cannot find the address of {host} ({problem}); check {written} and this machine's DNS"
        );
        DialError::new(Step::Resolve, is_timeout, message)
    }

    fn no_proxy(&self, proxy: &tunnel::Proxy, cause: &str, is_timeout: bool) -> DialError {
        let key = self.written;
        let message = format!("cannot connect to the proxy {proxy} ({cause}); check {key}");
        DialError::new(Step::Connect, is_timeout, message)
    }

    fn refused(&self, causes: Vec<(SocketAddr, io::Error)>) -> DialError {
        DialError::refused(&self.authority, causes, self.written)
    }

    /// Combines the failures of all addresses into one.
    fn conclude(&self, mut failures: Vec<DialError>) -> DialError {
        // a failure after the connection says more
        if let Some(at) = failures.iter().rposition(|e| e.causes.is_empty()) {
            return failures.swap_remove(at);
        }
        let causes: Vec<_> = failures.into_iter().flat_map(|e| e.causes).collect();
        match &self.proxy {
            _ if causes.is_empty() => match self.addresses.problem() {
                Some(problem) => {
                    let is_silent = matches!(problem, Problem::Silent(_));
                    self.unresolved(&problem.to_string(), is_silent)
                }
                None => self.unresolved("it has none", false),
            },
            Some(proxy) => self.no_proxy(proxy, &list(&causes), false),
            None => self.refused(causes),
        }
    }

    /// Makes one attempt at one address, in a race that started at `began`. Notifies `connected`
    /// when TCP is established.
    async fn attempt(
        &self,
        address: SocketAddr,
        protocols: Protocols,
        began: Instant,
        connected: &Notify,
    ) -> Result<Dialed, DialError> {
        let start = timers();
        let patience = began + self.connect_timeout.mul_f64(SHORTAGE_SHARE);
        let connect = async {
            loop {
                match TcpStream::connect(address).await {
                    Err(error) if is_shortage(&error) && spend_for_call() => {}
                    Err(error) if is_shortage(&error) && timers() < patience => {
                        self.shortage.notify_waiters();
                        sleep(SHORTAGE_PAUSE).await;
                    }
                    connected => return connected,
                }
            }
        };
        let mut tcp = (connect.await).map_err(|cause| self.refused(vec![(address, cause)]))?;
        connected.notify_one();
        prepare(&tcp);
        let mut took = Took {
            tcp: timers() - start,
            ..Took::default()
        };
        if let Some(proxy) = &self.proxy {
            let start = timers();
            let limit = self.connect_timeout.mul_f64(PROXY_SHARE);
            let opening = proxy.connect(tcp, &self.server);
            let opened = timeout_at(began + limit, opening).await;
            let opened = opened.unwrap_or(Err(tunnel::Error::Late(limit)));
            tcp = opened.map_err(|error| {
                let server = &self.server;
                let message = format!("the proxy {proxy} did not connect to {server}: {error}");
                DialError {
                    is_final: error.is_final(),
                    ..DialError::new(Step::Proxy, error.is_timeout(), message)
                }
            })?;
            took.tunnel = timers() - start;
        }
        let transport = match &self.tls {
            None => Either::Left(tcp),
            Some(tls) => {
                let start = timers();
                let connector = match protocols {
                    Protocols::Any => &tls.any,
                    Protocols::Http1 => &tls.http1,
                };
                // TLS records are read in small pieces
                let tcp = BufReader::with_capacity(READ_BUFFER, tcp);
                let handshake = connector.connect(tls.name.clone(), tcp).await;
                let (host, written) = (&self.authority, self.written);
                let stream = handshake.map_err(|e| DialError::tls(host, address, &e, written))?;
                took.tls = timers() - start;
                Either::Right(Box::new(stream))
            }
        };
        Ok(Dialed {
            address,
            transport,
            took,
        })
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
        f.debug_struct("Dialer")
            .field("server", &self.authority)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
