//! A minimal Collibra for what the simulator does not do: it records requests byte for byte, sends
//! the test's bytes, and waits on demand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::listener::Listener;
use super::request::{Duplex, Request, read_body, read_head};

const TOKEN_PATH: &str = "/rest/oauth/v2/token";

/// A running origin.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _listener: Listener,
}

/// An origin that hands each request to the test once it has the head. The test decides what to
/// read and send. All received bytes are kept, by connection.
pub struct RawOrigin(Origin);

struct Shared {
    rules: Rules,
    api: Api,
    requests: Mutex<Vec<Request>>,
    token_requests: Mutex<Vec<Request>>,
    tokens: Mutex<Vec<String>>,
    /// The bytes received on each connection with a raw call of the API.
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    accepted: AtomicUsize,
}

type WholeApi = dyn Fn(&Request, &mut dyn Write) -> std::io::Result<After> + Send + Sync;
type RawApi = dyn Fn(&str, &mut Line) -> std::io::Result<After> + Send + Sync;

enum Api {
    Whole(Box<WholeApi>),
    Raw(Box<RawApi>),
}

/// How an origin differs from the default.
#[derive(Default)]
pub struct Rules {
    /// Token requests wait until this is open.
    pub token_gate: Option<Gate>,
    /// Uses TLS: the nth connection, from 1, with the configuration returned for n.
    pub tls: Option<Box<Certify>>,
}

/// The TLS configuration of the nth connection.
pub type Certify = dyn Fn(usize) -> Arc<ServerConfig> + Send + Sync;

/// What happens to a connection after a response.
#[derive(Clone, Copy)]
pub enum After {
    /// Waits for the next request.
    Keep,
    /// Closes it.
    Close,
}

impl Origin {
    /// Starts one that answers every API call with `api`.
    pub fn start(
        api: impl Fn(&Request, &mut dyn Write) -> std::io::Result<After> + Send + Sync + 'static,
    ) -> Origin {
        Origin::with(Rules::default(), api)
    }

    /// Starts one with these rules.
    pub fn with(
        rules: Rules,
        api: impl Fn(&Request, &mut dyn Write) -> std::io::Result<After> + Send + Sync + 'static,
    ) -> Origin {
        Origin::serve(rules, Api::Whole(Box::new(api)))
    }

    /// Starts one that answers every API call with `bytes`.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |_, stream| {
            stream.write_all(&bytes)?;
            Ok(After::Keep)
        })
    }

    fn serve(rules: Rules, api: Api) -> Origin {
        let shared = Arc::new(Shared {
            rules,
            api,
            requests: Mutex::default(),
            token_requests: Mutex::default(),
            tokens: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        let listener = Listener::start(move |stream| served.connection(stream));
        Origin {
            address: listener.address,
            shared,
            _listener: listener,
        }
    }

    /// Its address as an instance's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The API calls so far, completely read.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The token requests so far.
    pub fn token_requests(&self) -> Vec<Request> {
        self.shared.token_requests.lock().unwrap().clone()
    }

    /// The tokens issued so far.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.tokens.lock().unwrap().clone()
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl RawOrigin {
    /// Starts one that gives tokens; `api` serves all other requests, given their heads.
    pub fn start(
        api: impl Fn(&str, &mut Line) -> std::io::Result<After> + Send + Sync + 'static,
    ) -> RawOrigin {
        RawOrigin(Origin::serve(Rules::default(), Api::Raw(Box::new(api))))
    }

    /// Its address as an instance's URL.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.0.address.port()
    }

    /// The bytes received so far on each connection with a call of the API, in Latin-1.
    pub fn received(&self) -> Vec<String> {
        let connections = self.0.shared.connections.lock().unwrap();
        let text = |kept: &Arc<Mutex<Vec<u8>>>| {
            let kept = kept.lock().unwrap();
            kept.iter().copied().map(char::from).collect()
        };
        connections.iter().map(text).collect()
    }
}

/// A connection, from the origin's side.
pub struct Line {
    stream: Kept,
    unread: Vec<u8>,
}

/// A stream, and all that was read from it.
struct Kept {
    stream: Box<dyn Duplex>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Line {
    /// Reads up to where `mark` ends; `false` if the connection ends first.
    ///
    /// # Errors
    /// An I/O error.
    pub fn read_through(&mut self, mark: &[u8]) -> std::io::Result<bool> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|w| w == mark) {
                self.unread.drain(..at + mark.len());
                return Ok(true);
            }
            if !self.more()? {
                return Ok(false);
            }
        }
    }

    /// Reads to the connection's end.
    ///
    /// # Errors
    /// An I/O error.
    pub fn read_to_end(&mut self) -> std::io::Result<()> {
        while self.more()? {}
        Ok(())
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// An I/O error.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    fn more(&mut self) -> std::io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let n = self.stream.read(&mut bytes)?;
        self.unread.extend_from_slice(&bytes[..n]);
        Ok(n > 0)
    }
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.stream.read(buffer)?;
        self.bytes.lock().unwrap().extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl Shared {
    fn connection(&self, tcp: TcpStream) -> std::io::Result<()> {
        let nth = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(2 * PATIENCE))?;
        let stream: Box<dyn Duplex> = match &self.rules.tls {
            None => Box::new(tcp),
            Some(certify) => {
                let tls = ServerConnection::new(certify(nth)).map_err(std::io::Error::other)?;
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        let mut line = Line {
            stream: Kept {
                stream,
                bytes: Arc::default(),
            },
            unread: Vec::new(),
        };
        let mut is_first = true;
        while let Some(head) = read_head(&mut line.stream, &mut line.unread)? {
            let is_token = head.split(' ').nth(1) == Some(TOKEN_PATH);
            let after = match &self.api {
                Api::Raw(api) if !is_token => {
                    if std::mem::take(&mut is_first) {
                        let kept = Arc::clone(&line.stream.bytes);
                        self.connections.lock().unwrap().push(kept);
                    }
                    api(&head, &mut line)?
                }
                api => {
                    let request = read_body(head, &mut line.stream, &mut line.unread)?;
                    match api {
                        Api::Whole(api) if !is_token => {
                            self.requests.lock().unwrap().push(request.clone());
                            api(&request, &mut line.stream)?
                        }
                        _ => self.give_token(request, &mut line.stream)?,
                    }
                }
            };
            line.stream.flush()?;
            if matches!(after, After::Close) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn give_token(&self, request: Request, stream: &mut dyn Write) -> std::io::Result<After> {
        self.token_requests.lock().unwrap().push(request);
        if let Some(gate) = &self.rules.token_gate {
            gate.pass();
        }
        let token = {
            let mut tokens = self.tokens.lock().unwrap();
            let nth = tokens.len() + 1;
            let token = format!("canary-token-{nth}-{:016x}", fastrand::u64(..));
            tokens.push(token.clone());
            token
        };
        let body =
            format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":299}}"#);
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(After::Keep)
    }
}

/// A gate that is closed until it is opened for good.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Opens the gate.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open, with a timeout, so that a failed test leaves no thread behind.
    pub fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(closed, PATIENCE, |open| !*open));
    }
}
