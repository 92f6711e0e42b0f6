//! A minimal Collibra for what the simulator does not do: it records requests byte for byte, sends
//! the test's bytes, and waits on demand.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::request::{Duplex, Request, read};

const TOKEN_PATH: &str = "/rest/oauth/v2/token";

/// A running origin.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    rules: Rules,
    api: Box<Api>,
    requests: Mutex<Vec<Request>>,
    token_requests: Mutex<Vec<Request>>,
    tokens: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    stopped: AtomicBool,
}

type Api = dyn Fn(&Request, &mut dyn Write) -> std::io::Result<After> + Send + Sync;

/// How it differs from the default.
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            rules,
            api: Box::new(api),
            requests: Mutex::default(),
            token_requests: Mutex::default(),
            tokens: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let served = Arc::clone(&served);
                // the requests' senders check how a connection ends
                std::thread::spawn(move || drop(served.connection(stream)));
            }
        });
        Origin { address, shared }
    }

    /// Starts one that answers every API call with `bytes`.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |_, stream| {
            stream.write_all(&bytes)?;
            Ok(After::Keep)
        })
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

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}

impl Shared {
    fn connection(&self, tcp: TcpStream) -> std::io::Result<()> {
        let nth = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(2 * PATIENCE))?;
        let mut stream: Box<dyn Duplex> = match &self.rules.tls {
            None => Box::new(tcp),
            Some(certify) => {
                let tls = ServerConnection::new(certify(nth)).map_err(std::io::Error::other)?;
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        let mut unread = Vec::new();
        while let Some(request) = read(&mut *stream, &mut unread)? {
            let after = if request.target() == TOKEN_PATH {
                self.give_token(request, &mut *stream)?
            } else {
                self.requests.lock().unwrap().push(request.clone());
                (self.api)(&request, &mut *stream)?
            };
            stream.flush()?;
            if matches!(after, After::Close) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn give_token(&self, request: Request, stream: &mut dyn Duplex) -> std::io::Result<After> {
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
