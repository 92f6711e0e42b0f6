//! Reads everything that an HTTP/1 caller receives, up to the end or a silence. Unreadable bytes
//! are kept as they are; nothing makes the reader fail.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::outcome::Message;
use crate::support::PATIENCE;
use crate::support::wait::now;

/// A caller's connection.
pub(super) struct Line {
    stream: TcpStream,
    received: Vec<u8>,
    closed: bool,
    /// Whether the first final answer is to HEAD.
    to_head: bool,
}

impl Line {
    pub(super) fn to(address: SocketAddr, to_head: bool) -> Line {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line {
            stream,
            received: Vec::new(),
            closed: false,
            to_head,
        }
    }

    /// Sends bytes, unless the other side is gone.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        // `hear` notices a closed connection
        let _ = self.stream.write_all(bytes);
    }

    /// Closes its own side.
    pub(super) fn ends(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until `enough`, the end, or a silence; returns whether it was the first.
    pub(super) fn hear(&mut self, silence: Duration, enough: impl Fn(&[Message]) -> bool) -> bool {
        let mut bytes = [0; 64 * 1024];
        let mut since = now();
        loop {
            if enough(&self.messages()) {
                return true;
            }
            let left = silence.saturating_sub(since.elapsed());
            if self.closed || left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(n) => {
                    self.received.extend_from_slice(&bytes[..n]);
                    since = now();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => self.closed = true,
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The messages so far; the last may not be whole.
    pub(super) fn messages(&self) -> Vec<Message> {
        let (mut messages, mut at, mut finals) = (Vec::new(), 0, 0);
        while at < self.received.len() {
            let to_head = self.to_head && finals == 0;
            let (message, taken) = message(&self.received[at..], to_head, self.closed);
            at += taken;
            finals += usize::from(is_final(&message));
            messages.push(message);
        }
        messages
    }
}

/// Whether a final response is complete.
pub(super) fn has_answer(messages: &[Message]) -> bool {
    messages.iter().any(|it| it.whole && is_final(it))
}

fn is_final(message: &Message) -> bool {
    !message.is.starts_with('1')
}

/// Parses the message at the start of `bytes`; returns the number of bytes taken.
fn message(bytes: &[u8], to_head: bool, closed: bool) -> (Message, usize) {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return (unreadable(bytes), bytes.len());
    };
    let head: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let Some(status) = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
    else {
        return (unreadable(bytes), bytes.len());
    };
    let fields: Vec<(String, String)> = lines.map(field).collect();
    let value = |name: &str| {
        let found = fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    };
    let rest = &bytes[end + 4..];
    let mut message = Message {
        is: status.to_owned(),
        whole: true,
        ..Message::default()
    };
    let taken = if to_head && is_final(&message)
        || matches!(status, "204" | "304")
        || !is_final(&message)
    {
        0
    } else if value("transfer-encoding").is_some() {
        chunks(rest, &mut message)
    } else if let Some(length) = value("content-length").and_then(|it| it.parse::<usize>().ok()) {
        message.whole = rest.len() >= length;
        message.body = rest[..length.min(rest.len())].to_vec();
        message.body.len()
    } else {
        message.whole = closed;
        message.body = rest.to_vec();
        rest.len()
    };
    message.fields = fields;
    (message, end + 4 + taken)
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

fn unreadable(bytes: &[u8]) -> Message {
    Message {
        is: "unreadable".to_owned(),
        body: bytes.to_vec(),
        ..Message::default()
    }
}

/// Parses chunks into `message`; returns the number of bytes taken.
fn chunks(bytes: &[u8], message: &mut Message) -> usize {
    let mut at = 0;
    message.whole = false;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return bytes.len();
        };
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let Ok(size) = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
        else {
            return bytes.len();
        };
        at += end + 2;
        if size == 0 {
            break;
        }
        let there = bytes[at..].len().min(size);
        message.body.extend_from_slice(&bytes[at..at + there]);
        if bytes.len() < at + size + 2 {
            return bytes.len();
        }
        at += size + 2;
    }
    // trailers, up to an empty line
    while let Some(end) = find(&bytes[at..], b"\r\n") {
        let line: String = bytes[at..at + end]
            .iter()
            .copied()
            .map(char::from)
            .collect();
        at += end + 2;
        if line.is_empty() {
            message.whole = true;
            return at;
        }
        message.trailers.push(field(&line));
    }
    bytes.len()
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|w| w == mark)
}
