//! Who may act on the process, or read what concerns its operators alone: programs of this machine.
//!
//! Anyone who can signal the process can end it anyway; nobody else may. So a caller from elsewhere
//! is refused, and so is a web page, which reaches addresses of the machine that it is shown on:
//! browsers send `Origin` with every POST (Fetch, section 3.2), and `Sec-Fetch-Site` where they know
//! it. A request that a proxy forwards may come from anywhere.

use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, HOST};
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
        }
    }

    /// Whether a request with `headers` comes from a program of this machine.
    fn is_local(self, headers: &HeaderMap) -> bool {
        let is_from_elsewhere = FROM_ELSEWHERE
            .iter()
            .any(|name| headers.contains_key(*name));
        self.is_from_here && !is_from_elsewhere && !is_by_name(headers)
    }
}

/// Whether the request was sent to a name of somebody's choice. A page can make its own name lead
/// here (DNS rebinding), and then sends a GET without any of the headers above.
fn is_by_name(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().any(|host| {
        let host = host.to_str().unwrap_or_default();
        let is_address = host.parse::<std::net::SocketAddr>().is_ok()
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok();
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        !is_address && !name.eq_ignore_ascii_case("localhost")
    })
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
    use axum::http::HeaderValue;

    #[test]
    fn callers_from_elsewhere_are_refused() {
        let none = HeaderMap::new();
        for is_from_here in [true, false] {
            assert_eq!(Caller { is_from_here }.is_local(&none), is_from_here);
        }
    }

    #[test]
    fn a_name_that_may_lead_anywhere_is_refused() {
        let is_local = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            Caller { is_from_here: true }.is_local(&headers)
        };
        for host in [
            "127.0.0.1:9902",
            "10.0.0.7",
            "[::1]:9902",
            "[::1]",
            "localhost:1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "attacker.example:9902",
            "localhost.attacker.example",
            "0x7f000001",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
