//! HTTP/2 frames, byte for byte (RFC 9113, section 4), for input that no client library sends.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use super::tls::{Client, Stream};
use super::{PATIENCE, Proxy};

/// The client's connection preface.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// The ACK flag of SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An error code (RFC 9113, section 7).
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A setting (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A connection.
pub(crate) struct Frames {
    stream: Stream,
    unread: Vec<u8>,
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The result of a read.
pub(crate) enum Received {
    Frame(Frame),
    /// Nothing came in time.
    Nothing,
    /// The connection has ended.
    End,
}

impl Frames {
    /// Connects, as far as TLS goes.
    pub(crate) fn open(client: &Client, proxy: &Proxy) -> Frames {
        let stream = client.connect(proxy.address).unwrap();
        Frames {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends the preface and empty settings.
    pub(crate) fn greet(&mut self) {
        assert!(self.send_raw(PREFACE) && self.send(SETTINGS, 0, 0, &[]));
    }

    /// Sends the preface, and settings with an initial window of 0.
    pub(crate) fn greet_without_a_window(&mut self) {
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend(0_u32.to_be_bytes());
        assert!(self.send_raw(PREFACE) && self.send(SETTINGS, 0, 0, &setting));
    }

    /// Sends a frame; `false` if the other side is gone.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send_raw(&frame(kind, flags, stream, payload))
    }

    /// Opens a stream with a request, and ends it if `whole`.
    pub(crate) fn request(&mut self, stream: u32, method: &str, path: &str, whole: bool) -> bool {
        self.send_head(stream, &request(method, path), whole)
    }

    /// Opens a stream with a head, and ends it if `whole`.
    pub(crate) fn send_head(&mut self, stream: u32, head: &[u8], whole: bool) -> bool {
        let end = if whole { END_STREAM } else { 0 };
        self.send(HEADERS, END_HEADERS | end, stream, head)
    }

    /// Sends bytes as they are; `false` if the other side is gone or takes nothing more.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .is_ok()
    }

    /// Limits how long a send may block.
    pub(crate) fn gives_up_after(&mut self, patience: Duration) {
        self.stream.sock.set_write_timeout(Some(patience)).unwrap();
    }

    /// Reads the next frame; waits no longer than `patience` for each piece of it.
    pub(crate) fn receive(&mut self, patience: Duration) -> Received {
        self.stream.sock.set_read_timeout(Some(patience)).unwrap();
        loop {
            if let Some(frame) = self.take_frame() {
                return Received::Frame(frame);
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Received::End,
                Ok(n) => self.unread.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(_) => return Received::End,
            }
        }
    }

    /// Reads up to the frame in which `find` finds something.
    ///
    /// # Panics
    /// If the connection ends first, or nothing comes within [`PATIENCE`].
    pub(crate) fn find<T>(&mut self, what: &str, find: impl Fn(&Frame) -> Option<T>) -> T {
        let mut passed = Vec::new();
        loop {
            match self.receive(PATIENCE) {
                Received::Frame(frame) => match find(&frame) {
                    Some(found) => return found,
                    None => passed.push(frame),
                },
                Received::Nothing => panic!("{what}: nothing comes after {passed:?}"),
                Received::End => panic!("{what}: the end comes after {passed:?}"),
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let head = self.unread.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, stream) = (head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()));
        self.unread.get(..9 + length)?;
        let payload = self.unread.drain(..9 + length).skip(9).collect();
        Some(Frame {
            kind,
            stream,
            payload,
        })
    }

    /// Reads to the connection's end, which must come.
    pub(crate) fn ends(&mut self) {
        self.ends_within(PATIENCE);
    }

    /// As [`Frames::ends`], with at most `patience` between two reads.
    pub(crate) fn ends_within(&mut self, patience: Duration) {
        loop {
            match self.receive(patience) {
                Received::Frame(_) => {}
                Received::End => return,
                Received::Nothing => panic!("it does not end"),
            }
        }
    }
}

impl Frame {
    /// The status of a response's head, if it is one of the static table's (RFC 7541, appendix A).
    pub(crate) fn status(&self) -> Option<u16> {
        let first = self.payload.first().filter(|_| self.kind == HEADERS)?;
        let known = [200, 204, 206, 304, 400, 404, 500];
        known.get(usize::from(first.checked_sub(0x88)?)).copied()
    }

    /// The error code of a GOAWAY.
    pub(crate) fn goes_away_for(&self) -> Option<u32> {
        let code = self.payload.get(4..8).filter(|_| self.kind == GOAWAY)?;
        Some(u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A GET on stream 1.
pub(crate) fn get_request(path: &str) -> Vec<u8> {
    let flags = END_HEADERS | END_STREAM;
    frame(HEADERS, flags, 1, &request("GET", path))
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
