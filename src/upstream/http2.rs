//! An HTTP/2 connection to an instance, which requests share, and a request on it.
//!
//! It uses h2 itself: pingora's session for HTTP/2 copies each head of a request and a response.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use pingora::http::{RequestHeader, ResponseHeader};
use tokio::task::JoinHandle;

use super::session::{Again, Broken, Chunk};
use super::stream::InstanceStream;
use crate::outgoing::dial::in_words;

/// The most concurrent requests on a connection.
const STREAMS: usize = 64;

/// The flow-control window of a response, in bytes. The connection's window is large enough for all
/// streams, so that an app that reads slowly does not block another.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// The largest frame that the instance may send, in bytes.
const LARGEST_FRAME: u32 = 64 * 1024;

/// An HTTP/2 connection.
pub(super) struct Connection {
    requests: SendRequest<Bytes>,
    /// Each request on it holds a clone.
    in_use: Arc<()>,
    /// Ends with the connection.
    driver: JoinHandle<()>,
}

/// A request on a connection, and its response.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    /// Whether the connection has served a request before.
    pub(super) is_reused: bool,
    sending: Option<SendStream<Bytes>>,
    response: Option<ResponseFuture>,
    pub(super) head: Option<ResponseHeader>,
    body: Option<RecvStream>,
    _in_use: Arc<()>,
}

impl Connection {
    /// Starts HTTP/2 on a stream that negotiated it.
    ///
    /// # Errors
    /// If the instance does not answer as HTTP/2 requires.
    pub(super) async fn start(stream: InstanceStream) -> Result<Connection, h2::Error> {
        let (requests, connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS)
            .max_frame_size(LARGEST_FRAME)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        let driver = tokio::spawn(async move {
            // each request on it reports the error
            let _ = connection.await;
        });
        Ok(Connection {
            requests,
            in_use: Arc::new(()),
            driver,
        })
    }

    /// Returns whether it accepts no more requests: it is closed, or the instance is closing it
    /// (GOAWAY).
    pub(super) fn is_gone(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.driver.is_finished()
            || matches!(self.requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Returns whether no request is on it.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.in_use) - 1
    }

    /// Begins a request, if the connection has room for one more.
    pub(super) fn request(&self, is_reused: bool) -> Option<Http2> {
        let most = STREAMS.min(self.requests.current_max_send_streams());
        (self.in_flight() < most).then(|| Http2 {
            requests: self.requests.clone(),
            is_reused,
            sending: None,
            response: None,
            head: None,
            body: None,
            _in_use: Arc::clone(&self.in_use),
        })
    }
}

impl Http2 {
    /// Sends the head. Its URI is absolute, and there is no `Host`.
    pub(super) fn write_head(&mut self, head: RequestHeader, no_body: bool) -> Result<(), Broken> {
        let parts: http::request::Parts = head.into();
        let request = Request::from_parts(parts, ());
        let sent = self.requests.send_request(request, no_body);
        let (response, sending) = sent.map_err(|e| self.broken(&e))?;
        self.response = Some(response);
        self.sending = (!no_body).then_some(sending);
        Ok(())
    }

    /// Sends a part of the body, as fast as the instance takes it.
    pub(super) async fn write_body(&mut self, mut part: Bytes) -> Result<(), Broken> {
        while !part.is_empty() {
            let Some(sending) = &mut self.sending else {
                return Err(Broken::invalid("the request has no body to send"));
            };
            sending.reserve_capacity(part.len());
            let sent = match poll_fn(|cx| sending.poll_capacity(cx)).await {
                Some(Ok(room)) => sending.send_data(part.split_to(room.min(part.len())), false),
                Some(Err(e)) => Err(e),
                None => Err(Reason::CANCEL.into()),
            };
            sent.map_err(|e| self.broken(&e))?;
        }
        Ok(())
    }

    /// Ends the body.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        let ended = match self.sending.take() {
            Some(mut sending) => sending.send_data(Bytes::new(), true),
            None => Ok(()),
        };
        ended.map_err(|e| self.broken(&e))
    }

    /// Reads the head of the response. h2 hides interim ones. Cancel safe.
    pub(super) async fn read_head(&mut self) -> Result<(), Broken> {
        let Some(response) = &mut self.response else {
            return Err(Broken::invalid("there is no request to respond to"));
        };
        let response = response.await.map_err(|e| self.broken(&e))?;
        let (head, body) = response.into_parts();
        if !has_one_length(&head.headers) {
            return Err(Broken::invalid("its Content-Length is ambiguous"));
        }
        self.head = Some(head.into());
        self.body = Some(body);
        Ok(())
    }

    /// Reads a piece of the response's body; `None` at its end. Cancel safe.
    pub(super) async fn read_body(&mut self) -> Result<Option<Chunk<'_>>, Broken> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(read) = body.data().await else {
            return Ok(None);
        };
        let bytes = read
            .and_then(|bytes| {
                body.flow_control().release_capacity(bytes.len())?;
                Ok(bytes)
            })
            .map_err(|e| Broken::http2(&e, Again::Never))?;
        Ok(Some(match body.is_end_stream() {
            true => Chunk::Last(bytes),
            false => Chunk::Owned(bytes),
        }))
    }

    /// Returns whether the response is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.body.as_ref().is_some_and(RecvStream::is_end_stream)
    }

    fn broken(&self, error: &h2::Error) -> Broken {
        // the body comes with the head
        let again = match self.body {
            Some(_) => Again::Never,
            None => again(error),
        };
        Broken::http2(error, again)
    }
}

/// Describes an error without quoting the other side.
pub(super) fn cause(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => in_words(io),
        (None, Some(reason)) => reason.description().to_owned(),
        (None, None) => "an error of HTTP/2".to_owned(),
    }
}

/// Returns whether a request may be sent again whose response failed with `error` before its head.
fn again(error: &h2::Error) -> Again {
    let io = error.get_io();
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) if error.is_remote() => Again::OverHttp1,
        // the instance has not processed it (RFC 9113, sections 6.8 and 8.7)
        Some(Reason::NO_ERROR) if error.is_remote() && error.is_go_away() => Again::Always,
        Some(Reason::REFUSED_STREAM) if error.is_remote() && error.is_reset() => Again::Always,
        // unless TLS failed, the instance may have closed the connection before the request came
        _ if io.is_some_and(is_cut) => Again::IfIdempotent,
        _ => Again::Never,
    }
}

fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};

    error.raw_os_error().is_some()
        || matches!(error.kind(), ConnectionReset | TimedOut | BrokenPipe)
}

/// Returns whether all values of `Content-Length` are the same number, if there are any (RFC 9110,
/// section 8.6).
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths = values
        .by_ref()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let Some(first) = lengths.next() else {
        return true;
    };
    let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    is_number && lengths.all(|length| length == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_may_be_given_more_than_once() {
        let is_one = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, value.parse().unwrap());
            }
            has_one_length(&headers)
        };
        for values in [&[][..], &["2"], &["2", "2"], &["2, 2"], &["2,2", "2"]] {
            assert!(is_one(values), "{values:?}");
        }
        for values in [&["2", "3"][..], &["2, 3"], &["-2"], &[""], &["2,"], &["x"]] {
            assert!(!is_one(values), "{values:?}");
        }
    }
}
