//! The client against misbehaving servers over real sockets. Time is only ever an upper bound.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::clock::SystemClock;
use crate::oauth::{AuthMethod, testing};
use crate::outgoing::via::{self, VIA};
use crate::tls::CaFile;
use crate::token::ports::Outcome;

const TOKEN: &str = r#"{"access_token":"abc","token_type":"Bearer","expires_in":299}"#;

/// What a server does after it has read a request.
#[derive(Clone)]
enum Then {
    /// Sends this and closes.
    Send(String),
    /// Closes with a reset.
    Reset,
    /// Sends this and keeps the connection open.
    Hang(String),
    /// Sends this and then endless bytes.
    Flood(String),
}

/// A server on its own port; stops when dropped.
struct Server {
    address: SocketAddr,
    /// One per connection: the request it carried.
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(then: Then) -> Server {
        Server::start_with(None, then).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, then: Then) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let index = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(String::new());
                    seen.len() - 1
                };
                if matches!(then, Then::Reset) {
                    stream.set_zero_linger().unwrap();
                }
                let note = |request| seen.lock().unwrap()[index] = request;
                match &tls {
                    None => serve(stream, &then, note).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => serve(stream, &then, note).await,
                        // a client that distrusts the certificate aborts the handshake
                        Err(_) => continue,
                    },
                }
            }
        });
        Server {
            address,
            requests,
            task,
        }
    }

    fn connections(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request, records it, answers.
async fn serve<S, N>(mut stream: S, then: &Then, note: N)
where
    S: AsyncRead + AsyncWrite + Unpin,
    N: FnOnce(String),
{
    let mut request = String::new();
    let body_length = "grant_type=client_credentials".len();
    while request
        .split_once("\r\n\r\n")
        .is_none_or(|(_, body)| body.len() < body_length)
    {
        let mut some = [0; 4096];
        let read = stream.read(&mut some).await.unwrap();
        assert!(read > 0, "the request was cut: {request}");
        request.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    note(request);
    match then {
        Then::Send(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        Then::Reset => {}
        Then::Hang(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            // until the client closes the connection
            let _ = stream.read(&mut [0; 1]).await;
        }
        Then::Flood(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
        }
    }
}

fn answer(status: &str, body: &str) -> Then {
    Then::Send(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn config(scheme: &str, address: SocketAddr) -> Config {
    Config {
        token_url: format!("{scheme}://{address}/rest/oauth/v2/token")
            .parse()
            .unwrap(),
        ..testing::config("urn:sys:env:1", "canary-61")
    }
}

async fn ask(config: &Config) -> Result<Grant, RequestError> {
    let client = TokenClient::new(config, None, Arc::new(SystemClock)).unwrap();
    let result = client.request_token().await;
    let shown = format!("{client:?} {result:?}");
    assert!(!shown.contains("canary"), "{shown}");
    result
}

/// The failure of a request to a server that does `then`, over one connection.
async fn failure(then: Then) -> RequestError {
    let timeout = match then {
        Then::Hang(_) => Duration::from_secs(1),
        _ => Duration::from_secs(30),
    };
    let server = Server::start(then).await;
    let error = ask(&Config {
        timeout,
        ..config("http", server.address)
    })
    .await
    .unwrap_err();
    assert_eq!(server.connections(), 1, "one request a call");
    assert!(
        error.message.contains(&server.address.to_string()),
        "{}",
        error.message
    );
    error
}

#[tokio::test]
async fn a_request_is_what_the_document_asks_for() {
    let server = Server::start(answer("200 OK", TOKEN)).await;
    let grant = ask(&config("http", server.address)).await.unwrap();
    assert_eq!(grant.access_token.expose(), "abc");
    assert_eq!(grant.expires_in, Duration::from_secs(299));

    let request = server.requests.lock().unwrap()[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "grant_type=client_credentials");
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /rest/oauth/v2/token HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    let agent = format!(
        "user-agent: collibra-auth-proxy/{}",
        env!("CARGO_PKG_VERSION")
    );
    let via = format!("{VIA}: {}", via::own().to_str().unwrap());
    assert_eq!(
        lines,
        [
            "accept-encoding: identity",
            "accept: application/json",
            "authorization: Basic dXJuJTNBc3lzJTNBZW52JTNBMTpjYW5hcnktNjE=",
            "connection: close",
            "content-length: 29",
            "content-type: application/x-www-form-urlencoded",
            &host,
            &agent,
            &via,
        ]
    );
}

#[tokio::test]
async fn client_secret_post_sends_no_authorization() {
    let server = Server::start(answer("200 OK", TOKEN)).await;
    let config = Config {
        auth_method: AuthMethod::ClientSecretPost,
        ..config("http", server.address)
    };
    ask(&config).await.unwrap();
    let request = server.requests.lock().unwrap()[0].clone();
    assert!(!request.to_ascii_lowercase().contains("authorization"));
    assert!(request.ends_with("&client_id=urn%3Asys%3Aenv%3A1&client_secret=canary-61"));
}

#[tokio::test]
async fn every_request_has_a_connection_of_its_own() {
    let server = Server::start(answer("200 OK", TOKEN)).await;
    let config = config("http", server.address);
    let client = TokenClient::new(&config, None, Arc::new(SystemClock)).unwrap();
    for n in 1..=3 {
        client.request_token().await.unwrap();
        assert_eq!(server.connections(), n);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_lost_and_not_tried_again() {
    for then in [
        Then::Reset,
        Then::Send(String::new()),
        Then::Send("HTTP/1.1 200 OK\r\nContent-".to_owned()),
        Then::Send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{TOKEN}"
        )),
        Then::Send("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
    ] {
        let error = failure(then).await;
        assert_eq!(error.outcome, Outcome::ConnectionLost, "{error}");
    }
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    for begun in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let error = failure(Then::Hang(begun.to_owned())).await;
        assert_eq!(error.outcome, Outcome::Timeout, "{error}");
        assert!(error.message.contains("within 1s"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_counts_though_its_body_breaks_or_hangs() {
    let begun = "HTTP/1.1 429 Too Many\r\nRetry-After: 30\r\nContent-Length: 99\r\n\r\n{";
    for then in [Then::Send(begun.to_owned()), Then::Hang(begun.to_owned())] {
        let error = failure(then).await;
        assert_eq!(error.outcome, Outcome::RateLimited, "{error}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let error = failure(Then::Flood("HTTP/1.1 200 OK\r\n\r\n".to_owned())).await;
    assert_eq!(error.outcome, Outcome::Malformed, "{error}");
    assert!(error.message.contains("larger than 64 KiB"), "{error}");

    let error = failure(answer("200 OK", &" ".repeat(1 << 20))).await;
    assert_eq!(error.outcome, Outcome::Malformed, "{error}");
}

#[tokio::test]
async fn refusals_and_failures_are_not_tried_again() {
    for (status, outcome) in [
        ("401 No", Outcome::InvalidClient),
        ("408 Late", Outcome::ServerError),
        ("429 Many", Outcome::RateLimited),
        ("500 Oh", Outcome::ServerError),
        ("503 Off", Outcome::ServerError),
    ] {
        let error = failure(answer(status, "{}")).await;
        assert_eq!(error.outcome, outcome, "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(answer("200 OK", TOKEN)).await;
    for status in ["301 Moved", "302 Found", "307 Keep", "308 Keep"] {
        let error = failure(Then::Send(format!(
            "HTTP/1.1 {status}\r\nLocation: http://{}/x?y\r\nContent-Length: 0\r\n\r\n",
            elsewhere.address
        )))
        .await;
        assert_eq!(error.outcome, Outcome::ServerError, "{error}");
        let target = format!("pointing to {},", elsewhere.address);
        assert!(error.message.contains(&target), "{error}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn cookies_are_not_kept() {
    let server = Server::start(Then::Send(format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=1; Path=/\r\n\r\n{TOKEN}"
    )))
    .await;
    let config = config("http", server.address);
    let client = TokenClient::new(&config, None, Arc::new(SystemClock)).unwrap();
    client.request_token().await.unwrap();
    client.request_token().await.unwrap();
    assert!(!server.requests.lock().unwrap()[1].contains("JSESSIONID"));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_no_request() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = ask(&config("http", address)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Connect, "{error}");
    assert!(error.message.contains("refused the connection"), "{error}");
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_no_request() {
    let (millis, long) = (Duration::from_millis, Duration::from_secs(30));
    // second case: the overall timeout is shorter than the connect timeout
    for (connect_timeout, timeout, within) in [
        (millis(200), long, "200ms"),
        (long, millis(4_000), "3s 600ms"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            connect_timeout,
            timeout,
            ..config("https", listener.local_addr().unwrap())
        };
        let (error, held) = tokio::join!(ask(&config), listener.accept());
        let error = error.unwrap_err();
        drop(held);
        assert_eq!(error.outcome, Outcome::Connect, "{error}");
        let within = format!(
            "no connection to {} within {within}",
            listener.local_addr().unwrap()
        );
        assert!(error.message.contains(&within), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config("https", listener.local_addr().unwrap());
    let plain = async {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream
    };
    let (error, _stream) = tokio::join!(ask(&config), plain);
    let error = error.unwrap_err();
    assert_eq!(error.outcome, Outcome::Connect, "{error}");
    assert!(error.message.contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn only_a_certificate_that_is_trusted_gets_the_credentials() {
    let ours = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let others = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        ca.path(),
        format!("{}{}", ours.cert.pem(), others.cert.pem()),
    )
    .unwrap();
    let ca_file = Some(CaFile::read(ca.path()).unwrap());

    for (served, ca_file, expected) in [
        (&ours, ca_file.clone(), Ok(())),
        (&ours, None, Err("in ca_file")),
        (&others, ca_file, Err("it belongs to another host")),
    ] {
        let server = Server::start_with(Some(acceptor(served)), answer("200 OK", TOKEN)).await;
        let result = ask(&Config {
            ca_file,
            ..config("https", server.address)
        })
        .await;
        match (result, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(advice)) => {
                assert_eq!(error.outcome, Outcome::Connect, "{error}");
                let named = format!("the certificate of {} is not accepted", server.address);
                assert!(error.message.starts_with(&named), "{error}");
                assert!(error.message.contains(advice), "{error}");
                assert_eq!(*server.requests.lock().unwrap(), [""], "nothing was sent");
            }
            (result, _) => panic!("{result:?}"),
        }
    }
}

fn acceptor(served: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(served.signing_key.serialize_der().into());
    let chain = vec![CertificateDer::from(served.cert.der().to_vec())];
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let with_url = |url: &str| Config {
        token_url: url.parse().unwrap(),
        ..testing::config("id", "secret")
    };
    for (config, what) in [
        (with_url("ftp://acme.example/t"), "https://"),
        (with_url("https://u:canary@acme.example/t"), "user name"),
        (with_url("https://acme.example/t#canary"), "fragment"),
    ] {
        let error = TokenClient::new(&config, None, Arc::new(SystemClock)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}
