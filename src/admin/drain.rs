//! `POST /drain`: a program of this machine asks the process to finish what is under way and exit.
//!
//! Whoever can signal the process can end it anyway; nobody else may. So a caller from elsewhere is
//! refused, and so is a web page, which reaches addresses of the machine that it is shown on:
//! browsers send `Origin` with every POST (Fetch, section 3.2), and `Sec-Fetch-Site` where they know
//! it. What a forwarding proxy sends may come from anywhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;

use super::routes::TEXT;
use super::view::View;
use crate::socket::Accepted;

/// Headers of which each says that the request does not come from a program of this machine.
const FROM_ELSEWHERE: [&str; 4] = ["origin", "sec-fetch-site", "forwarded", "x-forwarded-for"];

/// Who is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    is_local_peer: bool,
    is_over_unix: bool,
}

impl Caller {
    /// Who is at the other end of `stream`.
    pub(super) fn of(stream: &Accepted) -> Caller {
        Caller {
            is_local_peer: stream.is_local_peer(),
            is_over_unix: matches!(stream, Accepted::Unix(_)),
        }
    }

    /// Whether it came over a unix socket, which no browser opens.
    pub(super) fn is_over_unix(self) -> bool {
        self.is_over_unix
    }

    /// Whether this caller may end the process by a request with `headers`.
    fn may_drain(self, headers: &HeaderMap) -> bool {
        let is_from_elsewhere = FROM_ELSEWHERE
            .iter()
            .any(|name| headers.contains_key(*name));
        self.is_local_peer && !is_from_elsewhere
    }
}

/// Begins the drain, and answers before it is over.
pub(super) async fn drain(
    State(view): State<Arc<View>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let (status, text) = if caller.may_drain(&headers) {
        // at once, so that who asks next is told so
        view.draining.store(true, Ordering::Relaxed);
        view.drain.notify_one();
        (StatusCode::ACCEPTED, "draining\n")
    } else {
        (
            StatusCode::FORBIDDEN,
            "only a program of this machine may do this: run collibra-auth-proxy drain beside the proxy, or send it SIGTERM\n",
        )
    };
    (status, [(CONTENT_TYPE, TEXT)], text)
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
            assert_eq!(caller.may_drain(&none), is_local_peer);
        }
    }
}
