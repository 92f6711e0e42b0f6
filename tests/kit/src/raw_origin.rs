//! An origin that hands each request to the test as soon as it has the head. The test decides what
//! to read and send. All received bytes are kept, by connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::PATIENCE;
use super::origin::After;

const TOKEN_PATH: &str = " /rest/oauth/v2/token ";

/// A running origin.
pub struct RawOrigin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A connection, from the origin's side.
pub struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
    kept: Arc<Mutex<Vec<u8>>>,
}

type Api = dyn Fn(&str, &mut Line) -> std::io::Result<After> + Send + Sync;

struct Shared {
    api: Box<Api>,
    /// The bytes received on each connection with a call of the API.
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    stopped: AtomicBool,
}

impl RawOrigin {
    /// Starts one that gives tokens; `api` serves all other requests, given their heads.
    pub fn start(
        api: impl Fn(&str, &mut Line) -> std::io::Result<After> + Send + Sync + 'static,
    ) -> RawOrigin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            api: Box::new(api),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let served = Arc::clone(&served);
                // the caller's side of the test notices a failure
                std::thread::spawn(move || drop(served.connection(stream)));
            }
        });
        RawOrigin { address, shared }
    }

    /// Its address as an instance's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The bytes received so far on each connection with a call of the API, in Latin-1.
    pub fn received(&self) -> Vec<String> {
        let connections = self.shared.connections.lock().unwrap();
        let text = |kept: &Arc<Mutex<Vec<u8>>>| {
            let kept = kept.lock().unwrap();
            kept.iter().copied().map(char::from).collect()
        };
        connections.iter().map(text).collect()
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}

impl Line {
    /// Reads a head, without the empty line; `None` at the connection's end.
    fn head(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..at + 4).take(at).collect();
                return Ok(Some(head.into_iter().map(char::from).collect()));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Reads up to where `mark` ends; `false` if the connection ends first.
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
    pub fn read_to_end(&mut self) -> std::io::Result<()> {
        while self.more()? {}
        Ok(())
    }

    /// Sends bytes.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    fn more(&mut self) -> std::io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let n = self.stream.read(&mut bytes)?;
        self.unread.extend_from_slice(&bytes[..n]);
        self.kept.lock().unwrap().extend_from_slice(&bytes[..n]);
        Ok(n > 0)
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        let mut line = Line {
            stream,
            unread: Vec::new(),
            kept: Arc::default(),
        };
        let mut calls = 0;
        while let Some(head) = line.head()? {
            if head.contains(TOKEN_PATH) {
                line.read_through(b"grant_type=client_credentials")?;
                let body = r#"{"access_token":"t0k3n","token_type":"Bearer","expires_in":299}"#;
                let length = body.len();
                line.say(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                ))?;
                continue;
            }
            calls += 1;
            if calls == 1 {
                let kept = Arc::clone(&line.kept);
                self.connections.lock().unwrap().push(kept);
            }
            if matches!((self.api)(&head, &mut line)?, After::Close) {
                return Ok(());
            }
        }
        Ok(())
    }
}
