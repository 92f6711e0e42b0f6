//! An instance's addresses and the connections to it. Addresses are resolved in the background and
//! cached while they are valid. A request gets an open connection or a new one.
//!
//! Behind a forward proxy, the proxy's name is resolved instead; the proxy resolves the instance's.
//!
//! A name that stops resolving is harmless while its last addresses still answer. The address that
//! answered last is tried first.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use http::HeaderValue;
use http::uri::Authority;
use pingora::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora::protocols::Stream;
use tokio::sync::{Mutex, Notify, watch};
use tracing::warn;

use super::config::Instance;
use super::dial::{DialError, Dialer, Protocols};
use super::instance_session::InstanceSession;
use super::pool::Pool;
use crate::clock::{Clock, Instant};
use crate::tls;
use crate::token::cache::Status;

/// The shortest time between two lookups.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// How often idle connections are pruned.
const PRUNE_PAUSE: Duration = Duration::from_secs(10);

/// How many requests share an HTTP/2 connection to an instance.
const STREAMS: usize = 64;

/// The flow-control window of a response on such a connection, in bytes. The connection's window is
/// large enough for every stream: an app that reads slowly blocks no other.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// An instance's addresses, and the connections to it.
#[derive(Debug)]
pub struct Upstream {
    instance: Arc<Instance>,
    host: HeaderValue,
    authority: Authority,
    dialer: Dialer,
    pool: Pool,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// The index of the address that answered last.
    preferred: AtomicUsize,
    known: watch::Sender<Known>,
    look_again: Arc<Notify>,
    /// The protocol of the last new connection: whether requests may share one.
    spoken: AtomicU8,
    /// Held while opening a connection that others may share.
    dialing: Mutex<()>,
    /// Counts failed connections.
    failures: AtomicU64,
    /// The instance has asked for HTTP/1.1.
    is_http1_only: AtomicBool,
}

/// The result of the last lookup.
#[derive(Clone, Debug)]
enum Known {
    NotYet,
    Addresses,
    Nothing(String),
}

/// Why an instance is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its host is not valid in `Host`.
    #[error("its host cannot be sent in a header")]
    Host,
    /// No certificate authority is available to verify it.
    #[error("{}", .0.reason)]
    Tls(tls::Error),
}

/// Why there is no connection to an instance.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// It has no address; the text says why.
    #[error("{0}")]
    NoAddress(String),
    /// None of its addresses accepted a connection.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// What is known of the instance's protocol.
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

impl ConnectError {
    /// Returns whether it timed out.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            ConnectError::NoAddress(_) => false,
            ConnectError::Dial(error) => error.is_timeout(),
        }
    }

    /// Returns whether another attempt would fail the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            ConnectError::NoAddress(_) => true,
            ConnectError::Dial(error) => error.is_final() || error.is_timeout(),
        }
    }
}

impl Upstream {
    /// Returns an instance whose addresses are not resolved yet, unless it is an IP address. Run
    /// [`Upstream::keep_resolved`] for it.
    ///
    /// # Errors
    /// [`Error`] if no request could be sent to it.
    pub fn new(instance: Arc<Instance>) -> Result<Upstream, Error> {
        let host = HeaderValue::try_from(&instance.authority).map_err(|_| Error::Host)?;
        let authority = Authority::try_from(&*instance.authority).map_err(|_| Error::Host)?;
        let upstream = Upstream {
            host,
            authority,
            dialer: Dialer::new(Arc::clone(&instance)).map_err(Error::Tls)?,
            pool: Pool::default(),
            addresses: ArcSwap::default(),
            preferred: AtomicUsize::new(0),
            known: watch::Sender::new(Known::NotYet),
            look_again: Arc::default(),
            spoken: AtomicU8::new(UNKNOWN),
            dialing: Mutex::default(),
            failures: AtomicU64::new(0),
            is_http1_only: AtomicBool::new(!(instance.tls && instance.http2)),
            instance,
        };
        if let Ok(ip) = upstream.next_hop().0.parse::<IpAddr>() {
            upstream.set(&[ip]);
        }
        Ok(upstream)
    }

    /// The name or address, and the port, to connect to.
    fn next_hop(&self) -> (&str, u16) {
        match &self.instance.proxy {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => (&self.instance.host, self.instance.port),
        }
    }

    /// Starts with the addresses of `other`, if both have the same name.
    pub fn take_over_addresses(&self, other: &Upstream) {
        let known = other.addresses.load();
        let addresses: Vec<IpAddr> = known.iter().map(SocketAddr::ip).collect();
        if self.next_hop().0 == other.next_hop().0 && !addresses.is_empty() {
            self.set(&addresses);
        }
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The value of `Host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The same for HTTP/2 (RFC 9113, section 8.3.1).
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns a connection for one request at `now`: an open one, unless `fresh` is set, or a new
    /// one. Waits for the first lookup, at most for the connect timeout.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn connect(
        &self,
        protocols: Protocols,
        fresh: bool,
        now: Instant,
    ) -> Result<InstanceSession, ConnectError> {
        let may_share = protocols == Protocols::Any && !self.is_http1_only.load(Ordering::Relaxed);
        if !fresh && let Some(open) = self.open(may_share, now).await {
            return Ok(open);
        }
        let speaks_http2 = || self.spoken.load(Ordering::Relaxed) != HTTP1;
        if !may_share || !speaks_http2() {
            return self.dial(protocols, now).await;
        }
        // one opens a connection and the others share it; if it fails, each tries for itself
        let failures = self.failures.load(Ordering::Relaxed);
        let dialing = self.dialing.lock().await;
        if let Some(open) = self.open(may_share, now).await {
            return Ok(open);
        }
        if self.failures.load(Ordering::Relaxed) != failures || !speaks_http2() {
            drop(dialing);
            return self.dial(protocols, now).await;
        }
        self.dial(protocols, now).await
    }

    /// Returns an open connection.
    async fn open(&self, may_share: bool, now: Instant) -> Option<InstanceSession> {
        if may_share
            && let Some(shared) = self.pool.shared(now)
            && let Ok(Some(session)) = shared.spawn_stream().await
        {
            return Some(InstanceSession::Http2(Box::new(session)));
        }
        let idle = self.pool.take()?;
        Some(InstanceSession::http1(
            idle.stream,
            idle.received,
            idle.address,
            true,
        ))
    }

    async fn dial(
        &self,
        protocols: Protocols,
        now: Instant,
    ) -> Result<InstanceSession, ConnectError> {
        let addresses = self.addresses().await?;
        let protocols = if self.is_http1_only.load(Ordering::Relaxed) {
            Protocols::Http1
        } else {
            protocols
        };
        let dialed = self.dialer.dial(&addresses, protocols).await;
        let (address, stream) = dialed.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.preferred.fetch_add(1, Ordering::Relaxed);
            self.look_again.notify_one();
        })?;
        self.prefer(address);
        let received = stream.received();
        let is_http2 = stream.is_http2();
        if protocols == Protocols::Any {
            let spoken = if is_http2 { HTTP2 } else { HTTP1 };
            self.spoken.store(spoken, Ordering::Relaxed);
        }
        let stream: Stream = Box::new(stream);
        if !is_http2 {
            return Ok(InstanceSession::http1(stream, received, address, false));
        }
        let connection = begin_http2(stream).await?;
        let session = connection.spawn_stream().await;
        self.pool.share(connection, address, now);
        match session {
            Ok(Some(session)) => Ok(InstanceSession::Http2(Box::new(session))),
            Ok(None) => Err(DialError::Http2("it takes no request".to_owned()).into()),
            Err(e) => Err(DialError::Http2(e.etype().as_str().to_owned()).into()),
        }
    }

    /// Takes back a session that has ended in both directions. Its connection is kept if the
    /// instance keeps it open and nothing is left on it.
    pub(super) async fn release(&self, session: InstanceSession, now: Instant) {
        let InstanceSession::Http1(http1) = session else {
            return;
        };
        let mut session = http1.session;
        session.respect_keepalive();
        if let Some(stream) = session.reuse().await
            && self.addresses.load().contains(&http1.address)
        {
            self.pool.put(stream, http1.received, http1.address, now);
        }
    }

    /// Switches to HTTP/1.1, as the instance asked.
    pub(super) fn prefer_http1(&self) {
        self.is_http1_only.store(true, Ordering::Relaxed);
    }

    /// Opens a connection whenever `token` changes and none is open: the first request then needs
    /// no TLS handshake. Ends when the upstream is dropped.
    pub async fn keep_warm(
        upstream: Weak<Upstream>,
        mut token: watch::Receiver<Status>,
        clock: Arc<dyn Clock>,
    ) {
        let mut warmed = 0;
        loop {
            let generation =
                |status: &Status| status.token.as_ref().map(|token| token.generation());
            let newer = token.wait_for(|status| generation(status).is_some_and(|it| it > warmed));
            let Ok(Some(now)) = newer.await.map(|status| generation(&status)) else {
                return;
            };
            warmed = now;
            let Some(this) = upstream.upgrade() else {
                return;
            };
            if this.instance.tls {
                this.warm(&*clock).await;
            }
        }
    }

    async fn warm(&self, clock: &dyn Clock) {
        let _dialing = self.dialing.lock().await;
        if !self.pool.is_empty() {
            return;
        }
        // the first request reports a failure
        if let Ok(InstanceSession::Http1(http1)) = self.dial(Protocols::Any, clock.now()).await {
            let stream = http1.session.into_inner();
            self.pool
                .put(stream, http1.received, http1.address, clock.now());
        }
    }

    /// The addresses, the preferred one first.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        if let Some(addresses) = self.current() {
            return Ok(addresses);
        }
        let mut known = self.known.subscribe();
        let first = known.wait_for(|known| !matches!(known, Known::NotYet));
        let waited = tokio::time::timeout(self.instance.connect_timeout, first).await;
        let known = waited.ok().and_then(Result::ok).map(|known| known.clone());
        let problem = match known {
            Some(Known::Nothing(problem)) => problem,
            _ => "the look-up of its name has not ended yet".to_owned(),
        };
        let host = self.next_hop().0;
        self.current()
            .ok_or_else(|| ConnectError::NoAddress(format!("{host} has no address: {problem}")))
    }

    /// Resolves the name repeatedly, when its answers expire. Ends when the upstream is dropped and
    /// the last answer has expired.
    pub async fn keep_resolved(upstream: Weak<Upstream>) {
        let mut said = false;
        while let Some(this) = upstream.upgrade() {
            if this.next_hop().0.parse::<IpAddr>().is_ok() {
                return;
            }
            let valid_until = this.resolve(&mut said).await;
            let longest = this.instance.resolve_ttl_max;
            let look_again = Arc::clone(&this.look_again);
            drop(this);
            tokio::time::sleep(LOOK_UP_PAUSE).await;
            if let Some(end) = valid_until {
                tokio::select! {
                    () = tokio::time::sleep_until(end) => {}
                    () = tokio::time::sleep(longest) => {}
                    () = look_again.notified() => {}
                }
            }
        }
    }

    /// Closes unused connections, by `clock`. Ends when the upstream is dropped.
    pub async fn keep_pruned(upstream: Weak<Upstream>, clock: Arc<dyn Clock>) {
        loop {
            tokio::time::sleep(PRUNE_PAUSE).await;
            let Some(this) = upstream.upgrade() else {
                return;
            };
            this.pool.prune(clock.now());
        }
    }

    /// Resolves the name once; `said` is whether its failure was reported. Returns until when the
    /// answer is valid.
    async fn resolve(&self, said: &mut bool) -> Option<tokio::time::Instant> {
        match self.look_up().await {
            Ok((addresses, valid_until)) => {
                self.set(&addresses);
                *said = false;
                valid_until
            }
            Err(problem) => {
                if !*said {
                    warn!(instance = %self.instance.name, host = self.next_hop().0, "name look-up failed: {problem}");
                }
                *said = true;
                self.known.send_replace(Known::Nothing(problem));
                None
            }
        }
    }

    fn current(&self) -> Option<Vec<SocketAddr>> {
        let addresses = self.addresses.load();
        let first = self.preferred.load(Ordering::Relaxed);
        let first = first.checked_rem(addresses.len())?;
        let (after, from) = (&addresses[..first], &addresses[first..]);
        Some([from, after].concat())
    }

    fn prefer(&self, address: SocketAddr) {
        let addresses = self.addresses.load();
        if let Some(at) = addresses.iter().position(|known| *known == address) {
            self.preferred.store(at, Ordering::Relaxed);
        }
    }

    fn set(&self, ips: &[IpAddr]) {
        let port = self.next_hop().1;
        let at_port = |ip: &IpAddr| SocketAddr::new(*ip, port);
        let addresses: Vec<SocketAddr> = ips.iter().map(at_port).collect();
        if **self.addresses.load() != addresses {
            self.addresses.store(Arc::new(addresses.clone()));
            self.pool.keep_only(&addresses);
        }
        self.known.send_replace(Known::Addresses);
    }

    /// Queries DNS with the system's settings, which are read each time because a laptop changes
    /// networks. If that fails, asks the system, which also knows names outside DNS.
    async fn look_up(&self) -> Result<(Vec<IpAddr>, Option<tokio::time::Instant>), String> {
        let (host, port) = self.next_hop();
        let problem = match self.ask_dns(host).await {
            Ok(found) => return Ok(found),
            Err(e) => e.to_string(),
        };
        let system = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<IpAddr> = system
            .map(|found| found.map(|address| address.ip()).collect())
            .unwrap_or_default();
        if addresses.is_empty() {
            return Err(problem);
        }
        Ok((addresses, None))
    }

    async fn ask_dns(
        &self,
        host: &str,
    ) -> Result<(Vec<IpAddr>, Option<tokio::time::Instant>), hickory_resolver::net::NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        options.timeout = self.instance.connect_timeout;
        let found = builder.build()?.lookup_ip(host).await?;
        let valid_until = tokio::time::Instant::from_std(found.valid_until());
        Ok((found.iter().collect(), Some(valid_until)))
    }
}

/// Starts HTTP/2 on a connection that negotiated it.
async fn begin_http2(stream: Stream) -> Result<ConnectionRef, DialError> {
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = STREAMS;
    settings.stream_window_size = Some(STREAM_WINDOW);
    settings.connection_window_size = Some(CONNECTION_WINDOW);
    let begun = handshake(stream, settings).await;
    begun.map_err(|e| DialError::Http2(e.etype().as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CaFile;

    fn upstream(host: &str) -> Upstream {
        Upstream::new(Arc::new(Instance {
            name: "acme".into(),
            tls: true,
            host: host.to_owned(),
            port: 443,
            authority: host.to_owned(),
            token_path: "/rest/oauth/v2/token".to_owned(),
            ca_file: None,
            identity: None,
            proxy: None,
            http2: true,
            connect_timeout: Duration::from_millis(200),
            idle_timeout: None,
            header_timeout: Duration::from_secs(60),
            resolve_ttl_max: Duration::from_secs(30),
        }))
        .unwrap()
    }

    async fn addresses(upstream: &Upstream) -> Vec<String> {
        let addresses = upstream.addresses().await.unwrap();
        addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        let upstream = upstream("127.0.0.1");
        assert_eq!(addresses(&upstream).await, ["127.0.0.1:443"]);
    }

    #[tokio::test]
    async fn the_address_that_answered_last_is_tried_first() {
        let upstream = upstream("acme.example");
        upstream.set(&["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        assert_eq!(
            addresses(&upstream).await,
            ["192.0.2.1:443", "192.0.2.2:443"]
        );
        upstream.prefer("192.0.2.2:443".parse().unwrap());
        assert_eq!(
            addresses(&upstream).await,
            ["192.0.2.2:443", "192.0.2.1:443"]
        );
    }

    #[tokio::test]
    async fn another_port_of_one_name_begins_with_its_addresses() {
        let old = upstream("acme.example");
        old.set(&["192.0.2.1".parse().unwrap()]);
        let instance = Instance {
            port: 444,
            ..old.instance().clone()
        };
        let new = Upstream::new(Arc::new(instance)).unwrap();
        new.take_over_addresses(&old);
        assert_eq!(addresses(&new).await, ["192.0.2.1:444"]);

        let other = upstream("other.example");
        other.take_over_addresses(&old);
        assert!(other.current().is_none());
    }

    /// A TLS server with its own certificate, and that certificate.
    async fn server() -> (SocketAddr, tempfile::NamedTempFile) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.cert.pem()).unwrap();
        (address, file)
    }

    #[tokio::test]
    async fn each_instance_is_verified_by_its_own_certificates() {
        let ((one, its), (other, others)) = (server().await, server().await);
        let read = |file: &tempfile::NamedTempFile| CaFile::read(file.path()).unwrap();
        for (address, ca_file, expected) in [
            (one, Some(read(&its)), true),
            (one, Some(read(&others)), false),
            (one, None, false),
            (other, Some(read(&others)), true),
        ] {
            let instance = Instance {
                host: "localhost".to_owned(),
                port: address.port(),
                ca_file,
                connect_timeout: Duration::from_secs(5),
                ..upstream("localhost").instance().clone()
            };
            let upstream = Upstream::new(Arc::new(instance)).unwrap();
            upstream.set(&[address.ip()]);
            let now = Instant::ORIGIN;
            let connected = upstream.connect(Protocols::Any, false, now).await;
            let ca_file = &upstream.instance().ca_file;
            assert_eq!(connected.is_ok(), expected, "{ca_file:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_looked_up_for_nobody() {
        let upstream = Arc::new(upstream("acme.example"));
        let resolving = Upstream::keep_resolved(Arc::downgrade(&upstream));
        drop(upstream);
        resolving.await;
    }

    #[tokio::test]
    async fn localhost_is_found_on_this_machine() {
        let upstream = upstream("localhost");
        let (found, _) = upstream.look_up().await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_address_it_says_why_after_the_connect_timeout() {
        let problem = upstream("acme.example").addresses().await.unwrap_err();
        let problem = problem.to_string();
        assert!(problem.contains("acme.example has no address"), "{problem}");
    }
}
