//! A proxy with a TLS listener, and its HTTP/2 callers.

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::runtime::Runtime;

use super::certificate::Authority;
use super::frames::Frames;
use super::tls::Client;
use super::{PATIENCE, Proxy, Simulator};

const H2: &[&str] = &["h2"];

/// A TLS listener in front of the simulator, with additional `keys`.
pub(crate) struct Served<I = Simulator> {
    pub(crate) authority: Authority,
    pub(crate) simulator: I,
    pub(crate) proxy: Proxy,
}

impl Served {
    pub(crate) fn with(keys: &str) -> Served {
        let simulator = Simulator::start();
        let url = simulator.url();
        Served::to(&url, simulator, keys)
    }

    /// As [`Served::with`], in front of another instance.
    pub(crate) fn to<I>(url: &str, simulator: I, keys: &str) -> Served<I> {
        Served::before(url, "", simulator, keys)
    }

    /// As [`Served::to`], with more keys in the instance's table.
    pub(crate) fn before<I>(url: &str, instance: &str, simulator: I, keys: &str) -> Served<I> {
        let authority = Authority::new();
        let files = authority.files("localhost");
        let tls = format!(
            "tls = {{ cert_file = {:?}, key_file = {:?} }}\n{keys}\n",
            files.cert, files.key
        );
        let proxy = Proxy::configured(url, instance, &tls).start();
        proxy.has_token();
        Served {
            authority,
            simulator,
            proxy,
        }
    }
}

impl<I> Served<I> {
    /// Connects a client that follows the protocol.
    pub(crate) async fn connect(&self) -> SendRequest<Bytes> {
        let config = Client::new(&self.authority, H2, None).config();
        let tcp = tokio::net::TcpStream::connect(self.proxy.address)
            .await
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .unwrap();
        let (requests, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        requests.ready().await.unwrap()
    }

    /// Connects a client that sends arbitrary frames.
    pub(crate) fn frames(&self) -> Frames {
        Frames::open(&Client::new(&self.authority, H2, None), &self.proxy)
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.proxy.address.port())
    }

    /// Asserts that the proxy serves others.
    pub(crate) fn serves(&self) {
        let answer = runtime().block_on(async {
            let mut requests = self.connect().await;
            exchange(&mut requests, get(&self.uri("/echo")), Bytes::new()).await
        });
        assert_eq!(answer.0, StatusCode::OK);
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

pub(crate) fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// Sends a request with its body; returns the response's status, `X-Collibra-Auth-Proxy` and body.
pub(crate) async fn exchange(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> (StatusCode, Option<String>, Vec<u8>) {
    let pieces: Vec<Bytes> = Some(body)
        .filter(|body| !body.is_empty())
        .into_iter()
        .collect();
    let heard = send(requests, request, pieces, None).await;
    let reason = heard.head.headers.get("x-collibra-auth-proxy");
    let reason = reason.map(|value| value.to_str().unwrap().to_owned());
    (heard.head.status, reason, heard.body)
}

/// A response as an HTTP/2 caller receives it.
pub(crate) struct Heard {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Sends a request with a body of `pieces`, one DATA frame or more each, and reads the response.
/// Without pieces and trailers the head ends the stream.
pub(crate) async fn send(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
) -> Heard {
    let exchange = async {
        let has_body = !pieces.is_empty() || trailers.is_some();
        let (response, mut stream) = requests.send_request(request, !has_body).unwrap();
        let last = pieces.len().saturating_sub(1);
        for (nth, piece) in pieces.into_iter().enumerate() {
            let ends = nth == last && trailers.is_none();
            if send_piece(&mut stream, piece, ends).await.is_err() {
                // the response says why
                break;
            }
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers).unwrap();
        }
        hear(response).await.unwrap()
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap()
}

/// Sends one piece, as flow control allows.
pub(crate) async fn send_piece(
    stream: &mut SendStream<Bytes>,
    mut piece: Bytes,
    ends: bool,
) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let room = match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::CANCEL.into()),
        };
        if room >= piece.len() {
            break;
        }
        stream.send_data(piece.split_to(room), false)?;
    }
    stream.send_data(piece, ends)
}

/// Reads a response to its end.
pub(crate) async fn hear(response: ResponseFuture) -> Result<Heard, h2::Error> {
    let (head, mut incoming) = response.await?.into_parts();
    let mut body = Vec::new();
    let trailers = loop {
        match incoming.data().await {
            Some(Ok(data)) => {
                incoming.flow_control().release_capacity(data.len())?;
                body.extend(data);
            }
            None => break incoming.trailers().await,
            Some(Err(error)) => break Err(error),
        }
    };
    let trailers = match trailers {
        // complete: the proxy only does not want the rest of the request (RFC 9113, section 8.1)
        Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
        trailers => trailers?,
    };
    Ok(Heard {
        head,
        body,
        trailers,
    })
}

/// The next interim response; `None` if the final one comes first, or the stream ends.
pub(crate) async fn interim(response: &mut ResponseFuture) -> Option<Response<()>> {
    let next = std::future::poll_fn(|cx| response.poll_informational(cx));
    let next = tokio::time::timeout(PATIENCE, next).await;
    next.expect("an interim response or the final one")
        .and_then(Result::ok)
}
