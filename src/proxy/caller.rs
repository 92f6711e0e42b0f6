//! A caller's request and its response, over HTTP/1 or HTTP/2.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, EXPECT};
use http::{Method, Response, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::{Error, ErrorType};

use crate::downstream::min_rate::MinRate;
use crate::downstream::overhead::Progress;
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
    pub(super) head: RequestHeader,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
    /// Set once the response's head is sent.
    pub(super) sending: Option<SendStream<Bytes>>,
    /// The rate at which the caller reads the response.
    pub(super) min_rate: MinRate,
    /// The bytes sent of the response's body.
    pub(super) sent: u64,
    pub(super) progress: Arc<Progress>,
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

impl From<Box<Error>> for CallerError {
    fn from(error: Box<Error>) -> CallerError {
        match error.etype() {
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => {
                CallerError::Gone
            }
            ErrorType::WriteTimedout => CallerError::TooSlow,
            _ => CallerError::Malformed,
        }
    }
}

/// A stream ends early because its caller reset it or has gone.
impl From<h2::Error> for CallerError {
    fn from(_: h2::Error) -> CallerError {
        CallerError::Gone
    }
}

impl Stream {
    /// Waits until the caller has room for a part of the response; returns how many bytes.
    async fn room(&mut self, wanted: usize) -> Result<usize, CallerError> {
        let (Some(sending), min_rate) = (&mut self.sending, &mut self.min_rate) else {
            return Ok(wanted);
        };
        if sending.capacity() == 0 {
            sending.reserve_capacity(wanted.min(PORTION));
        }
        poll_fn(|cx| {
            while sending.capacity() == 0 {
                match sending.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(CallerError::Gone)),
                    Poll::Pending => return min_rate.wait(cx).map(|()| Err(CallerError::TooSlow)),
                }
            }
            min_rate.resume();
            Poll::Ready(Ok(sending.capacity().min(wanted)))
        })
        .await
    }

    /// Sends a part of the body, as the caller has room; with `is_last` it is the last.
    async fn write(&mut self, mut data: Bytes, is_last: bool) -> Result<(), CallerError> {
        loop {
            let room = self.room(data.len()).await?;
            let part = data.split_to(room);
            let is_end = is_last && data.is_empty();
            let bytes = u64::try_from(room).unwrap_or(0);
            self.min_rate.moved(bytes);
            self.progress.moved(room);
            self.sent += bytes;
            let sending = self.sending.as_mut().ok_or(CallerError::Gone)?;
            sending.send_data(part, is_end)?;
            if data.is_empty() {
                return Ok(());
            }
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
            Caller::Http1(session) => Ok(session.read_body_bytes().await?),
            Caller::Http2(stream) => {
                let data = stream.body.data().await.transpose()?;
                if let Some(data) = &data {
                    let _ = stream.body.flow_control().release_capacity(data.len());
                    stream.progress.moved(data.len());
                }
                Ok(data)
            }
        }
    }

    /// Waits until the caller gives the request up. Call it once the body is read. Cancel safe.
    pub(super) async fn gone(&mut self) -> CallerError {
        match self {
            Caller::Http1(session) => match session.read_body_or_idle(true).await {
                Err(error) => error.into(),
                Ok(_) => CallerError::Gone,
            },
            Caller::Http2(stream) => {
                let reset = poll_fn(|cx| match &mut stream.sending {
                    Some(sending) => sending.poll_reset(cx),
                    None => stream.respond.poll_reset(cx),
                });
                let _reason = reset.await;
                CallerError::Gone
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
            Caller::Http1(session) => session.write_response_header(head).await?,
            Caller::Http2(stream) => stream.respond.send_informational(to_http(*head))?,
        }
        Ok(())
    }

    /// Sends a 100, which asks for the body.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn write_continue(&mut self) -> Result<(), CallerError> {
        let head = ResponseHeader::build(StatusCode::CONTINUE, Some(0))?;
        self.write_interim(Box::new(head)).await
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
                session.write_response_header(head).await?;
                if is_last {
                    session.finish_body().await?;
                }
            }
            Caller::Http2(stream) => {
                head.insert_header(DATE, get_cached_date())?;
                let sending = stream.respond.send_response(to_http(*head), is_last)?;
                stream.sending = Some(sending);
                stream.min_rate.reset();
            }
        }
        Ok(())
    }

    /// Waits until the caller has room for more of the body. Do not read from the instance before.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) async fn ready(&mut self) -> Result<(), CallerError> {
        // over HTTP/1 the kernel buffers what the caller does not read
        if let Caller::Http2(stream) = self {
            stream.room(PORTION).await?;
            // reserve the connection's window only for streams with data to send
            if let Some(sending) = &mut stream.sending {
                sending.reserve_capacity(0);
            }
        }
        Ok(())
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
                    session.write_body(part.as_slice()).await?;
                }
                if is_last {
                    session.finish_body().await?;
                }
            }
            Caller::Http2(stream) if !is_empty => stream.write(part.into_bytes(), is_last).await?,
            Caller::Http2(stream) => {
                if is_last && let Some(sending) = &mut stream.sending {
                    sending.send_data(part.into_bytes(), true)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the truncation of the response visible to the caller.
    pub(super) fn abort(&mut self) {
        match self {
            // close the connection without the end of the response
            Caller::Http1(session) => session.set_server_keepalive(None),
            Caller::Http2(stream) => match &mut stream.sending {
                Some(sending) => sending.send_reset(Reason::INTERNAL_ERROR),
                None => stream.respond.send_reset(Reason::INTERNAL_ERROR),
            },
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
}

fn to_http(head: ResponseHeader) -> Response<()> {
    let parts: http::response::Parts = head.into();
    Response::from_parts(parts, ())
}
