//! Who may act on the process, or read what concerns its operators alone: programs of this machine.
//!
//! Anyone who can signal the process can end it anyway; nobody else may. So a caller from elsewhere
//! is refused, and so is a web page, which reaches addresses of the machine that it is shown on:
//! browsers send `Origin` with every POST (Fetch, section 3.2), and `Sec-Fetch-Site` where they know
//! it. A request that a proxy forwards may come from anywhere. `guard` has refused foreign names before.

use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};

use super::routes::TEXT;
use crate::socket::Accepted;

/// Headers of which each says that the request does not come from a program of this machine.
const FROM_ELSEWHERE: [&str; 4] = ["origin", "sec-fetch-site", "forwarded", "x-forwarded-for"];

/// Who is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    is_from_here: bool,
    is_over_unix: bool,
}

/// Proof that a program of this machine sent the request. A handler that takes it is reached by no
/// other caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(());

/// A refusal, ready to be sent.
type Refusal = (StatusCode, [(HeaderName, &'static str); 1], String);

impl Caller {
    /// Who is at the other end of `stream`.
    pub(super) fn of(stream: &Accepted) -> Caller {
        Caller {
            is_from_here: stream.is_from_here(),
            is_over_unix: matches!(stream, Accepted::Unix(_)),
        }
    }

    /// Whether it came over a unix socket, which no browser opens.
    pub(super) fn is_over_unix(self) -> bool {
        self.is_over_unix
    }

    /// Whether a request with `headers` comes from a program of this machine.
    fn is_local(self, headers: &HeaderMap) -> bool {
        let is_from_elsewhere = FROM_ELSEWHERE
            .iter()
            .any(|name| headers.contains_key(*name));
        self.is_from_here && !is_from_elsewhere
    }
}

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Local, Refusal> {
        let caller = parts.extensions.get::<Caller>();
        if caller.is_some_and(|caller| caller.is_local(&parts.headers)) {
            return Ok(Local(()));
        }
        let instead = match parts.uri.path() {
            "/drain" => ": run collibra-auth-proxy drain beside the proxy, or send it SIGTERM",
            _ => " and no web page: call it beside the proxy, by an IP address or localhost",
        };
        let text = format!("only a program of this machine may do this{instead}\n");
        Err((StatusCode::FORBIDDEN, [(CONTENT_TYPE, TEXT)], text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_from_elsewhere_are_refused() {
        let none = HeaderMap::new();
        for is_from_here in [true, false] {
            let caller = Caller {
                is_from_here,
                is_over_unix: false,
            };
            assert_eq!(caller.is_local(&none), is_from_here);
        }
    }
}
