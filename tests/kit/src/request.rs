//! A request as an origin reads it, byte for byte.

use std::io::{Read, Write};

/// Both directions of a connection.
pub trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its head without the empty line, byte for byte (Latin-1).
    pub head: String,
    /// The body without chunk framing.
    pub body: Vec<u8>,
    /// Whether the body was complete.
    pub whole: bool,
}

/// Reads a request; `None` at the connection's end. A truncated body ends the request.
///
/// # Errors
/// An I/O error.
pub fn read(stream: &mut dyn Duplex, unread: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    match read_head(stream, unread)? {
        Some(head) => read_body(head, stream, unread).map(Some),
        None => Ok(None),
    }
}

/// Reads a head, without the empty line, in Latin-1; `None` at the connection's end.
///
/// # Errors
/// An I/O error.
pub fn read_head(stream: &mut dyn Duplex, unread: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    let end = loop {
        if let Some(at) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if !more(stream, unread)? {
            return Ok(None);
        }
    };
    let head = unread.drain(..end + 4).take(end);
    Ok(Some(head.map(char::from).collect()))
}

/// Reads the body after `head`; sends a 100 to whoever waits for it.
///
/// # Errors
/// An I/O error.
pub fn read_body(
    head: String,
    stream: &mut dyn Duplex,
    unread: &mut Vec<u8>,
) -> std::io::Result<Request> {
    let mut request = Request {
        head,
        body: Vec::new(),
        whole: true,
    };
    let waits = request.header("expect").is_some();
    if waits {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.flush()?;
    }
    if request.header("transfer-encoding").is_some() {
        loop {
            let Some(end) = line_end(stream, unread)? else {
                request.whole = false;
                break;
            };
            let line: Vec<u8> = unread.drain(..end + 2).take(end).collect();
            let size = usize::from_str_radix(&String::from_utf8_lossy(&line), 16).unwrap();
            if !take(stream, unread, size, &mut request.body)? || !skip_line(stream, unread)? {
                request.whole = false;
                break;
            }
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse().unwrap();
        request.whole = take(stream, unread, length, &mut request.body)?;
    }
    Ok(request)
}

fn line_end(stream: &mut dyn Duplex, unread: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = unread.windows(2).position(|w| w == b"\r\n") {
            return Ok(Some(at));
        }
        if !more(stream, unread)? {
            return Ok(None);
        }
    }
}

fn skip_line(stream: &mut dyn Duplex, unread: &mut Vec<u8>) -> std::io::Result<bool> {
    let end = line_end(stream, unread)?;
    Ok(end.map(|end| unread.drain(..end + 2)).is_some())
}

/// Copies `length` bytes; `false` if there are fewer.
fn take(
    stream: &mut dyn Duplex,
    unread: &mut Vec<u8>,
    length: usize,
    into: &mut Vec<u8>,
) -> std::io::Result<bool> {
    while unread.len() < length && more(stream, unread)? {}
    let there = length.min(unread.len());
    into.extend(unread.drain(..there));
    Ok(there == length)
}

fn more(stream: &mut dyn Duplex, unread: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut bytes = [0; 16 * 1024];
    let n = stream.read(&mut bytes)?;
    unread.extend_from_slice(&bytes[..n]);
    Ok(n > 0)
}

impl Request {
    /// Its method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The target, unchanged.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// All values of a header, in their order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1);
        fields
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }
}
