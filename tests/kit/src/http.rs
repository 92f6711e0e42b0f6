//! HTTP/1.1 from the app's side, byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use serde_json::Value;

use super::PATIENCE;

/// A connection, and bytes that were read too early.
pub struct Connection {
    stream: Box<dyn Wire>,
    unread: Vec<u8>,
}

/// The transport of a connection.
pub trait Wire: Read + Write + Send {
    /// Sets the timeout of a read.
    fn set_patience(&self, patience: Duration);

    /// Closes the sending direction.
    fn close_sending(&self) -> std::io::Result<()>;
}

impl Wire for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }

    fn close_sending(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Wire for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }

    fn close_sending(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Wire for StreamOwned<ClientConnection, TcpStream> {
    fn set_patience(&self, patience: Duration) {
        self.sock.set_patience(patience);
    }

    fn close_sending(&self) -> std::io::Result<()> {
        self.sock.close_sending()
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without chunk framing.
    pub body: Vec<u8>,
    /// Whether the body was complete.
    pub whole: bool,
}

/// Sends `GET path` on a new connection.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let mut connection = Connection::open(address);
    connection.get(address, path)
}

/// Sends a body with `line`, like `POST /path HTTP/1.1`, on a new connection.
pub fn post(address: SocketAddr, line: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut connection = Connection::open(address);
    let length = body.len();
    connection.send(format!(
        "{line}\r\nHost: {address}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ));
    connection.send(body);
    connection.answer(line)
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::over(tcp(address))
    }

    /// Connects to a unix socket.
    pub fn open_unix(path: &Path) -> Connection {
        let stream = UnixStream::connect(path)
            .unwrap_or_else(|e| panic!("cannot connect to {}: {e}", path.display()));
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection::over(stream)
    }

    /// Uses an existing stream.
    pub fn over(stream: impl Wire + 'static) -> Connection {
        stream.set_patience(PATIENCE);
        Connection {
            stream: Box::new(stream),
            unread: Vec::new(),
        }
    }

    /// Sends bytes unchanged.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends bytes unchanged, unless the other side is gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Sends `GET path`; returns its response.
    pub fn get(&mut self, host: SocketAddr, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.send(&request);
        self.answer(&request)
    }

    /// Reads the response to `request`, whose method matters; skips interim responses.
    pub fn answer(&mut self, request: &str) -> Answer {
        loop {
            let mut answer = self.head();
            if answer.status >= 200 {
                self.body(&mut answer, request.starts_with("HEAD "));
                return answer;
            }
        }
    }

    /// As [`Connection::answer`]; `None` if the connection ends before a head starts.
    pub fn answer_or_end(&mut self, request: &str) -> Option<Answer> {
        if self.unread.is_empty() && !self.more() {
            return None;
        }
        Some(self.answer(request))
    }

    /// Closes its own side: there is nothing more to send.
    pub fn ends(&mut self) {
        // an error means that the other side has closed the connection
        let _ = self.stream.close_sending();
    }

    /// Reads the head of a response, interim or final.
    pub fn head(&mut self) -> Answer {
        let head = self.take_through(b"\r\n\r\n");
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
        let status = first.nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Answer {
            status,
            headers: headers.collect(),
            ..Answer::default()
        }
    }

    fn body(&mut self, answer: &mut Answer, to_head: bool) {
        answer.whole = true;
        if to_head || matches!(answer.status, 204 | 304) {
            return;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            (answer.body, answer.whole) = self.chunks();
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            while self.unread.len() < length && self.more() {}
            answer.whole = self.unread.len() >= length;
            answer.body = self.unread.drain(..length.min(self.unread.len())).collect();
        } else {
            answer.body = self.rest();
        }
    }

    /// Reads a chunked body; also returns whether its last chunk came.
    fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(end) = self.find(b"\r\n") else {
                return (body, false);
            };
            let line: Vec<u8> = self.unread.drain(..end).collect();
            let digits = String::from_utf8(line).unwrap();
            let size = usize::from_str_radix(digits.trim_end(), 16).unwrap();
            while self.unread.len() < size + 2 && self.more() {}
            let whole = self.unread.len() >= size + 2;
            let piece = self.unread.drain(..(size + 2).min(self.unread.len()));
            body.extend(piece.take(size));
            if size == 0 || !whole {
                return (body, whole);
            }
        }
    }

    /// Reads up to the connection's end; a reset counts as an end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.unread)
    }

    /// Reads the available bytes; none at the connection's end.
    pub fn some(&mut self) -> Vec<u8> {
        if self.unread.is_empty() {
            self.more();
        }
        std::mem::take(&mut self.unread)
    }

    /// Returns whether nothing arrives within `span`, not even the connection's end.
    pub fn is_silent_for(&mut self, span: Duration) -> bool {
        self.stream.set_patience(span);
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        self.stream.set_patience(PATIENCE);
        if let Ok(n) = read {
            self.unread.extend_from_slice(&byte[..n]);
        }
        read.is_err() && self.unread.is_empty()
    }

    /// Waits for the connection's end, and asserts that nothing precedes it.
    pub fn is_closed(&mut self) {
        let rest = self.rest();
        let rest = String::from_utf8_lossy(&rest);
        assert_eq!(rest, "", "after what should have been the last byte");
    }

    fn take_through(&mut self, mark: &[u8]) -> Vec<u8> {
        match self.find(mark) {
            Some(end) => self.unread.drain(..end).collect(),
            None => panic!(
                "the connection ended before a whole head: {:?}",
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }

    /// Reads until `mark`; returns where it ends.
    fn find(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            let found = self.unread.windows(mark.len()).position(|w| w == mark);
            match found {
                Some(at) => return Some(at + mark.len()),
                None if self.more() => {}
                None => return None,
            }
        }
    }

    /// Reads more; `false` at the connection's end.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.unread.extend_from_slice(&bytes[..n]);
                true
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionReset
                        | ErrorKind::BrokenPipe
                        | ErrorKind::UnexpectedEof
                        | ErrorKind::InvalidData
                ) =>
            {
                false
            }
            Err(e) => panic!(
                "nothing came ({e}); before that: {:?}",
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }
}

/// A TCP connection whose reads and writes time out.
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {:?}", self.status, self.text()))
    }

    /// Asserts that this is the proxy's own response with this `reason`, in the form that
    /// Collibra's clients parse.
    pub fn assert_refused(&self, status: u16, reason: &str) {
        let marked = self.header("x-collibra-auth-proxy");
        let text = self.text();
        assert_eq!((self.status, marked), (status, Some(reason)), "{text}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["statusCode"], status, "{body}");
        assert_eq!(body["errorCode"], reason, "{body}");
        for member in ["titleMessage", "userMessage", "helpMessage"] {
            let said = body[member].as_str().unwrap_or_default();
            assert!(!said.is_empty(), "{member} in {body}");
        }
        assert_eq!(body.as_object().unwrap().len(), 5, "{body}");
    }
}
