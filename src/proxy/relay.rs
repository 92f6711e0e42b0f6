//! A tunnel to a host that is no instance: bytes go through untouched, both ways.
//!
//! No tunnel leads to this machine, to a link-local address (where clouds serve credentials), or to an
//! address of this process: a caller could otherwise reach, through this proxy, services that trust
//! this machine. The addresses are judged after the name was resolved.
//!
//! A tunnel ends when both sides have, when nothing moved for [`IDLE`], or at a drain, as soon as it is
//! silent for a second.

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
    /// Connects to the host, unless that leads to a forbidden address; `own` are this process's.
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
                format!("the address of {host} was not found ({problem})"),
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
            .map_err(|error| unreachable(error.to_string(), error.is_timeout()))
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
            // none was asked for
            Either::Right(_) => return,
        };
        let moved = Moved::new();
        let both = async {
            tokio::join!(
                pass(read, from_caller, to_server, &moved.up, &moved),
                pass(BytesMut::new(), from_server, to_caller, &moved.down, &moved),
            )
        };
        tokio::select! {
            _ = both => {}
            () = silence(&moved, listening) => {}
        }
        if self.is_logged {
            let (listener, app) = (self.listener, self.app);
            let host = format!("{}:{}", self.host, self.port);
            let sent = moved.up.load(Ordering::Relaxed);
            let received = moved.down.load(Ordering::Relaxed);
            let seconds = (timers() - moved.began).as_secs_f64();
            info!(%listener, app, host, sent, received, seconds, "tunnel closed");
        }
    }
}

/// What went through a tunnel.
struct Moved {
    began: Instant,
    /// When bytes moved last, in milliseconds since then.
    last: AtomicU64,
    /// The bytes from the caller.
    up: AtomicU64,
    /// The bytes to the caller.
    down: AtomicU64,
}

impl Moved {
    fn new() -> Moved {
        Moved {
            began: timers(),
            last: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        }
    }

    /// Records that `count` bytes moved, counted by `direction`.
    fn by(&self, count: usize, direction: &AtomicU64) {
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

/// Passes `read`, and then what `from` sends, to `to`, until its end, which is passed too.
async fn pass(
    mut read: BytesMut,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: &AtomicU64,
    moved: &Moved,
) -> io::Result<()> {
    loop {
        if !read.is_empty() {
            to.write_all(&read).await?;
            to.flush().await?;
            moved.by(read.len(), direction);
            read.clear();
        }
        read.reserve(PORTION);
        if from.read_buf(&mut read).await? == 0 {
            return to.shutdown().await;
        }
    }
}

/// Waits until nothing moved for too long.
async fn silence(moved: &Moved, listening: &Listening) {
    tokio::select! {
        () = silent_for(IDLE, moved) => return,
        () = listening.ending() => {}
    }
    silent_for(LINGER, moved).await;
}

async fn silent_for(limit: Duration, moved: &Moved) {
    loop {
        let due = moved.last() + limit;
        if due <= timers() {
            return;
        }
        sleep_until(due).await;
    }
}

/// Whether no tunnel may lead to `address`.
fn is_forbidden(address: SocketAddr, own: &[Address]) -> bool {
    let ip = address.ip().to_canonical();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(address: &str, own: &[&str]) -> bool {
        let own = own.iter().map(|own| Address::Tcp(own.parse().unwrap()));
        let own: Vec<Address> = own.collect();
        is_forbidden(address.parse().unwrap(), &own)
    }

    #[test]
    fn no_tunnel_leads_to_this_machine_or_its_clouds_credentials() {
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
    async fn what_is_read_goes_on_and_so_does_the_end() {
        let (mut caller, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let moved = Moved::new();
        let passing = pass(BytesMut::from("early "), near, far, &moved.up, &moved);
        let calling = async {
            caller.write_all(b"and late").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut arrived = String::new();
            server.read_to_string(&mut arrived).await.unwrap();
            arrived
        };
        let (passed, arrived) = tokio::join!(passing, calling);
        assert!(passed.is_ok());
        let count = moved.up.load(Ordering::Relaxed);
        assert_eq!((arrived.as_str(), count), ("early and late", 14));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_byte() {
        let moved = Moved::new();
        let moving = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            moved.by(1, &moved.up);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = silent_for(Duration::from_secs(10), &moved) => {}
            () = moving => {}
        }
        assert_eq!(timers() - moved.began, Duration::from_secs(18));
    }
}
