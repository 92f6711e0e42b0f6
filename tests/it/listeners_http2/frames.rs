//! HTTP/2 to the byte (RFC 9113, section 4), for what no client's library would send.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::tls::{Client, Stream};
use crate::support::{PATIENCE, Proxy};

/// What a client's side begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection.
pub(crate) struct Frames(Stream);

impl Frames {
    /// Connects, as far as TLS goes.
    pub(crate) fn open(client: &Client, proxy: &Proxy) -> Frames {
        let stream = client.connect(proxy.address).unwrap();
        Frames(stream)
    }

    /// Sends the preface and empty settings.
    pub(crate) fn greet(&mut self) {
        assert!(self.send_raw(PREFACE) && self.send(SETTINGS, 0, 0, &[]));
    }

    /// Sends a frame; `false` if the other side is gone.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.send_raw(&frame)
    }

    /// Opens a stream with a request, and ends it if `whole`.
    pub(crate) fn request(&mut self, stream: u32, method: &str, path: &str, whole: bool) -> bool {
        let end = if whole { END_STREAM } else { 0 };
        self.send(HEADERS, END_HEADERS | end, stream, &request(method, path))
    }

    /// Sends bytes as they are; `false` if the other side is gone or takes nothing more.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.0
            .write_all(bytes)
            .and_then(|()| self.0.flush())
            .is_ok()
    }

    /// Waits no longer than this for what is sent to be taken.
    pub(crate) fn gives_up_after(&mut self, patience: Duration) {
        self.0.sock.set_write_timeout(Some(patience)).unwrap();
    }

    /// Reads to the connection's end, which has to come.
    pub(crate) fn ends(&mut self) {
        self.0.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let waited = std::io::ErrorKind::WouldBlock;
                    assert_ne!(error.kind(), waited, "it does not end");
                    return;
                }
            }
        }
    }
}

/// A request's head (RFC 7541): literals that are not indexed, nothing compressed.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ] {
        for text in [name, value] {
            if std::ptr::eq(text, name) {
                head.push(0);
            }
            head.push(u8::try_from(text.len()).unwrap());
            head.extend(text.as_bytes());
        }
    }
    head
}
