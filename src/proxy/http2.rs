//! An HTTP/2 connection of a caller, which serves each request like any other.
//!
//! It bounds concurrent streams, the size of heads, unsent data and resets, and ends on a flood of
//! useless frames. An unused connection ends like an idle HTTP/1 one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::HOST;
use http::{Request, Uri};
use pingora::http::RequestHeader;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::caller::{Caller, Stream};
use super::connection::{Connection, KEEP_ALIVE};
use super::exchange;
use crate::downstream::min_rate::MinRate;
use crate::downstream::overhead::{Overhead, Progress};
use crate::downstream::stream::CallerStream;

/// The most concurrent requests.
const STREAMS: u32 = 100;

/// The most remembered streams that the caller reset, and the most with errors: one more ends the
/// connection.
const RESETS: usize = 64;

/// The most unsent bytes per stream.
const SEND_BUFFER: usize = 64 * 1024;

/// The budget in bytes for small DATA frames that are not read yet: the connection's window (RFC
/// 9113, section 6.9.2) in frames of one byte. So the window is the limit, and a stream of small
/// messages is never refused.
const DATA_FRAME_BUDGET: usize = 65_535 * 256;

/// After how many invalid requests the connection ends.
const MALFORMED: usize = 32;

/// How long a connection may take to acknowledge its end.
const LINGER: Duration = Duration::from_secs(1);

/// The next event of a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is a request, and none is kept"
)]
enum Event {
    /// The connection must end, or did not acknowledge its end.
    End,
    /// A request.
    Request(Request<RecvStream>, SendResponse<Bytes>),
    /// The caller sends a flood of useless frames.
    Flood,
    /// It has ended.
    Closed,
}

/// Serves the requests of one connection until it ends, or until its listener closes and the last
/// request is answered.
pub(super) async fn serve(stream: CallerStream, connection: Connection) {
    let limits = connection.limits;
    let received = stream.received();
    let opened = options(limits.max_header_bytes).handshake(stream);
    let Ok(Ok(mut streams)) = timeout(limits.header_timeout, opened).await else {
        return;
    };
    let connection = Arc::new(connection);
    let Connection {
        listening,
        registered,
        ..
    } = &*connection;
    let progress = Arc::new(Progress::default());
    let mut overhead = Overhead::new(listening.clock.now(), limits.max_header_bytes);
    let mut requests = JoinSet::new();
    let mut ending = pin!(listening.ending());
    registered.begins();
    // the first request has the same deadline as on an HTTP/1 connection
    let mut patience = limits.header_timeout;
    let mut malformed = 0;
    let mut is_ending = false;
    loop {
        let event = tokio::select! {
            biased;
            () = &mut ending, if !is_ending => Event::End,
            Some(_answered) = requests.join_next() => {
                if requests.is_empty() {
                    registered.begins();
                }
                continue;
            }
            event = next(&mut streams, || {
                overhead.is_flood(received.load(Ordering::Relaxed), &progress, listening.clock.now())
            }) => event,
            () = registered.told_to_close(), if requests.is_empty() && !is_ending => Event::End,
            () = sleep(patience), if requests.is_empty() => Event::End,
        };
        match event {
            Event::End if is_ending => break,
            Event::End => {
                streams.graceful_shutdown();
                is_ending = true;
                patience = LINGER;
            }
            Event::Request(request, respond) => {
                overhead.request();
                registered.ends();
                if !is_ending {
                    patience = KEEP_ALIVE;
                }
                let min_rate = MinRate::of(limits.min_body_rate);
                let Some(mut caller) = caller(request, respond, min_rate, &progress) else {
                    malformed += 1;
                    if malformed == MALFORMED {
                        break;
                    }
                    continue;
                };
                let connection = Arc::clone(&connection);
                requests.spawn(async move {
                    exchange::serve(&mut caller, &connection, None).await;
                });
            }
            Event::Flood => {
                let name = Arc::clone(&listening.state.load().listener.name);
                info!(listener = %name, "an HTTP/2 connection was closed: it sent a flood of frames");
                streams.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = timeout(LINGER, poll_fn(|cx| streams.poll_closed(cx))).await;
                break;
            }
            Event::Closed => break,
        }
    }
    drop(streams);
    // each request notices the end and writes its log line
    while requests.join_next().await.is_some() {}
}

/// Drives the connection until its next event.
async fn next(
    streams: &mut server::Connection<CallerStream, Bytes>,
    is_flood: impl Fn() -> bool,
) -> Event {
    poll_fn(|cx| {
        let polled = streams.poll_accept(cx);
        if is_flood() {
            return Poll::Ready(Event::Flood);
        }
        polled.map(|accepted| match accepted {
            Some(Ok((request, respond))) => Event::Request(request, respond),
            Some(Err(_)) | None => Event::Closed,
        })
    })
    .await
}

fn options(max_header_bytes: usize) -> Builder {
    let mut options = Builder::new();
    options
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(RESETS))
        .data_frame_budget(DATA_FRAME_BUDGET);
    options
}

/// Returns a request like any other; `None` if it is invalid, after answering it with 400.
fn caller(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    min_rate: MinRate,
    progress: &Arc<Progress>,
) -> Option<Caller> {
    let (parts, body) = request.into_parts();
    let mut head = RequestHeader::from(parts);
    if to_origin_form(&mut head).is_none() {
        let answer = http::Response::builder().status(400).body(());
        let _ = respond.send_response(answer.ok()?, true);
        return None;
    }
    Some(Caller::Http2(Box::new(Stream {
        head,
        body,
        respond,
        sending: None,
        min_rate,
        sent: 0,
        progress: Arc::clone(progress),
    })))
}

/// Converts a request's target to the HTTP/1 form: a path with its query, and the authority as
/// `Host` (RFC 9113, section 8.3.1). `None` if there is no authority, if it differs from `Host`, or
/// if the target could end a line of HTTP/1.
fn to_origin_form(request: &mut RequestHeader) -> Option<()> {
    let is_delimiter = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r' | b' ');
    if request.raw_path().iter().any(is_delimiter) {
        return None;
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let Some(authority) = request.uri.authority() else {
        return host.map(drop);
    };
    match host {
        Some(host) if host.as_bytes() != authority.as_str().as_bytes() => return None,
        Some(_) => {}
        None => {
            let host = authority.as_str().to_owned();
            request.insert_header(HOST, host).ok()?;
        }
    }
    if let Some(path) = request.uri.path_and_query().cloned() {
        request.set_uri(Uri::from(path));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&str]) -> Option<RequestHeader> {
        let mut builder = http::Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let mut request = RequestHeader::from(builder.body(()).unwrap().into_parts().0);
        to_origin_form(&mut request).map(|()| request)
    }

    #[test]
    fn a_request_becomes_what_it_is_in_http_1() {
        for (uri, hosts) in [
            ("https://localhost:8443/a?b=%20", &[][..]),
            ("https://localhost:8443/a?b=%20", &["localhost:8443"]),
            ("/a?b=%20", &["localhost:8443"]),
        ] {
            let request = request(uri, hosts).unwrap();
            assert_eq!(request.uri.to_string(), "/a?b=%20");
            assert_eq!(request.raw_path(), b"/a?b=%20");
            let hosts: Vec<_> = request.headers.get_all(HOST).iter().collect();
            assert_eq!(hosts, ["localhost:8443"]);
        }
    }

    #[test]
    fn a_request_whose_host_is_in_doubt_is_refused() {
        for (uri, hosts) in [
            ("https://localhost/a", &["other"][..]),
            ("/a", &["localhost", "localhost"]),
            ("/a", &[]),
        ] {
            assert!(request(uri, hosts).is_none(), "{uri} {hosts:?}");
        }
    }
}
