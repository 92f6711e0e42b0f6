//! Limits the size of values that a Redis server sends.
//!
//! The library buffers a whole value, however large the server announces it. This layer below it
//! parses the framing of RESP 2 and 3 far enough to find where a value ends.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest accepted value, in bytes. A record takes a few KiB, the slots of a cluster of 1,000
/// nodes 200 KiB.
const LARGEST: u64 = 1 << 20;

/// A stream that fails when the other side sends, or announces, a value of more than 1 MiB.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    meter: Meter,
    exceeded: Arc<AtomicBool>,
}

impl<S> Bounded<S> {
    /// Wraps `stream`; sets `exceeded` when a value is too large.
    pub(super) fn new(stream: S, exceeded: Arc<AtomicBool>) -> Bounded<S> {
        Bounded {
            stream,
            meter: Meter::default(),
            exceeded,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.meter.takes(&buffer.filled()[before..]).is_some() {
            return Poll::Ready(Ok(()));
        }
        // a failed read has read nothing
        buffer.set_filled(before);
        self.exceeded.store(true, Ordering::Relaxed);
        Poll::Ready(Err(ErrorKind::InvalidData.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The position within a value.
#[derive(Debug, Default)]
struct Meter {
    /// The bytes of the value so far.
    size: u64,
    /// The elements still to come; 0 between values.
    due: u64,
    at: At,
}

/// The position within an element.
#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    /// In its first line.
    Line {
        kind: u8,
        /// The number in it. Parsed leniently, since the library refuses invalid ones.
        number: u64,
        is_negative: bool,
        after_cr: bool,
    },
    /// In the string that follows, with this many bytes left.
    String(u64),
}

impl Meter {
    /// Parses `bytes`; `None` if a value is too large.
    fn takes(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match &mut self.at {
                At::String(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX);
                    let here = here.min(bytes.len());
                    *left -= here as u64;
                    self.size += here as u64;
                    if *left == 0 {
                        self.element_ends();
                    }
                    &bytes[here..]
                }
                At::Start => {
                    if self.due == 0 {
                        self.due = 1;
                        self.size = 0;
                    }
                    self.size += 1;
                    self.at = At::Line {
                        kind: first,
                        number: 0,
                        is_negative: false,
                        after_cr: false,
                    };
                    rest
                }
                At::Line {
                    kind,
                    number,
                    is_negative,
                    after_cr,
                } => {
                    self.size += 1;
                    match first {
                        b'\n' if *after_cr => {
                            let (kind, number) = (*kind, (!*is_negative).then_some(*number));
                            self.line_ends(kind, number)?;
                        }
                        b'-' => *is_negative = true,
                        b'0'..=b'9' => {
                            *number = number
                                .saturating_mul(10)
                                .saturating_add(u64::from(first - b'0'));
                        }
                        _ => {}
                    }
                    if let At::Line { after_cr, .. } = &mut self.at {
                        *after_cr = first == b'\r';
                    }
                    rest
                }
            };
            if self.size > LARGEST {
                return None;
            }
        }
        Some(())
    }

    /// Handles the end of an element's first line; `None` is a negative number.
    fn line_ends(&mut self, kind: u8, number: Option<u64>) -> Option<()> {
        let elements = match (kind, number) {
            (b'$' | b'=' | b'!', Some(length)) => {
                self.at = At::String(length.saturating_add(2));
                return (self.size.saturating_add(length) < LARGEST).then_some(());
            }
            (b'*' | b'~' | b'>', Some(count)) => count,
            (b'%', Some(pairs)) => pairs.saturating_mul(2),
            // attributes are followed by their value
            (b'|', Some(pairs)) => pairs.saturating_mul(2).saturating_add(1),
            // the library treats these as unlimited numbers
            (b'=' | b'!' | b'%' | b'|', None) => return None,
            _ => 0,
        };
        // the shortest element has three bytes
        if elements > LARGEST {
            return None;
        }
        self.due += elements;
        self.element_ends();
        Some(())
    }

    fn element_ends(&mut self) {
        self.due -= 1;
        self.at = At::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Returns whether all of `bytes` is accepted, in pieces of `step` bytes.
    fn is_taken(bytes: &[u8], step: usize) -> bool {
        let mut meter = Meter::default();
        bytes.chunks(step).all(|part| meter.takes(part).is_some())
    }

    #[test]
    fn values_without_end_are_read_and_large_ones_are_not() {
        let one = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n+proto\r\n:3\r\n\
            |1\r\n+ttl\r\n:3600\r\n*3\r\n$-1\r\n*-1\r\n~1\r\n,1.5\r\n\
            >3\r\n$7\r\nmessage\r\n$1\r\n\r\r\n=8\r\ntxt:a\r\nb\r\n-ERR a\nb\r\n_\r\n#t\r\n*0\r\n";
        let mut many = Vec::new();
        while many.len() < 3 * LARGEST as usize {
            many.extend_from_slice(one);
        }
        for step in [1, 7, 4096] {
            assert!(is_taken(&many, step), "{step}");
        }
        let string = |length: u64| {
            let mut value = format!("${length}\r\n").into_bytes();
            value.resize(value.len() + length as usize, b'x');
            [value, b"\r\n".to_vec()].concat()
        };
        assert!(is_taken(&string(LARGEST - 64), 4096));
        assert!(!is_taken(&string(LARGEST), 4096));
        let nested = [b"*9\r\n".to_vec(), string(LARGEST / 2), string(LARGEST / 2)];
        assert!(!is_taken(&nested.concat(), 4096));
        let line = vec![b'+'; LARGEST as usize + 2];
        assert!(!is_taken(&line, 4096));
    }

    #[test]
    fn what_is_announced_too_large_is_not_waited_for() {
        for announced in [
            "$2147483648\r\n",
            "$99999999999999999999999999\r\n",
            "*1048577\r\n",
            "%600000\r\n",
            "|600000\r\n",
            "~4294967295\r\n",
            ">4294967295\r\n",
            "=-1\r\n",
            "!-1\r\n",
            "%-1\r\n",
            "|-1\r\n",
            "*2\r\n+a\r\n$1048576\r\n",
        ] {
            assert!(!is_taken(announced.as_bytes(), 3), "{announced}");
        }
    }

    #[tokio::test]
    async fn the_stream_fails_and_says_why() {
        let exceeded = Arc::new(AtomicBool::new(false));
        let sent: &[u8] = b"+OK\r\n$4294967296\r\n";
        let mut stream = Bounded::new(sent, Arc::clone(&exceeded));
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(
            (&read, exceeded.load(Ordering::Relaxed)),
            (b"+OK\r\n", false)
        );
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(exceeded.load(Ordering::Relaxed));
    }
}
