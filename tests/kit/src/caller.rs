//! A minimal client for load: requests are built beforehand, and of a response only the head and
//! its `Content-Length` are parsed. `http` is the client that checks everything.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// An I/O error.
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    /// Sends `request` and reads the whole response; returns its status.
    ///
    /// # Errors
    /// An I/O error, or a response without `Content-Length`.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some(end) = head_end(&self.buffer) {
                let status = status(&self.buffer)?;
                let whole = end + content_length(&self.buffer[..end])?;
                while self.buffer.len() < whole {
                    self.read().await?;
                }
                return Ok(status);
            }
            self.read().await?;
        }
    }

    /// A header of the last response; `name` in lower case and with its colon.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = head_end(&self.buffer)?;
        header(&self.buffer[..head], name)
    }

    /// The body of the last response.
    pub fn body(&self) -> &[u8] {
        head_end(&self.buffer).map_or(&[], |end| &self.buffer[end..])
    }

    /// Whether no byte of the last request's answer has arrived.
    pub fn is_silent(&self) -> bool {
        self.buffer.is_empty()
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A request without a body and with these additional header lines.
pub fn get(host: SocketAddr, path: &str, lines: &str) -> Vec<u8> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n{lines}\r\n"
    );
    head.into_bytes()
}

/// The end of the head, if it is complete.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

/// The `Content-Length`; load uses no other framing.
///
/// # Errors
/// If there is none.
pub fn content_length(head: &[u8]) -> io::Result<usize> {
    header(head, "content-length:")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| io::Error::other("an answer without Content-Length"))
}

/// The status in the response's first line.
///
/// # Errors
/// If there is none.
pub fn status(head: &[u8]) -> io::Result<u16> {
    let digits = head
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other("an answer without a status"))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    })?;
    Some(std::str::from_utf8(&line[name.len()..]).ok()?.trim())
}
