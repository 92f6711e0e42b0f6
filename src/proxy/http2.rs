//! An app's HTTP/2 connection: each of its requests goes the way of all others.
//!
//! Streams at once, the size of heads, what waits to be sent and what is reset are bounded. A
//! connection on which nothing is asked for ends as an idle one of HTTP/1 does.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HOST;
use pingora_core::Result;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, H2Options, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest};
use pingora_http::RequestHeader;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::pace;
use super::service::Service;

/// How many requests may be under way at once.
const STREAMS: u32 = 100;

/// How many streams that the caller has given up are remembered, and how many that were at fault:
/// one more ends the connection.
const RESETS: usize = 64;

/// What may wait to be sent, per stream, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// After so many requests that cannot be read the connection is ended.
const MALFORMED: usize = 32;

/// How long a connection that is ending may take to be told so and to confirm it.
const LINGER: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until it ends, or until `ending` turns true and the last
/// of them is answered.
pub(super) async fn serve(
    connection: Connection,
    proxy: &Arc<HttpProxy<Service>>,
    keep_alive: Duration,
    mut ending: watch::Receiver<bool>,
) {
    let limits = connection.limits();
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: connection.get_timing_digest(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let write_timeout = limits
        .min_body_rate
        .map(|rate| pace::longest_write(rate, 64 * 1024));
    let options = options(limits.max_header_bytes);
    let opened = timeout(
        limits.header_timeout,
        handshake(Box::new(connection), Some(options)),
    );
    let Ok(Ok(mut connection)) = opened.await else {
        return;
    };
    let shutdown = ending.clone();
    let mut requests = JoinSet::new();
    // the first request is due as soon as that of an HTTP/1 connection
    let mut patience = limits.header_timeout;
    let mut malformed = 0;
    let mut is_ending = false;
    loop {
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending), if !is_ending => {
                connection.graceful_shutdown();
                is_ending = true;
                patience = LINGER;
            }
            Some(_answered) = requests.join_next() => {}
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => {
                match accepted {
                    Ok(Some(H2Accept::Session(mut session))) => {
                        if !is_ending {
                            patience = keep_alive;
                        }
                        session.set_write_timeout(write_timeout);
                        let (proxy, ending) = (Arc::clone(proxy), shutdown.clone());
                        requests.spawn(async move {
                            if to_origin_form(session.req_header_mut()).is_ok() {
                                let session = ServerSession::new_http2(session);
                                proxy.process_new_http(session, &ending).await;
                            }
                        });
                    }
                    Ok(Some(H2Accept::Rejected)) => {
                        malformed += 1;
                        if malformed == MALFORMED {
                            break;
                        }
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            () = sleep(patience), if requests.is_empty() => {
                if is_ending {
                    break;
                }
                connection.graceful_shutdown();
                is_ending = true;
                patience = LINGER;
            }
        }
    }
    drop(connection);
    // each notices, and writes its line to the log
    while requests.join_next().await.is_some() {}
}

fn options(max_header_bytes: usize) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(RESETS));
    options
}

/// Makes a request's target what it is in HTTP/1, a path with its query, and its authority the
/// `Host` that it stands for (RFC 9113, section 8.3.1). Where both were given they are the same;
/// pingora has seen to that.
fn to_origin_form(request: &mut RequestHeader) -> Result<()> {
    let Some(authority) = request.uri.authority() else {
        return Ok(());
    };
    if !request.headers.contains_key(HOST) {
        let host = authority.as_str().to_owned();
        request.insert_header(HOST, host)?;
    }
    if let Some(path) = request.uri.path_and_query().cloned() {
        request.set_uri(Uri::from(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&str>) -> RequestHeader {
        let mut builder = http::Request::builder().uri(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        let mut request = RequestHeader::from(builder.body(()).unwrap().into_parts().0);
        to_origin_form(&mut request).unwrap();
        request
    }

    #[test]
    fn a_request_becomes_what_it_is_in_http_1() {
        for (uri, host) in [
            ("https://localhost:8443/a?b=%20", None),
            ("https://localhost:8443/a?b=%20", Some("localhost:8443")),
            ("/a?b=%20", Some("localhost:8443")),
        ] {
            let request = request(uri, host);
            assert_eq!(request.uri.to_string(), "/a?b=%20");
            assert_eq!(request.raw_path(), b"/a?b=%20");
            let hosts: Vec<_> = request.headers.get_all(HOST).iter().collect();
            assert_eq!(hosts, ["localhost:8443"]);
        }
    }
}
