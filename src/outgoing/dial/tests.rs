//! Races of addresses that answer, refuse, drop packets or hang, over real sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::super::addresses::Addresses;
use super::super::resolve::Servers;
use super::super::resolve::tests::{NameServer, Reply};
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Returns an address that drops connection attempts, because its backlog is full.
struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _filling: Vec<TcpStream>,
}

impl Blackhole {
    async fn new() -> Blackhole {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        let patience = Duration::from_millis(500);
        while let Ok(connected) = timeout(patience, TcpStream::connect(address)).await {
            filling.push(connected.unwrap());
        }
        Blackhole {
            address,
            _listener: listener,
            _filling: filling,
        }
    }
}

/// Returns an address without a listener.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Starts a server that accepts every connection and keeps it open.
async fn accepting(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    address
}

/// Starts a TLS server for `localhost`; also returns the file with its certificate.
async fn tls_server() -> (SocketAddr, tempfile::NamedTempFile) {
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

fn targets(addresses: &[SocketAddr]) -> Vec<Target> {
    let target = |address: &SocketAddr| Target {
        host: address.ip().to_string(),
        port: address.port(),
    };
    addresses.iter().map(target).collect()
}

fn dialer(
    addresses: &[SocketAddr],
    tls: Option<&tempfile::NamedTempFile>,
    limit: Duration,
) -> Dialer {
    let targets = targets(addresses);
    let ca_file = tls.map(|file| CaFile::read(file.path()).unwrap());
    let route = Route {
        host: "localhost",
        port: 443,
        written: URL,
        tls: tls.is_some(),
        http2: false,
        ca_file: ca_file.as_ref(),
        identity: None,
        proxy: None,
        address: &targets,
        connect_timeout: limit,
    };
    Dialer::new(&route, Addresses::new(targets.clone(), limit, limit)).unwrap()
}

/// Returns a dialer for `acme.example` at `port`, which `server` resolves.
fn by_name(server: &NameServer, port: u16, limit: Duration) -> Dialer {
    let route = Route {
        host: "acme.example",
        port,
        written: URL,
        tls: false,
        http2: false,
        ca_file: None,
        identity: None,
        proxy: None,
        address: &[],
        connect_timeout: limit,
    };
    let servers = Servers::At(server.address);
    let addresses = Addresses::with(route.targets(), limit, limit, servers);
    Dialer::new(&route, addresses).unwrap()
}

async fn dial(dialer: &Dialer) -> Result<SocketAddr, DialError> {
    dialer
        .dial(Protocols::Any)
        .await
        .map(|dialed| dialed.address)
}

#[tokio::test]
async fn a_blackholed_address_costs_a_cold_burst_a_quarter_of_a_second() {
    let (hole, good) = (Blackhole::new().await, accepting("127.0.0.1:0").await);
    let dialer = Arc::new(dialer(&[hole.address, good], None, LIMIT));
    let mut burst = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let dialer = Arc::clone(&dialer);
        burst.spawn(async move { dial(&dialer).await });
    }
    for dialed in burst.join_all().await {
        assert_eq!(dialed.unwrap(), good);
    }
    // from now on the other one is tried first
    assert_eq!(dialer.addresses.next(&[]), Some(good));
}

#[tokio::test]
async fn an_address_that_refuses_costs_nothing() {
    let (bad, good) = (refusing().await, accepting("127.0.0.1:0").await);
    let dialer = dialer(&[bad, good], None, LIMIT);
    let began = timers();
    assert_eq!(dial(&dialer).await.unwrap(), good);
    assert!(timers() - began < ATTEMPT_DELAY, "no delay is waited for");
}

#[tokio::test]
async fn it_fails_only_if_every_address_does_and_names_them_all() {
    let bad = [refusing().await, refusing().await];
    let error = dial(&dialer(&bad, None, LIMIT)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    assert!(!error.is_timeout && !error.is_final);
    assert_eq!(
        error.to_string(),
        format!(
            "localhost:443 refused the connection at {}, {}; nothing listens there, or a firewall refuses: check the instance's address",
            bad[0], bad[1]
        )
    );
}

#[tokio::test]
async fn where_every_address_swallows_it_takes_the_whole_time() {
    let holes = [Blackhole::new().await, Blackhole::new().await];
    let limit = Duration::from_millis(600);
    let addresses = [holes[0].address, holes[1].address];
    let dialer = dialer(&addresses, None, limit);
    let error = dial(&dialer).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(
        error.to_string(),
        "no connection to localhost:443 within 600ms; a firewall may drop it: check the instance's address and the way out of this network"
    );
}

#[tokio::test]
async fn a_handshake_that_hangs_or_fails_leads_to_the_next_address() {
    let (good, file) = tls_server().await;
    let (other, _others) = tls_server().await;
    let hanging = accepting("127.0.0.1:0").await;
    for bad in [hanging, other] {
        let dialer = dialer(&[bad, good], Some(&file), LIMIT);
        assert_eq!(dial(&dialer).await.unwrap(), good);
        assert_eq!(dialer.addresses.next(&[]), Some(good));
    }
    let error = dial(&dialer(&[other], Some(&file), LIMIT)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls);
    assert!(error.is_final);
    let said = error.to_string();
    assert!(
        said.starts_with("the certificate of localhost is not accepted ("),
        "{said}"
    );
}

#[tokio::test]
async fn a_dropped_aaaa_query_costs_no_second() {
    let good = accepting("127.0.0.1:0").await;
    let server = NameServer::start(Reply::Addresses(vec![good.ip()], 60), Reply::Nothing).await;
    let dialer = by_name(&server, good.port(), LIMIT);
    let began = timers();
    assert_eq!(dial(&dialer).await.unwrap(), good);
    assert!(
        timers() - began < Duration::from_secs(3),
        "not the time of a retry"
    );
}

#[tokio::test]
async fn the_answer_that_comes_late_saves_the_call() {
    // nothing listens on ::1; without IPv6, connecting fails at once too
    let good = accepting("127.0.0.1:0").await;
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let server = NameServer::start(Reply::Nothing, Reply::Addresses(vec![v6], 60)).await;
    let dialer = by_name(&server, good.port(), Duration::from_secs(6));
    let late = async {
        // after the first query was dropped
        while server.queries() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.reply_with(
            Reply::Addresses(vec![Ipv4Addr::LOCALHOST.into()], 60),
            Reply::Addresses(vec![v6], 60),
        );
    };
    let (dialed, ()) = tokio::join!(dial(&dialer), late);
    assert_eq!(dialed.unwrap(), good);
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart() {
    let limit = Duration::from_millis(600);
    let server = NameServer::start(Reply::NoSuchName, Reply::NoSuchName).await;
    let error = dial(&by_name(&server, 443, limit)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_timeout), (Kind::Dns, false));
    assert_eq!(
        error.to_string(),
        "cannot find the address of acme.example (DNS says that the name does not exist); check the instance's url and this machine's DNS"
    );
    let server = NameServer::start(Reply::Nothing, Reply::Nothing).await;
    let error = dial(&by_name(&server, 443, limit)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_timeout), (Kind::Dns, true));
    assert!(
        error
            .to_string()
            .contains("no answer from DNS within 600ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_named_with_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = b"HTTP/1.1 403 canary\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        // until the caller closes it
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let proxy = tunnel::Proxy::parse(&format!("http://canary:canary@{address}")).unwrap();
    let url = Url::parse("https://acme.example").unwrap();
    let route = Route {
        proxy: Some((&proxy, "proxy")),
        ..Route::to(&url, LIMIT)
    };
    let addresses = Addresses::new(route.targets(), LIMIT, LIMIT);
    let error = dial(&Dialer::new(&route, addresses).unwrap()).await;
    let error = error.unwrap_err();
    assert_eq!((error.step, error.kind()), (Step::Proxy, Kind::Connect));
    assert!(error.is_final && !error.is_timeout);
    assert_eq!(
        error.to_string(),
        format!(
            "the proxy {address} did not connect to acme.example:443: it answered 403 Forbidden; its operator must allow that host and port"
        )
    );
}

#[test]
fn a_route_leads_to_the_proxy_the_addresses_or_the_host() {
    let url = Url::parse("https://[::1]:8443").unwrap();
    let mut route = Route::to(&url, LIMIT);
    let shown = |route: &Route<'_>| {
        let shown = route.targets().into_iter().map(|target| target.to_string());
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(&route), "[::1]:8443");
    let addresses = targets(&[
        "10.1.2.3:443".parse().unwrap(),
        "10.1.2.4:444".parse().unwrap(),
    ]);
    route.address = &addresses;
    assert_eq!(shown(&route), "10.1.2.3:443 10.1.2.4:444");
    let proxy = tunnel::Proxy::parse("http://proxy.corp:3128").unwrap();
    route.proxy = Some((&proxy, "proxy"));
    assert_eq!(shown(&route), "proxy.corp:3128");
}
