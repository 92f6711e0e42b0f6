//! A request that has ended, as it is counted, logged and traced.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderValue, Method};

use super::requests::{Cut, Source};

/// A request that has ended. Never a query or a body, and no header value but those named here.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The address of the connection's peer; none over a unix socket.
    pub peer: Option<SocketAddr>,
    /// The caller's address as reported by trusted proxies.
    pub forwarded: Option<IpAddr>,
    /// The client's name.
    pub client: &'a str,
    /// The host of the client's instance.
    pub instance: &'a str,
    /// The app's name, if the caller is one.
    pub app: Option<&'a str>,
    /// The app name that the caller claims without proof.
    pub claimed_app: Option<&'a str>,
    /// The id that identifies the request in other logs.
    pub request_id: Option<&'a HeaderValue>,
    /// The id of the trace with the request's span.
    pub trace_id: Option<u128>,
    /// The method.
    pub method: &'a Method,
    /// The path of its target.
    pub path: &'a str,
    /// The caller's `User-Agent`, if it is logged.
    pub user_agent: Option<&'a HeaderValue>,
    /// The status sent to the caller; 0 if there was no response.
    pub status: u16,
    /// The bytes read of the request's body.
    pub request_bytes: u64,
    /// The bytes sent of the response's body.
    pub response_bytes: u64,
    /// The time from the request's head to the last byte of the response.
    pub took: Duration,
    /// The time until the instance sent the head of its response; `None` if the response is the
    /// proxy's own.
    pub upstream: Option<Duration>,
    /// The generation of the request's token.
    pub generation: Option<u64>,
    /// Whether the request was sent again after a 401.
    pub replayed: bool,
    /// Why the proxy answered it itself.
    pub refused: Option<&'static str>,
    /// Which side ended the exchange early.
    pub cut: Option<Cut>,
    /// The error message, if something failed.
    pub error: Option<&'a str>,
}

impl Ended<'_> {
    /// The source of its response.
    pub(super) fn source(&self) -> Source {
        self.upstream.map_or(Source::Proxy, |_| Source::Instance)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request of `catalog` that succeeded.
    pub(crate) const ENDED: Ended<'static> = Ended {
        listener: "local",
        peer: None,
        forwarded: None,
        client: "catalog",
        instance: "acme.collibra.com",
        app: None,
        claimed_app: None,
        request_id: None,
        trace_id: None,
        method: &Method::GET,
        path: "/rest/2.0/assets",
        user_agent: None,
        status: 200,
        request_bytes: 10,
        response_bytes: 1_000,
        took: Duration::from_millis(40),
        upstream: Some(Duration::from_millis(30)),
        generation: None,
        replayed: false,
        refused: None,
        cut: None,
        error: None,
    };
}
