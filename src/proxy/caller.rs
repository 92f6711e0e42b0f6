//! A caller's request and its response, over HTTP/1 or HTTP/2.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, EXPECT};
use http::{Method, Response, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::{Error, ErrorType};

use super::min_rate::MinRate;
use super::overhead::Progress;
use crate::upstream::session::{Chunk, is_http11};

/// The size in bytes of the pieces of a response that are read from the instance while the caller
/// has room for them.
const PORTION: usize = 16 * 1024;

/// A request of a caller.
pub(super) enum Caller {
    Http1(Box<HttpSession>),
    Http2(Box<Stream>),
}

/// An HTTP/2 request.
pub(super) struct Stream {
    head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// Set once the response's head is sent.
    sending: Option<SendStream<Bytes>>,
    /// The rate at which the caller reads the response.
    min_rate: MinRate,
    /// Returns whether the response is complete.
    is_ended: bool,
    sent: u64,
    progress: Arc<Progress>,
}

/// Why a caller's request cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallerError {
    /// It closed its connection or reset its stream.
    #[error("the caller has closed the connection")]
    Gone,
    /// Its body cannot be read.
    #[error("the caller's body cannot be read")]
    Malformed,
    /// It sends its body, or reads the response, too slowly.
    #[error("the caller is slower than min_body_rate")]
    TooSlow,
}

impl CallerError {
    fn of(error: &Error) -> CallerError {
        match error.etype() {
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => {
                CallerError::Gone
            }
            ErrorType::WriteTimedout => CallerError::TooSlow,
            _ => CallerError::Malformed,
        }
    }
}

impl Stream {
    /// Returns a request whose head was read; `min_rate` limits how slowly its caller may read the
    /// response.
    pub(super) fn new(
        head: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        min_rate: MinRate,
        progress: Arc<Progress>,
    ) -> Stream {
        Stream {
            head,
            body,
            respond,
            sending: None,
            min_rate,
            is_ended: false,
            sent: 0,
            progress,
        }
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Some(sending) => sending.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Waits until the caller has room for a part of the response; returns how many bytes.
    async fn room(&mut self, wanted: usize) -> Result<usize, CallerError> {
        let (Some(sending), min_rate) = (&mut self.sending, &mut self.min_rate) else {
            return Ok(wanted);
        };
        if sending.capacity() == 0 {
            sending.reserve_capacity(wanted.min(PORTION));
        }
        let room = poll_fn(|cx| {
            loop {
                let room = sending.capacity();
                if room > 0 {
                    min_rate.resume();
                    return std::task::Poll::Ready(Ok(room));
                }
                match sending.poll_capacity(cx) {
                    std::task::Poll::Ready(Some(Ok(_))) => {}
                    std::task::Poll::Ready(_) => {
                        return std::task::Poll::Ready(Err(CallerError::Gone));
                    }
                    std::task::Poll::Pending => {
                        std::task::ready!(min_rate.wait(cx));
                        return std::task::Poll::Ready(Err(CallerError::TooSlow));
                    }
                }
            }
        })
        .await?;
        Ok(room.min(wanted))
    }

    async fn write(&mut self, mut data: Bytes, is_last: bool) -> Result<(), CallerError> {
        loop {
            let room = self.room(data.len()).await?;
            let part = data.split_to(room);
            let is_end = is_last && data.is_empty();
            self.min_rate.moved(u64::try_from(room).unwrap_or(0));
            self.progress.moved(room);
            self.sent += u64::try_from(room).unwrap_or(0);
            let Some(sending) = &mut self.sending else {
                return Err(CallerError::Gone);
            };
            let sent = sending.send_data(part, is_end);
            sent.map_err(|_| CallerError::Gone)?;
            self.is_ended |= is_end;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    fn end(&mut self) -> Result<(), CallerError> {
        if self.is_ended {
            return Ok(());
        }
        self.is_ended = true;
        match &mut self.sending {
            Some(sending) => sending
                .send_data(Bytes::new(), true)
                .map_err(|_| CallerError::Gone),
            None => Ok(()),
        }
    }
}

impl Caller {
    /// The head of the request.
    pub(super) fn head(&self) -> &RequestHeader {
        match self {
            Caller::Http1(session) => session.req_header(),
            Caller::Http2(stream) => &stream.head,
        }
    }

    /// The head of the request, mutably.
    pub(super) fn head_mut(&mut self) -> &mut RequestHeader {
        match self {
            Caller::Http1(session) => session.req_header_mut(),
            Caller::Http2(stream) => &mut stream.head,
        }
    }

    /// Returns whether the request has a body.
    pub(super) fn has_body(&mut self) -> bool {
        match self {
            Caller::Http1(session) => !session.is_body_empty(),
            Caller::Http2(stream) => !stream.body.is_end_stream(),
        }
    }

    /// Returns whether the request was read completely.
    pub(super) fn is_body_done(&mut self) -> bool {
        match self {
            Caller::Http1(session) => session.is_body_done(),
            Caller::Http2(stream) => stream.body.is_end_stream(),
        }
    }

    /// Returns whether the caller waits for a 100 before it sends the body (RFC 9110, section
    /// 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        let head = self.head();
        let expects = head.headers.get(EXPECT);
        is_http11(head.version)
            && expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// Reads a part of the body; `None` at its end. Cancel safe.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn read_body(&mut self) -> Result<Option<Bytes>, CallerError> {
        match self {
            Caller::Http1(session) => {
                let read = session.read_body_bytes().await;
                read.map_err(|e| CallerError::of(&e))
            }
            Caller::Http2(stream) => match stream.body.data().await {
                None => Ok(None),
                Some(Err(_)) => Err(CallerError::Gone),
                Some(Ok(data)) => {
                    let _ = stream.body.flow_control().release_capacity(data.len());
                    stream.progress.moved(data.len());
                    Ok(Some(data))
                }
            },
        }
    }

    /// Waits until the caller gives the request up. Call it once the body is read. Cancel safe.
    pub(super) async fn gone(&mut self) -> CallerError {
        match self {
            Caller::Http1(session) => match session.read_body_or_idle(true).await {
                Err(e) => CallerError::of(&e),
                Ok(_) => CallerError::Gone,
            },
            Caller::Http2(stream) => {
                let reset = match &mut stream.sending {
                    Some(sending) => poll_fn(|cx| sending.poll_reset(cx)).await,
                    None => poll_fn(|cx| stream.respond.poll_reset(cx)).await,
                };
                match reset {
                    Ok(_) | Err(_) => CallerError::Gone,
                }
            }
        }
    }

    /// Sends an interim response (1xx other than 101), unless the caller's HTTP version has none.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn write_interim(
        &mut self,
        head: Box<ResponseHeader>,
    ) -> Result<(), CallerError> {
        if !is_http11(self.head().version) {
            return Ok(());
        }
        match self {
            Caller::Http1(session) => {
                let written = session.write_response_header(head).await;
                written.map_err(|e| CallerError::of(&e))
            }
            Caller::Http2(stream) => {
                let sent = stream.respond.send_informational(to_http(*head));
                sent.map_err(|_| CallerError::Gone)
            }
        }
    }

    /// Sends a 100, which asks for the body.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn write_continue(&mut self) -> Result<(), CallerError> {
        match ResponseHeader::build(StatusCode::CONTINUE, Some(0)) {
            Ok(head) => self.write_interim(Box::new(head)).await,
            Err(_) => Ok(()),
        }
    }

    /// Sends the head of the response; with `is_last` there is no body.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn write_head(
        &mut self,
        mut head: Box<ResponseHeader>,
        is_last: bool,
    ) -> Result<(), CallerError> {
        match self {
            Caller::Http1(session) => {
                if !session.is_body_done() {
                    session.set_server_keepalive(None);
                }
                let written = session.write_response_header(head).await;
                written.map_err(|e| CallerError::of(&e))?;
                if is_last {
                    let finished = session.finish_body().await;
                    finished.map_err(|e| CallerError::of(&e))?;
                }
                Ok(())
            }
            Caller::Http2(stream) => {
                let dated = head.insert_header(DATE, get_cached_date());
                dated.map_err(|_| CallerError::Gone)?;
                let sent = stream.respond.send_response(to_http(*head), is_last);
                stream.sending = Some(sent.map_err(|_| CallerError::Gone)?);
                stream.is_ended = is_last;
                stream.min_rate.reset();
                Ok(())
            }
        }
    }

    /// Waits until the caller has room for more of the body. Do not read from the instance before.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn ready(&mut self) -> Result<(), CallerError> {
        match self {
            // the kernel buffers what the caller does not read
            Caller::Http1(_) => Ok(()),
            Caller::Http2(stream) => {
                stream.room(PORTION).await?;
                // reserve the connection's window only for streams with data to send
                if let Some(sending) = &mut stream.sending {
                    sending.reserve_capacity(0);
                }
                Ok(())
            }
        }
    }

    /// Sends a part of the body; with `is_last` it is the last.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn write_body(
        &mut self,
        part: Chunk<'_>,
        is_last: bool,
    ) -> Result<(), CallerError> {
        let is_empty = part.as_slice().is_empty();
        match self {
            Caller::Http1(session) => {
                // in chunked coding an empty part would end the body
                if !is_empty {
                    let written = session.write_body(part.as_slice()).await;
                    written.map_err(|e| CallerError::of(&e))?;
                }
                if is_last {
                    let finished = session.finish_body().await;
                    finished.map_err(|e| CallerError::of(&e))?;
                }
                Ok(())
            }
            Caller::Http2(stream) if is_empty && is_last => stream.end(),
            Caller::Http2(_) if is_empty => Ok(()),
            Caller::Http2(stream) => stream.write(part.into_bytes(), is_last).await,
        }
    }

    /// Makes the truncation of the response visible to the caller.
    pub(super) fn abort(&mut self) {
        match self {
            // close the connection without the end of the response
            Caller::Http1(session) => session.set_server_keepalive(None),
            Caller::Http2(stream) => stream.reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Makes the response announce the end of the connection.
    pub(super) fn close_after(&mut self) {
        if let Caller::Http1(session) = self {
            session.set_server_keepalive(None);
        }
    }

    /// The bytes of the body sent so far.
    pub(super) fn body_bytes_sent(&self) -> u64 {
        match self {
            Caller::Http1(session) => u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX),
            Caller::Http2(stream) => stream.sent,
        }
    }

    /// The method of the request.
    pub(super) fn method(&self) -> &Method {
        &self.head().method
    }

    /// The caller's HTTP version.
    pub(super) fn version(&self) -> Version {
        self.head().version
    }
}

fn to_http(head: ResponseHeader) -> Response<()> {
    let parts: http::response::Parts = head.into();
    Response::from_parts(parts, ())
}
