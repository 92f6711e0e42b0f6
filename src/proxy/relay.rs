//! A tunnel to a host that is no instance: bytes pass untouched in both directions.
//!
//! No tunnel leads to a loopback or link-local address (where clouds serve credentials), or to an
//! address on which this process listens: through this proxy a caller could otherwise reach
//! services that trust this machine. Addresses are checked after the name is resolved.
//!
//! A tunnel ends when both sides have closed it, after [`IDLE`] without a byte, or during a drain
//! after [`LINGER`] without one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::either::Either;
use tracing::info;

use super::listener::Listening;
use super::respond::Refusal;
use super::stream::CallerStream;
use crate::clock::timers;
use crate::outgoing::addresses::{Addresses, Target};
use crate::outgoing::dial::{Dialer, Protocols, Route, Transport};
use crate::socket::Address;

/// The longest silence in a tunnel.
const IDLE: Duration = Duration::from_secs(600);

/// The longest silence in a tunnel after a drain began.
const LINGER: Duration = Duration::from_secs(1);

/// The longest time for DNS, and for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The size of a read.
const PORTION: usize = 16 * 1024;

/// A tunnel to another host.
pub(super) struct Relay {
    /// The host; an IPv6 address in brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The listener.
    pub(super) listener: Arc<str>,
    /// The app that asked for it; empty if it is none.
    pub(super) app: String,
    /// Whether its end is logged.
    pub(super) is_logged: bool,
}

impl Relay {
    /// Connects to the host, unless its addresses are forbidden; this process listens on `own`.
    ///
    /// # Errors
    /// [`Refusal`] says why there is no connection.
    pub(super) async fn dial(&self, own: &[Address]) -> Result<Transport, Refusal> {
        let host = self.host.trim_matches(['[', ']']);
        let target = Target {
            host: host.to_owned(),
            port: self.port,
        };
        let found = Addresses::new(vec![target], CONNECT_TIMEOUT, CONNECT_TIMEOUT);
        let found = found.resolve().await.map_err(|problem| {
            Refusal::Unreachable(
                format!("the name {host} could not be resolved: {problem}"),
                false,
            )
        })?;
        let allowed: Vec<Target> = found
            .into_iter()
            .filter(|address| !is_forbidden(*address, own))
            .map(|address| Target {
                host: address.ip().to_string(),
                port: address.port(),
            })
            .collect();
        if allowed.is_empty() {
            return Err(Refusal::ForbiddenTunnel);
        }
        let route = Route {
            host,
            port: self.port,
            written: "the host that the app calls",
            tls: false,
            http2: false,
            ca_file: None,
            identity: None,
            proxy: None,
            address: &[],
            connect_timeout: CONNECT_TIMEOUT,
        };
        let addresses = Addresses::new(allowed, CONNECT_TIMEOUT, CONNECT_TIMEOUT);
        let unreachable = |problem: String, timeout| Refusal::Unreachable(problem, timeout);
        let dialer = Dialer::new(&route, addresses);
        let dialer = dialer.map_err(|error| unreachable(error.to_string(), false))?;
        let dialed = dialer.dial(Protocols::Any).await;
        dialed
            .map(|dialed| dialed.transport)
            .map_err(|error| unreachable(error.to_string(), error.is_timeout))
    }

    /// Passes bytes between `caller` and `server` until the tunnel ends; `read` is what the caller
    /// sent already.
    pub(super) async fn run(
        self,
        caller: CallerStream,
        read: BytesMut,
        server: Transport,
        listening: &Listening,
    ) {
        let (from_caller, to_caller) = tokio::io::split(caller);
        let (from_server, to_server) = match server {
            Either::Left(tcp) => tcp.into_split(),
            // a route without TLS has no TLS stream
            Either::Right(_) => return,
        };
        let traffic = Traffic::new();
        let both = async {
            tokio::join!(
                pass(read, from_caller, to_server, &traffic.up, &traffic),
                pass(
                    BytesMut::new(),
                    from_server,
                    to_caller,
                    &traffic.down,
                    &traffic
                ),
            )
        };
        tokio::select! {
            _ = both => {}
            () = silence(&traffic, listening) => {}
        }
        if self.is_logged {
            let (listener, app) = (self.listener, self.app);
            let host = format!("{}:{}", self.host, self.port);
            let sent = traffic.up.load(Ordering::Relaxed);
            let received = traffic.down.load(Ordering::Relaxed);
            let seconds = (timers() - traffic.began).as_secs_f64();
            info!(%listener, app, host, sent, received, seconds, "tunnel closed");
        }
    }
}

/// The traffic of a tunnel.
struct Traffic {
    began: Instant,
    /// When bytes moved last, in milliseconds since `began`.
    last: AtomicU64,
    /// The bytes from the caller.
    up: AtomicU64,
    /// The bytes to the caller.
    down: AtomicU64,
}

impl Traffic {
    fn new() -> Traffic {
        Traffic {
            began: timers(),
            last: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        }
    }

    /// Records that `count` bytes moved, counted by `direction`.
    fn record(&self, count: usize, direction: &AtomicU64) {
        let since = (timers() - self.began).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
        direction.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    /// When bytes moved last.
    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Sends `read`, and then everything that `from` sends, to `to`, and closes it at the end.
async fn pass(
    mut read: BytesMut,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: &AtomicU64,
    traffic: &Traffic,
) -> io::Result<()> {
    loop {
        if !read.is_empty() {
            to.write_all(&read).await?;
            to.flush().await?;
            traffic.record(read.len(), direction);
            read.clear();
        }
        read.reserve(PORTION);
        if from.read_buf(&mut read).await? == 0 {
            return to.shutdown().await;
        }
    }
}

/// Waits until nothing moved for too long.
async fn silence(traffic: &Traffic, listening: &Listening) {
    tokio::select! {
        () = silent_for(IDLE, traffic) => return,
        () = listening.ending() => {}
    }
    silent_for(LINGER, traffic).await;
}

async fn silent_for(limit: Duration, traffic: &Traffic) {
    loop {
        let due = traffic.last() + limit;
        if due <= timers() {
            return;
        }
        sleep_until(due).await;
    }
}

/// Whether no tunnel may lead to `address`.
fn is_forbidden(address: SocketAddr, own: &[Address]) -> bool {
    let ip = embedded(address.ip().to_canonical());
    let is_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        // RFC 4291, section 2.5.6; the metadata service of EC2
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    };
    is_local
        || ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || own.iter().any(|own| own.receives(address))
}

/// The IPv4 address to which a translator (RFC 6052, section 2.1) or a 6to4 relay (RFC 3056,
/// section 2) passes packets to `ip`; otherwise `ip`.
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    match v6.octets() {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => IpAddr::from([a, b, c, d]),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(address: &str, own: &[&str]) -> bool {
        let own = own.iter().map(|own| Address::Tcp(own.parse().unwrap()));
        let own: Vec<Address> = own.collect();
        is_forbidden(address.parse().unwrap(), &own)
    }

    #[test]
    fn loopback_link_local_and_own_addresses_are_forbidden() {
        for address in [
            "127.0.0.1:443",
            "127.9.9.9:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "0.0.0.0:443",
            "0.1.2.3:443",
            "[::]:443",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[2002:a9fe:a9fe::1]:80",
            "[fe80::1]:443",
            "[fd00:ec2::254]:80",
            "224.0.0.1:443",
            "[ff02::1]:443",
            "255.255.255.255:443",
        ] {
            assert!(forbidden(address, &[]), "{address}");
        }
        for address in [
            "10.0.0.1:443",
            "192.0.2.1:8443",
            "[2001:db8::1]:443",
            "[fd00::1]:443",
        ] {
            assert!(!forbidden(address, &["10.0.0.1:9902"]), "{address}");
        }
        assert!(forbidden("10.0.0.1:9902", &["10.0.0.1:9902"]));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_and_the_end_of_the_stream_are_passed_on() {
        let (mut caller, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let traffic = Traffic::new();
        let passing = pass(BytesMut::from("early "), near, far, &traffic.up, &traffic);
        let calling = async {
            caller.write_all(b"and late").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut arrived = String::new();
            server.read_to_string(&mut arrived).await.unwrap();
            arrived
        };
        let (passed, arrived) = tokio::join!(passing, calling);
        assert!(passed.is_ok());
        let count = traffic.up.load(Ordering::Relaxed);
        assert_eq!((arrived.as_str(), count), ("early and late", 14));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_byte() {
        let traffic = Traffic::new();
        let moving = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            traffic.record(1, &traffic.up);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = silent_for(Duration::from_secs(10), &traffic) => {}
            () = moving => {}
        }
        assert_eq!(timers() - traffic.began, Duration::from_secs(18));
    }
}
