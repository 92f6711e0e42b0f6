//! A Collibra of a few lines that speaks HTTP/2 to whoever offers it, and HTTP/1.1 to whoever does
//! not, which is how tokens are asked for.

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
    /// Method, path and body of each request.
    requests: Mutex<Vec<(String, String, Bytes)>>,
    /// Connections of HTTP/2.
    connections: AtomicUsize,
    tokens: AtomicUsize,
    last_head: Mutex<HeaderMap>,
}

impl H2Origin {
    /// One that is certified as `localhost`. What it does with a request is told by its path:
    /// `/stale` is a 401 to the first token; `/reset` resets the stream in place of an answer,
    /// `/cut` in the middle of one, and `/refused` once without having looked at the request;
    /// `/bye` is the last request that its connection takes; `/bytes/N` has N bytes; `/held` gets
    /// its answer's head and nothing more, `/never` nothing at all. All else is 200 with the request's body.
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
                        // closing with bytes unread resets the connection, GOAWAY and all
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

    /// The bodies of the requests for `path` so far, each with its method before it.
    pub(crate) fn requests(&self, path: &str) -> Vec<(String, Bytes)> {
        let seen = self.seen.requests.lock().unwrap();
        let of_path = seen.iter().filter(|(_, at, _)| at == path);
        of_path
            .map(|(m, _, body)| (m.clone(), body.clone()))
            .collect()
    }

    /// The header of the last request.
    pub(crate) fn last_head(&self) -> HeaderMap {
        self.seen.last_head.lock().unwrap().clone()
    }

    /// How many connections of HTTP/2 it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many tokens it gave.
    pub(crate) fn tokens(&self) -> usize {
        self.seen.tokens.load(Ordering::SeqCst)
    }
}

impl Seen {
    async fn connection(self: Arc<Seen>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let path = request.uri().path().to_owned();
            if path == "/refused" && self.count(&path) == 0 {
                self.note(&request, Bytes::new());
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
        requests.iter().filter(|(_, at, _)| at == path).count()
    }

    fn note(&self, request: &Request<RecvStream>, body: Bytes) {
        let (method, path) = (
            request.method().to_string(),
            request.uri().path().to_owned(),
        );
        self.requests.lock().unwrap().push((method, path, body));
        *self.last_head.lock().unwrap() = request.headers().clone();
    }

    async fn answer(&self, mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let mut body = Vec::new();
        while let Some(Ok(chunk)) = request.body_mut().data().await {
            let _ = request
                .body_mut()
                .flow_control()
                .release_capacity(chunk.len());
            body.extend_from_slice(&chunk);
        }
        let body = Bytes::from(body);
        self.note(&request, body.clone());
        let path = request.uri().path();
        let stale = path == "/stale" && request.headers()["authorization"] == "Bearer token-1";
        if path == "/reset" {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        if path == "/never" {
            return std::future::pending().await;
        }
        let head = Response::builder()
            .status(if stale { 401 } else { 200 })
            .body(());
        let is_head = request.method() == "HEAD";
        let sent = respond.send_response(head.unwrap(), is_head);
        let Some(mut out) = sent.ok().filter(|_| !is_head) else {
            return;
        };
        let bytes = path.strip_prefix("/bytes/").map(|n| n.parse().unwrap());
        match (path, bytes) {
            ("/cut", _) => {
                let _ = out.send_data(Bytes::from_static(&[b'x'; 10_000]), false);
                // what is sent goes out before the stream is reset
                tokio::task::yield_now().await;
                out.send_reset(Reason::INTERNAL_ERROR);
            }
            ("/held", _) => std::future::pending().await,
            (_, Some(bytes)) => send(&mut out, bytes).await,
            _ => drop(out.send_data(body, true)),
        }
    }

    /// Gives a token to a POST, and says so to a GET that this is HTTP/1.1.
    async fn over_http1(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut request = Vec::new();
        let is_get = |request: &[u8]| request.starts_with(b"GET ");
        // the end of a token request is that of its body
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

/// Sends so many bytes, as the other side takes them.
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
