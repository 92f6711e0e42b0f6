//! An HTTP/1 connection of a caller, which serves its requests one after the other.
//!
//! This module reads each head completely before pingora parses it. So a head has one deadline,
//! from its first byte on, and one size limit, and its bytes can be checked where pingora's parser
//! is lenient.

use std::os::fd::AsRawFd as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::server::HttpSession;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::{Instant, timeout, timeout_at};

use super::caller::Caller;
use super::connection::Connection;
use super::exchange::{self, After};
use super::respond::{self, Refusal};
use crate::clock::timers;
use crate::downstream::stream::CallerStream;
use crate::policy::head;
use crate::telemetry::ListenerMetrics;
use crate::upstream::io::pingora_io;

/// The size of a read while waiting for a head, in bytes.
const READ_SIZE: usize = 4096;

/// How long sending the last bytes of a connection may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// How long, and how much, to read from a caller that is still sending when its connection is
/// closed. Closing with unread bytes would reset the connection and lose the response.
const LINGER: Duration = Duration::from_secs(1);
const MOST_DISCARDED: u64 = 1024 * 1024;

/// The start of every HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The length of a complete head in the buffer. Otherwise why it is refused, or `None` if the
/// caller closed the connection or was idle for too long.
pub(super) type Awaited = Result<usize, Option<Refusal>>;

pingora_io!(CallerStream, |stream| stream.as_raw_fd());

/// Serves the requests on `stream` until it ends. `read` was read from it already; `first` is the
/// result of waiting for its first head, if that has happened.
pub(super) async fn serve(
    stream: CallerStream,
    mut read: BytesMut,
    mut first: Option<Awaited>,
    connection: &Connection,
) {
    let metrics = Arc::clone(&connection.listening.state.load().metrics);
    let mut stream: Stream = Box::new(stream);
    let mut is_first = first.is_none();
    loop {
        let awaited = match first.take() {
            Some(awaited) => awaited,
            None => await_head(&mut stream, &mut read, connection, is_first).await,
        };
        is_first = false;
        let end = match awaited {
            Ok(_) if read.starts_with(HTTP2_PREFACE) => {
                return refuse(stream, &Refusal::Http2WithoutTls, &metrics).await;
            }
            Ok(end) => end,
            Err(None) => return close(stream, false).await,
            Err(Some(refusal)) => return refuse(stream, &refusal, &metrics).await,
        };
        let judged = head::check(&read[..end]);
        let mut session = HttpSession::new(stream);
        // the exchange limits each wait
        session.set_read_timeout(None);
        session.set_pipelining_enabled(true);
        // not after an interim response: the final one decides
        session.set_close_on_response_before_downstream_finish(false);
        session.set_pipelined_prefix(std::mem::take(&mut read));
        // the head is complete, so this does not wait; a parser that disagrees may wait no longer
        let patience = connection.limits.header_timeout;
        let parsed = timeout(patience, pin!(session.read_request())).await;
        if !matches!(parsed, Ok(Ok(Some(_)))) {
            let stream = session.into_inner();
            return refuse(stream, &Refusal::Unreadable, &metrics).await;
        }
        let mut caller = Caller::Http1(Box::new(session));
        let after = exchange::serve(&mut caller, connection, judged.err()).await;
        let Caller::Http1(mut session) = caller else {
            return;
        };
        let is_read = session.is_body_done();
        if after == After::Close || !session.will_keepalive() || !is_read {
            return close(session.into_inner(), !is_read || after == After::Close).await;
        }
        match session.reuse().await {
            Ok(Some(reusable)) => {
                let (kept, rest) = reusable.into_parts();
                stream = kept;
                read = rest.unwrap_or_default();
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Reads into `read` until it starts with a complete head. Before the first byte the connection is
/// idle, and may be closed to make room for others.
pub(super) async fn await_head(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
    connection: &Connection,
    is_first: bool,
) -> Awaited {
    let limits = connection.limits;
    let mut deadline: Option<Instant> = None;
    let mut scanned = 0;
    loop {
        if skip_empty_lines(read) {
            scanned = 0;
        }
        let end = head::end(read, &mut scanned);
        if end.unwrap_or(read.len()) > limits.max_header_bytes {
            return Err(Some(Refusal::LargeHeader));
        }
        if let Some(end) = end {
            return Ok(end);
        }
        if head::is_hopeless(read) {
            return Err(Some(Refusal::Unreadable));
        }
        let has_begun = !read.is_empty();
        if has_begun || is_first {
            deadline.get_or_insert_with(|| timers() + limits.header_timeout);
        }
        read.reserve(READ_SIZE);
        let reading = pin!(async {
            // a connection that broke has ended, too
            let filling = async { stream.read_buf(read).await.unwrap_or(0) };
            if has_begun {
                return Some(filling.await);
            }
            connection.registered.idle(is_first, filling).await
        });
        let received = match deadline {
            None => reading.await,
            Some(at) => match timeout_at(at, reading).await {
                Ok(received) => received,
                // a caller that sent nothing gets no response
                Err(_) => return Err(has_begun.then_some(Refusal::SlowHeader)),
            },
        };
        if received.unwrap_or(0) == 0 {
            return Err(None);
        }
    }
}

/// Removes empty lines before a request, which servers ignore (RFC 9112, section 2.2); returns
/// whether there were any.
fn skip_empty_lines(read: &mut BytesMut) -> bool {
    let before = read.len();
    while read.starts_with(b"\r\n") {
        read.advance(2);
    }
    read.len() < before
}

/// Answers bytes that are not a valid request, and closes the connection.
async fn refuse(stream: Stream, refusal: &Refusal, metrics: &ListenerMetrics) {
    metrics.refused(refusal.reason(), "");
    answer_and_close(stream, refusal).await;
}

/// Sends the answer to `refusal`, and closes the connection.
pub(super) async fn answer_and_close(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    refusal: &Refusal,
) {
    let answer = respond::answer(refusal).raw();
    let _ = timeout(FAREWELL, stream.write_all(&answer)).await;
    close(stream, true).await;
}

/// Closes a connection; with `linger` its caller may still be sending.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin, linger: bool) {
    let farewell = async {
        // a caller that is gone misses nothing
        let _ = stream.flush().await;
        let _ = AsyncWriteExt::shutdown(&mut stream).await;
    };
    let _ = timeout(FAREWELL, farewell).await;
    if linger {
        let mut rest = stream.take(MOST_DISCARDED);
        let _ = timeout(LINGER, copy(&mut rest, &mut sink())).await;
    }
}
