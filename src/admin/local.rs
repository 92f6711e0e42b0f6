//! Restricts routes that control the process or show operators' data to programs on this machine.
//!
//! A local program could signal the process anyway; nobody else may control it. Remote callers are
//! refused, and so are web pages, which can reach addresses of the machine that shows them:
//! browsers send `Origin` with every POST (Fetch, section 3.2), and `Sec-Fetch-Site` where they
//! know it. A request that a proxy forwarded may come from anywhere. `guard` has already refused
//! foreign host names.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use tokio_util::either::Either;

use crate::socket::{self, Accepted};

/// Each of these headers means that the request is not from a program on this machine.
const FROM_ELSEWHERE: [&str; 4] = ["origin", "sec-fetch-site", "forwarded", "x-forwarded-for"];

/// The caller of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    is_local_peer: bool,
    /// Whether it uses a unix socket, which no browser opens.
    pub(super) is_over_unix: bool,
}

/// Proof that a program on this machine sent the request. A handler that takes it is unreachable
/// for other callers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(());

impl Caller {
    /// Returns the caller of `stream`.
    pub(super) fn of(stream: &Accepted) -> Caller {
        Caller {
            is_local_peer: socket::is_local_peer(stream),
            is_over_unix: matches!(stream, Either::Right(_)),
        }
    }

    /// Returns whether a request with `headers` is from a program on this machine.
    fn is_local(self, headers: &HeaderMap) -> bool {
        let is_from_elsewhere = FROM_ELSEWHERE
            .iter()
            .any(|name| headers.contains_key(*name));
        self.is_local_peer && !is_from_elsewhere
    }
}

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Local, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>();
        if caller.is_some_and(|caller| caller.is_local(&parts.headers)) {
            return Ok(Local(()));
        }
        let instead = match parts.uri.path() {
            "/drain" => ": run collibra-auth-proxy drain beside the proxy, or send it SIGTERM",
            _ => " and no web page: call it beside the proxy, by an IP address or localhost",
        };
        let text = format!("only a program on this machine may do this{instead}\n");
        Err((StatusCode::FORBIDDEN, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_from_elsewhere_are_refused() {
        let none = HeaderMap::new();
        for is_local_peer in [true, false] {
            let caller = Caller {
                is_local_peer,
                is_over_unix: false,
            };
            assert_eq!(caller.is_local(&none), is_local_peer);
        }
    }
}
