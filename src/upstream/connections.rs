//! The connections to an instance: open ones, and new ones to addresses that are resolved in the
//! background.
//!
//! Behind a forward proxy, the proxy's name is resolved here and the instance's by the proxy.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use pingora::protocols::Stream;
use tokio::sync::{Mutex, watch};
use tokio_util::either::Either;

use super::Instance;
use super::health::ApiHealth;
use super::http2::{self, Connection};
use super::pool::{Idle, Pool};
use super::session::InstanceSession;
use super::stream::InstanceStream;
use crate::clock::{Clock, Instant, timers};
use crate::outgoing::addresses::Addresses;
use crate::outgoing::dial::{DialError, Dialer, Kind, Protocols};
use crate::telemetry::Expiry;
use crate::tls;
use crate::token::cache::Status;

/// The interval of the background maintenance of an instance.
const KEEP_PAUSE: Duration = Duration::from_secs(5);

/// An instance, and the connections to it.
#[derive(Debug)]
pub struct Upstream {
    instance: Arc<Instance>,
    host: HeaderValue,
    authority: Authority,
    dialer: Dialer,
    pool: Pool,
    health: Arc<ApiHealth>,
    /// The expiry of the instance's latest certificate.
    certificate: Expiry,
    /// The protocol of the last new connection: whether requests may share one.
    spoken: AtomicU8,
    /// Held while opening a connection that others may share.
    dialing: Mutex<()>,
    /// Counts failed connections.
    failures: AtomicU64,
    /// The instance asked for HTTP/1.1.
    is_http1_only: AtomicBool,
}

/// Why an instance is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its host is not a valid value of `Host`.
    #[error("its host cannot be sent in a header")]
    Host,
    /// No certificate authority is available to verify it.
    #[error("{}", .0.reason)]
    Tls(tls::Error),
}

/// Why no connection to an instance is available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No new connection could be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The instance did not answer the start of HTTP/2.
    #[error(
        "{host} does not speak HTTP/2, though it offers it ({cause}); if this goes on, set http2 = false for the instance"
    )]
    Http2 {
        /// The instance.
        host: String,
        /// What went wrong.
        cause: String,
    },
}

/// The known protocol of the instance.
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

impl ConnectError {
    /// The kind of failure.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            ConnectError::Dial(error) => error.kind(),
            ConnectError::Http2 { .. } => Kind::Protocol,
        }
    }

    /// Returns whether it timed out.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, ConnectError::Dial(error) if error.is_timeout)
    }

    /// Returns whether another attempt would fail the same way.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, ConnectError::Dial(error) if error.is_final)
    }
}

impl Upstream {
    /// Returns an instance whose addresses are not known yet, unless its host is an address.
    /// [`Upstream::keep`] must run.
    ///
    /// # Errors
    /// [`Error`] if the instance is unusable.
    pub fn new(instance: Arc<Instance>) -> Result<Upstream, Error> {
        let host = HeaderValue::try_from(&instance.authority).map_err(|_| Error::Host)?;
        let authority = Authority::try_from(&*instance.authority).map_err(|_| Error::Host)?;
        let route = instance.route();
        let limit = instance.connect_timeout;
        let addresses = Addresses::new(route.targets(), limit, instance.resolve_ttl_max);
        Ok(Upstream {
            host,
            authority,
            dialer: Dialer::new(&route, addresses).map_err(Error::Tls)?,
            pool: Pool::default(),
            health: Arc::new(ApiHealth::new(Arc::clone(&instance.name))),
            certificate: Expiry::default(),
            spoken: AtomicU8::new(UNKNOWN),
            dialing: Mutex::default(),
            failures: AtomicU64::new(0),
            is_http1_only: AtomicBool::new(!(instance.tls && instance.http2)),
            instance,
        })
    }

    /// The addresses of the first hop.
    #[must_use]
    pub fn addresses(&self) -> &Arc<Addresses> {
        self.dialer.addresses()
    }

    /// The health of its API.
    #[must_use]
    pub fn health(&self) -> &Arc<ApiHealth> {
        &self.health
    }

    /// The expiry of the certificate that the instance last presented.
    #[must_use]
    pub fn certificate(&self) -> &Expiry {
        &self.certificate
    }

    /// Starts with the addresses, if the name is the same, and the API's health from `other`, the
    /// same instance before a change.
    pub fn take_over(&mut self, other: &Upstream) {
        self.addresses().take_over(other.addresses());
        self.health = Arc::clone(&other.health);
        self.certificate = other.certificate.clone();
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The value of `Host`.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The same for HTTP/2 as `:authority` (RFC 9113, section 8.3.1).
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns a connection for one request at `now`: an open one, unless it must be `fresh`, or a
    /// new one. A failed dial is retried once if the cause may be temporary.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(crate) async fn connect(
        &self,
        protocols: Protocols,
        fresh: bool,
        now: Instant,
    ) -> Result<InstanceSession, ConnectError> {
        match self.open_or_dial(protocols, fresh, now).await {
            // nothing was sent, so retrying is safe
            Err(error) if !error.is_final() => self.open_or_dial(protocols, fresh, now).await,
            connected => connected,
        }
    }

    async fn open_or_dial(
        &self,
        protocols: Protocols,
        fresh: bool,
        now: Instant,
    ) -> Result<InstanceSession, ConnectError> {
        let may_share = protocols == Protocols::Any && !self.is_http1_only.load(Ordering::Relaxed);
        if !fresh && let Some(open) = self.open(may_share, now) {
            return Ok(open);
        }
        let speaks_http2 = || self.spoken.load(Ordering::Relaxed) != HTTP1;
        if !may_share || !speaks_http2() {
            return self.dial(protocols, fresh, now).await;
        }
        // one request opens the connection and the others share it; if it fails, each tries for
        // itself
        let failures = self.failures.load(Ordering::Relaxed);
        let dialing = self.dialing.lock().await;
        if let Some(open) = self.open(may_share, now) {
            return Ok(open);
        }
        if self.failures.load(Ordering::Relaxed) != failures || !speaks_http2() {
            drop(dialing);
            return self.dial(protocols, fresh, now).await;
        }
        self.dial(protocols, fresh, now).await
    }

    /// Returns an open connection.
    fn open(&self, may_share: bool, now: Instant) -> Option<InstanceSession> {
        let shared = may_share.then(|| self.pool.request(now)).flatten();
        match shared {
            Some(request) => Some(InstanceSession::Http2(Box::new(request))),
            None => self.pool.take().map(reused),
        }
    }

    /// Waits until there is no file descriptor for a new connection and another request returns its
    /// connection; returns that.
    async fn returned_in_shortage(&self) -> Idle {
        loop {
            self.dialer.shortage().await;
            if let Some(idle) = self.pool.take() {
                return idle;
            }
        }
    }

    async fn dial(
        &self,
        protocols: Protocols,
        fresh: bool,
        now: Instant,
    ) -> Result<InstanceSession, ConnectError> {
        let protocols = if self.is_http1_only.load(Ordering::Relaxed) {
            Protocols::Http1
        } else {
            protocols
        };
        let dialed = tokio::select! {
            dialed = self.dialer.dial(protocols) => dialed,
            idle = self.returned_in_shortage(), if !fresh => return Ok(reused(idle)),
        };
        let dialed = dialed.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        let address = dialed.address;
        if let Either::Right(stream) = &dialed.transport
            && let Some([certificate, ..]) = stream.get_ref().1.peer_certificates()
            && let Some(expires) = tls::expiry(certificate)
        {
            self.certificate.set(expires);
        }
        let stream = InstanceStream::new(dialed.transport, self.instance.header_timeout);
        let received = stream.received();
        let is_http2 = stream.is_http2();
        if protocols == Protocols::Any {
            let spoken = if is_http2 { HTTP2 } else { HTTP1 };
            self.spoken.store(spoken, Ordering::Relaxed);
        }
        if !is_http2 {
            let stream: Stream = Box::new(stream);
            return Ok(InstanceSession::http1(stream, received, address, false));
        }
        let unspoken = |cause| ConnectError::Http2 {
            host: self.instance.authority.clone(),
            cause,
        };
        let started = Connection::start(stream).await;
        let connection = started.map_err(|e| unspoken(http2::cause(&e)))?;
        let request = connection.request(false);
        self.pool.share(connection, address, now);
        let request = request.ok_or_else(|| unspoken("it takes no request".to_owned()))?;
        Ok(InstanceSession::Http2(Box::new(request)))
    }

    /// Takes back a session that has ended in both directions. Keeps its connection if the instance
    /// keeps it open and no bytes are left on it.
    pub(crate) async fn release(&self, session: InstanceSession, now: Instant) {
        let InstanceSession::Http1(http1) = session else {
            return;
        };
        let mut session = http1.session;
        session.respect_keepalive();
        if let Some(stream) = session.reuse().await {
            self.pool.put(stream, http1.received, http1.address, now);
        }
    }

    /// Switches to HTTP/1.1, as the instance asked for.
    pub(crate) fn prefer_http1(&self) {
        self.is_http1_only.store(true, Ordering::Relaxed);
    }

    /// Opens a connection whenever `token` changes and none is open, so that the first request
    /// needs no TLS handshake. Ends when the upstream is dropped.
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
        if let Ok(InstanceSession::Http1(http1)) =
            self.dial(Protocols::Any, true, clock.now()).await
        {
            let stream = http1.session.into_inner();
            self.pool
                .put(stream, http1.received, http1.address, clock.now());
        }
    }

    /// Maintains the instance by `clock`: resolves its name before the last answer expires, closes
    /// connections that are idle for too long or lead to an address that is no longer valid, and
    /// logs outages. Ends when the upstream is dropped.
    pub async fn keep(upstream: Weak<Upstream>, clock: Arc<dyn Clock>) {
        while let Some(this) = upstream.upgrade() {
            let addresses = Arc::clone(this.addresses());
            addresses.look_up_if_due();
            this.pool.prune(clock.now());
            this.pool.keep_only(&addresses.current());
            this.health.report(clock.now());
            drop(this);
            let next = timers() + KEEP_PAUSE;
            let due = addresses.due().filter(|due| *due > timers());
            tokio::select! {
                () = tokio::time::sleep_until(due.map_or(next, |due| due.min(next))) => {}
                () = addresses.changed() => {}
            }
        }
    }
}

/// Returns a session on a connection that was idle.
fn reused(idle: Idle) -> InstanceSession {
    InstanceSession::http1(idle.stream, idle.received, idle.address, true)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::outgoing::addresses::Target;
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
            address: Vec::new(),
            http2: true,
            connect_timeout: Duration::from_millis(200),
            idle_timeout: None,
            header_timeout: Duration::from_secs(60),
            resolve_ttl_max: Duration::from_secs(30),
        }))
        .unwrap()
    }

    /// Starts a TLS server with its own certificate; returns both.
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
                address: vec![Target {
                    host: address.ip().to_string(),
                    port: address.port(),
                }],
                ca_file,
                connect_timeout: Duration::from_secs(5),
                ..upstream("localhost").instance().clone()
            };
            let upstream = Upstream::new(Arc::new(instance)).unwrap();
            let now = Instant::ORIGIN;
            let connected = upstream.connect(Protocols::Any, false, now).await;
            let ca_file = &upstream.instance().ca_file;
            assert_eq!(connected.is_ok(), expected, "{ca_file:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_looked_up_for_nobody() {
        let upstream = Arc::new(upstream("acme.example"));
        let clock = Arc::new(crate::clock::TokioClock::start());
        let keeping = Upstream::keep(Arc::downgrade(&upstream), clock);
        drop(upstream);
        keeping.await;
    }

    #[test]
    fn a_changed_instance_goes_on_with_what_is_known() {
        let old = upstream("192.0.2.1");
        let now = Instant::ORIGIN + Duration::from_secs(9_000);
        old.health().failed(now, Kind::Connect, "refused");
        let instance = Instance {
            port: 444,
            ..old.instance().clone()
        };
        let mut new = Upstream::new(Arc::new(instance)).unwrap();
        new.take_over(&old);
        assert_eq!(new.health().summary(now).failed, 1);
        assert_eq!(
            new.addresses().current(),
            ["192.0.2.1:444".parse().unwrap()]
        );
    }
}
