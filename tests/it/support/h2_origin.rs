//! A minimal Collibra that speaks HTTP/2 to clients that offer it, and HTTP/1.1 to others, which is
//! how tokens are requested.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;
use super::certificate::Authority;

/// A running origin.
pub(crate) struct H2Origin {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Arrived>>,
    /// Requests whose heads have arrived.
    begun: AtomicUsize,
    /// Connections of HTTP/2.
    connections: AtomicUsize,
    tokens: AtomicUsize,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    /// Its path and query.
    pub(crate) target: String,
    pub(crate) authority: String,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body was complete.
    pub(crate) whole: bool,
    pub(crate) trailers: Option<HeaderMap>,
}

impl H2Origin {
    /// Starts one that is certified as `localhost`. The path determines the response:
    ///
    /// `/stale` is a 401 to the first token. `/reset` resets the stream instead of a response,
    /// `/cut` in the middle of one, and `/refused` once before processing. `/bye` is the last
    /// request on its connection. `/bytes/N` has N bytes. `/held` sends only its head, `/never`
    /// nothing. `/continue` sends a 100 before it reads the body. `/early` is a 413 before the body
    /// is read. `/trailers` has trailers. `/status/N` is N; `/status/N/LENGTH` has a length and no
    /// body. `/probe` returns the mark it carries. `/sized` announces its length. Everything else
    /// is 200 with the request's body.
    pub(crate) fn new(authority: &Authority) -> H2Origin {
        let mut tls = (*authority.server("localhost")).clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let served = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let stream = stream.into_std().unwrap();
                let rest = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
                let stream = TcpStream::from_std(stream).unwrap();
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        served.connection(stream).await;
                        // closing with unread bytes would reset the connection and lose the GOAWAY
                        let _ = tokio::time::timeout(PATIENCE, discard(rest)).await;
                    } else {
                        let _ = served.over_http1(stream).await;
                    }
                });
            }
        });
        H2Origin {
            address,
            seen,
            _runtime: runtime,
        }
    }

    /// Its address as an instance's URL.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The bodies of the requests for `path` so far, with their methods.
    pub(crate) fn requests(&self, path: &str) -> Vec<(String, Bytes)> {
        let seen = self.all();
        let of_path = seen.into_iter().filter(|arrived| arrived.path() == path);
        of_path
            .map(|arrived| (arrived.method, arrived.body))
            .collect()
    }

    /// All requests so far.
    pub(crate) fn all(&self) -> Vec<Arrived> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The header of the last request.
    pub(crate) fn last_head(&self) -> HeaderMap {
        self.last().fields
    }

    /// The trailers of the last request, if it had some.
    pub(crate) fn last_trailers(&self) -> Option<HeaderMap> {
        self.last().trailers
    }

    fn last(&self) -> Arrived {
        self.seen.requests.lock().unwrap().last().unwrap().clone()
    }

    /// How many requests have started to arrive.
    pub(crate) fn begun(&self) -> usize {
        self.seen.begun.load(Ordering::SeqCst)
    }

    /// How many connections of HTTP/2 it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many tokens it issued.
    pub(crate) fn tokens(&self) -> usize {
        self.seen.tokens.load(Ordering::SeqCst)
    }
}

impl Arrived {
    /// The head of a request.
    fn of(request: &Request<RecvStream>) -> Arrived {
        let target = request.uri().path_and_query().map(ToString::to_string);
        let authority = request.uri().authority().map(ToString::to_string);
        Arrived {
            method: request.method().to_string(),
            target: target.unwrap_or_default(),
            authority: authority.unwrap_or_default(),
            fields: request.headers().clone(),
            body: Bytes::new(),
            whole: false,
            trailers: None,
        }
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Seen {
    async fn connection(self: Arc<Seen>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let path = request.uri().path().to_owned();
            if path == "/refused" && self.count(&path) == 0 {
                self.note(Arrived::of(&request));
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            if path == "/bye" {
                connection.graceful_shutdown();
            }
            let seen = Arc::clone(&self);
            tokio::spawn(async move { seen.answer(request, respond).await });
        }
    }

    fn count(&self, path: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|arrived| arrived.path() == path)
            .count()
    }

    fn note(&self, arrived: Arrived) {
        self.requests.lock().unwrap().push(arrived);
    }

    async fn answer(&self, mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        match request.uri().path() {
            "/continue" => {
                let go_on = Response::builder().status(100).body(()).unwrap();
                respond.send_informational(go_on).unwrap();
            }
            "/early" => {
                self.note(Arrived::of(&request));
                let head = Response::builder().status(413).body(()).unwrap();
                let mut out = respond.send_response(head, false).unwrap();
                return drop(out.send_data(Bytes::from_static(b"too large"), true));
            }
            _ => {}
        }
        let mut arrived = Arrived::of(&request);
        let mut body = Vec::new();
        arrived.whole = loop {
            match request.body_mut().data().await {
                Some(Ok(chunk)) => {
                    let flow = request.body_mut().flow_control();
                    let _ = flow.release_capacity(chunk.len());
                    body.extend_from_slice(&chunk);
                }
                end => break end.is_none(),
            }
        };
        let body = Bytes::from(body);
        arrived.body = body.clone();
        arrived.trailers = request.body_mut().trailers().await.ok().flatten();
        self.note(arrived);
        let path = request.uri().path();
        let stale = path == "/stale" && request.headers()["authorization"] == "Bearer token-1";
        if path == "/reset" {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        if path == "/never" {
            return std::future::pending().await;
        }
        let mut head = Response::builder().status(if stale { 401 } else { 200 });
        let mut is_head = request.method() == "HEAD";
        if let Some(asked) = path.strip_prefix("/status/") {
            let (status, length) = asked.split_once('/').unwrap_or((asked, ""));
            head = head.status(status);
            if !length.is_empty() {
                head = head.header("content-length", length);
            }
            is_head = true;
        }
        if path == "/sized" {
            head = head.header("content-length", body.len());
        }
        if path == "/trailers" {
            head = head.header("trailer", "x-sum");
        }
        let sent = respond.send_response(head.body(()).unwrap(), is_head);
        let Some(mut out) = sent.ok().filter(|_| !is_head) else {
            return;
        };
        let bytes = path.strip_prefix("/bytes/").map(|n| n.parse().unwrap());
        match (path, bytes) {
            ("/cut", _) => {
                let _ = out.send_data(Bytes::from_static(&[b'x'; 10_000]), false);
                // data is sent before the reset
                tokio::task::yield_now().await;
                out.send_reset(Reason::INTERNAL_ERROR);
            }
            ("/held", _) => std::future::pending().await,
            ("/trailers", _) => {
                let sum = HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    http::HeaderValue::from_static("1"),
                )]);
                let _ = out.send_data(Bytes::from_static(b"abc"), false);
                let _ = out.send_trailers(sum);
            }
            (_, Some(bytes)) => send(&mut out, bytes).await,
            ("/probe", _) => {
                let mark = request.headers().get("x-mark");
                let mark = mark.map(|mark| Bytes::copy_from_slice(mark.as_bytes()));
                let _ = out.send_data(mark.unwrap_or_default(), true);
            }
            _ => drop(out.send_data(body, true)),
        }
    }

    /// Issues a token for a POST, and answers a GET with the fact that this is HTTP/1.1.
    async fn over_http1(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut request = Vec::new();
        let is_get = |request: &[u8]| request.starts_with(b"GET ");
        // a token request ends with its body
        let end = |request: &[u8]| {
            let end: &[u8] = if is_get(request) {
                b"\r\n\r\n"
            } else {
                b"grant_type=client_credentials"
            };
            request.ends_with(end)
        };
        while !end(&request) {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let body = if is_get(&request) {
            "this is HTTP/1.1".to_owned()
        } else {
            let nth = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
            format!(r#"{{"access_token":"token-{nth}","token_type":"Bearer","expires_in":299}}"#)
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// Reads to the end.
async fn discard(mut stream: TcpStream) {
    let mut scratch = [0; 4096];
    while stream.read(&mut scratch).await.is_ok_and(|n| n > 0) {}
}

/// Sends this many bytes, as flow control allows.
async fn send(out: &mut h2::SendStream<Bytes>, mut left: usize) {
    while left > 0 {
        out.reserve_capacity(left.min(16_384));
        let Some(Ok(room)) = std::future::poll_fn(|cx| out.poll_capacity(cx)).await else {
            return;
        };
        let now = room.min(left);
        left -= now;
        if out
            .send_data(Bytes::from(vec![b'x'; now]), left == 0)
            .is_err()
        {
            return;
        }
    }
}
