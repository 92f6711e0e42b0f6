//! Where an instance is: its addresses, looked up in the background and kept while they are valid,
//! and the peer that a request is sent to.
//!
//! Behind a forward proxy it is the proxy that is looked up; the instance's name is resolved there.
//!
//! A name that stops resolving costs nothing while its last addresses still answer. A connection
//! that cannot be made moves every later request on to the next address.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::ext::TcpKeepalive;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::utils::tls::CertKey;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::config::Instance;
use super::trust;
use super::tunnel::Tunnel;
use crate::tls::CaFile;

/// How long a connection to the instance is kept without use: below the 60 s after which load
/// balancers commonly end it.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// The shortest time between two look-ups.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(1);

/// How many requests share a connection to an instance that speaks HTTP/2.
const STREAMS: usize = 64;

/// How much of one response may be under way on such a connection, in bytes. The connection has room
/// for that of every stream: an app that reads slowly holds up nobody else.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Counts the upstreams of this process: each has connections of its own, which serve no other.
static UPSTREAMS: AtomicU64 = AtomicU64::new(0);

/// An instance's whereabouts.
#[derive(Debug)]
pub struct Upstream {
    instance: Arc<Instance>,
    authority: HeaderValue,
    /// What its connections have in common, and no others do.
    group: u64,
    client_cert: Option<Arc<CertKey>>,
    roots: OnceLock<Arc<CaType>>,
    peers: ArcSwap<Vec<HttpPeer>>,
    /// Counts up when an address fails; which one is used follows from it.
    preferred: AtomicUsize,
    known: watch::Sender<Known>,
    look_again: Arc<Notify>,
}

/// What the last look-up gave.
#[derive(Clone, Debug)]
enum Known {
    NotYet,
    Addresses,
    Nothing(String),
}

impl Upstream {
    /// An instance whose addresses are not known yet, unless it is named by one. Needs
    /// [`Upstream::keep_resolved`] to run.
    ///
    /// # Errors
    /// If the instance's authority is no header value.
    pub fn new(instance: Arc<Instance>) -> Result<Upstream, InvalidHeaderValue> {
        let authority = HeaderValue::try_from(&instance.authority)?;
        let identity = instance.identity.as_ref();
        let upstream = Upstream {
            authority,
            group: UPSTREAMS.fetch_add(1, Ordering::Relaxed),
            client_cert: identity.map(|identity| Arc::new(trust::client_cert(identity))),
            roots: OnceLock::new(),
            peers: ArcSwap::default(),
            preferred: AtomicUsize::new(0),
            known: watch::Sender::new(Known::NotYet),
            look_again: Arc::default(),
            instance,
        };
        if let Ok(ip) = upstream.next_hop().0.parse::<IpAddr>() {
            upstream.set(&[ip]);
        }
        Ok(upstream)
    }

    /// Where connections lead: a name or an address, and a port.
    fn next_hop(&self) -> (&str, u16) {
        match &self.instance.proxy {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => (&self.instance.host, self.instance.port),
        }
    }

    /// Begins with the addresses at which `other` was found, if both have one name.
    pub fn take_over_addresses(&self, other: &Upstream) {
        let known = other.peers.load();
        let known = known.iter().filter_map(|peer| peer._address.as_inet());
        let addresses: Vec<IpAddr> = known.map(SocketAddr::ip).collect();
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
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// How many addresses it has.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.peers.load().len()
    }

    /// The peer to send to, for a connector that verifies by `known`: if that is not what the
    /// instance is verified by, the peer says so. Waits for the first look-up, at most for the
    /// connect timeout.
    ///
    /// # Errors
    /// Why there is no address, in words.
    pub async fn peer(&self, known: Option<&CaFile>) -> Result<Box<HttpPeer>, String> {
        let mut peer = self.address().await?;
        if self.instance.tls && self.instance.ca_file.as_ref() != known {
            let roots = || trust::roots(self.instance.ca_file.as_ref());
            peer.options.ca = Some(Arc::clone(self.roots.get_or_init(roots)));
        }
        Ok(peer)
    }

    async fn address(&self) -> Result<Box<HttpPeer>, String> {
        if let Some(peer) = self.current() {
            return Ok(peer);
        }
        let mut known = self.known.subscribe();
        let first = known.wait_for(|known| !matches!(known, Known::NotYet));
        let waited = tokio::time::timeout(self.instance.connect_timeout, first).await;
        let known = waited.ok().and_then(Result::ok).map(|known| known.clone());
        let problem = match known {
            Some(Known::Nothing(problem)) => problem,
            _ => "the look-up of its name has not ended yet".to_owned(),
        };
        self.current()
            .ok_or_else(|| format!("{} has no address: {problem}", self.next_hop().0))
    }

    /// A connection could not be made: further requests go to the next address, and the name is
    /// looked up again.
    pub fn connection_failed(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
        self.look_again.notify_one();
    }

    /// Looks the name up, again and again, as long as its answers are valid for. Ends once nobody
    /// has the upstream any more and the last answer is no longer valid.
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

    /// Looks the name up once; `said` is whether its failure has been reported. Gives until when
    /// the answer is valid.
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

    fn current(&self) -> Option<Box<HttpPeer>> {
        let peers = self.peers.load();
        let at = self.preferred.load(Ordering::Relaxed);
        let peer = peers.get(at.checked_rem(peers.len())?)?;
        Some(Box::new(peer.clone()))
    }

    fn set(&self, addresses: &[IpAddr]) {
        let peers: Vec<HttpPeer> = addresses
            .iter()
            .map(|ip| self.peer_at(SocketAddr::new(*ip, self.next_hop().1)))
            .collect();
        let before = self.peers.load();
        let unchanged = before
            .iter()
            .map(|peer| &peer._address)
            .eq(peers.iter().map(|peer| &peer._address));
        if !unchanged {
            self.peers.store(Arc::new(peers));
        }
        self.known.send_replace(Known::Addresses);
    }

    fn peer_at(&self, address: SocketAddr) -> HttpPeer {
        let instance = &self.instance;
        let mut peer = HttpPeer::new(address, instance.tls, instance.host.clone());
        peer.group_key = self.group;
        peer.client_cert_key = self.client_cert.clone();
        let options = &mut peer.options;
        options.connection_timeout = Some(instance.connect_timeout);
        options.total_connection_timeout = Some(instance.connect_timeout);
        options.read_timeout = instance.idle_timeout;
        options.write_timeout = instance.idle_timeout;
        options.idle_timeout = Some(KEEP_IDLE);
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            count: 4,
            #[cfg(target_os = "linux")]
            user_timeout: Duration::ZERO,
        });
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        if instance.tls && instance.http2 {
            options.alpn = ALPN::H2H1;
            options.max_h2_streams = STREAMS;
            options.h2_stream_window_size = Some(STREAM_WINDOW);
            options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        }
        if let Some(proxy) = &instance.proxy {
            let tunnel = Tunnel::new(proxy.clone(), instance);
            options.custom_l4 = Some(Arc::new(tunnel));
        }
        peer
    }

    /// Asks DNS with the system's settings, read anew each time because a laptop changes networks;
    /// where that fails, the system itself, which knows names that DNS does not.
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

#[cfg(test)]
mod tests {
    use super::*;

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
            resolve_ttl_max: Duration::from_secs(30),
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        let peer = upstream("127.0.0.1").peer(None).await.unwrap();
        assert_eq!(peer._address.to_string(), "127.0.0.1:443");
        assert_eq!(
            peer.sni, "127.0.0.1",
            "never empty: that would turn verification off"
        );
    }

    #[tokio::test]
    async fn a_failed_connection_moves_on_to_the_next_address() {
        let upstream = upstream("acme.example");
        upstream.set(&["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        let first = upstream.peer(None).await.unwrap();
        assert_eq!(first._address.to_string(), "192.0.2.1:443");
        upstream.connection_failed();
        let second = upstream.peer(None).await.unwrap();
        assert_eq!(second._address.to_string(), "192.0.2.2:443");
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
        let peer = new.peer(None).await.unwrap();
        assert_eq!(peer._address.to_string(), "192.0.2.1:444");

        let other = upstream("other.example");
        other.take_over_addresses(&old);
        assert_eq!(other.addresses(), 0);
    }

    /// A server that speaks TLS by a certificate of its own, and that certificate.
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
    async fn each_instance_is_verified_by_its_own_certificates_whatever_the_connector_knows() {
        use pingora_core::connectors::{ConnectorOptions, TransportConnector};

        let ((one, its), (other, others)) = (server().await, server().await);
        let read = |file: &tempfile::NamedTempFile| CaFile::read(file.path()).unwrap();
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(its.path().display().to_string());
        let connector = TransportConnector::new(Some(options));
        let known = read(&its);
        for (address, ca_file, expected) in [
            (one, Some(known.clone()), true),
            (one, Some(read(&others)), false),
            (one, None, false),
            (other, Some(read(&others)), true),
            (other, Some(known.clone()), false),
        ] {
            let instance = Instance {
                host: "localhost".to_owned(),
                port: address.port(),
                ca_file,
                ..upstream("localhost").instance().clone()
            };
            let upstream = Upstream::new(Arc::new(instance)).unwrap();
            upstream.set(&[address.ip()]);
            let peer = upstream.peer(Some(&known)).await.unwrap();
            let connected = connector.new_stream(&*peer).await;
            assert_eq!(
                connected.is_ok(),
                expected,
                "{:?}",
                upstream.instance().ca_file
            );
        }
    }

    #[tokio::test]
    async fn connections_of_one_upstream_serve_no_other() {
        use pingora_core::upstreams::peer::Peer;

        let direct = upstream("192.0.2.1");
        let again = upstream("192.0.2.1");
        let proxy = crate::outgoing::tunnel::Proxy::parse("http://192.0.2.1:443").unwrap();
        let tunnelled = Upstream::new(Arc::new(Instance {
            proxy: Some(proxy),
            ..direct.instance().clone()
        }));
        let tunnelled = tunnelled.unwrap();
        let mut hashes = Vec::new();
        for upstream in [&direct, &again, &tunnelled] {
            let peer = upstream.peer(None).await.unwrap();
            assert_eq!(peer._address.to_string(), "192.0.2.1:443");
            assert_eq!(
                peer.reuse_hash(),
                upstream.peer(None).await.unwrap().reuse_hash()
            );
            hashes.push(peer.reuse_hash());
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 3);
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
        let problem = upstream("acme.example").peer(None).await.unwrap_err();
        assert!(problem.contains("acme.example has no address"), "{problem}");
    }
}
