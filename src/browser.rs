//! Refuses requests of web pages. Any page that the user opens can reach an address on localhost.
//! The browser reveals this in headers that a page cannot forge, and in `Host`: a page that rebinds
//! its own name to 127.0.0.1 still sends that name. Pure.

use std::borrow::Cow;

use http::header::{HOST, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderValue};

/// Returns whether `host` (as returned by [`host_of_authority`]) is accepted.
#[must_use]
pub fn is_accepted(hosts: &[String], host: &str) -> bool {
    hosts.iter().any(|accepted| accepted == host)
}

/// Returns whether a browser reports that another site's page sent the request: by an `Origin`
/// whose host is not `accepted`, or a cross-site `Sec-Fetch-Site` (Fetch Metadata).
///
/// An upgrade must come from exactly the address that it is sent to. Chromium sends no
/// `Sec-Fetch-Site` when it opens a WebSocket, so nothing else distinguishes a page on port 3000 of
/// this machine from one of this listener's.
#[must_use]
pub fn is_cross_site(accepted: impl Fn(&str) -> bool, headers: &HeaderMap) -> bool {
    let upgrade = headers.contains_key(UPGRADE);
    let own = headers.get(HOST).map(HeaderValue::as_bytes);
    let foreign_origin = headers.get_all(ORIGIN).iter().any(|origin| {
        let authority = origin.to_str().ok().and_then(|text| {
            text.strip_prefix("http://")
                .or_else(|| text.strip_prefix("https://"))
        });
        let is_ours = authority.is_some_and(|authority| {
            let host = host_of_authority(authority);
            let is_own = own.is_some_and(|own| own.eq_ignore_ascii_case(authority.as_bytes()));
            host.is_some_and(|host| accepted(&host)) && (is_own || !upgrade)
        });
        !is_ours
    });
    let foreign_site = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    foreign_origin || foreign_site
}

/// The host of `host[:port]`, in lower case; IPv6 addresses keep their brackets.
#[must_use]
pub fn host_of_authority(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            authority.split_at(end)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_fine = match port.strip_prefix(':') {
        Some("") => true,
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let host_is_fine = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:[]~".contains(&b));
    if !(port_is_fine && host_is_fine) {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Some(Cow::Owned(host.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross_site(name: &'static str, value: &'static str) -> bool {
        let hosts = ["localhost".to_owned(), "[::1]".to_owned()];
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        is_cross_site(|host| is_accepted(&hosts, host), &headers)
    }

    #[test]
    fn programs_send_neither_header() {
        assert!(!is_cross_site(|_| false, &HeaderMap::new()));
    }

    #[test]
    fn an_origin_must_be_an_accepted_host() {
        assert!(!cross_site("origin", "http://localhost:8080"));
        assert!(!cross_site("origin", "https://[::1]"));
        for foreign in [
            "null",
            "",
            "http://evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "file://localhost",
            "localhost",
        ] {
            assert!(cross_site("origin", foreign), "{foreign:?}");
        }
    }

    #[test]
    fn another_sites_fetch_is_refused() {
        assert!(!cross_site("sec-fetch-site", "none"));
        assert!(!cross_site("sec-fetch-site", "same-origin"));
        for foreign in ["cross-site", "same-site", "whatever", ""] {
            assert!(cross_site("sec-fetch-site", foreign), "{foreign:?}");
        }
    }

    #[test]
    fn an_upgrade_comes_from_where_it_goes_to() {
        let upgrade = |host: &'static str, origin: &'static str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("host", host), ("origin", origin), ("upgrade", "websocket")] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let accepted = |host: &str| matches!(host, "localhost" | "127.0.0.1");
            is_cross_site(accepted, &headers)
        };
        assert!(!upgrade("localhost:8080", "http://localhost:8080"));
        assert!(!upgrade("LocalHost", "https://localhost"));
        for foreign in ["http://localhost:3000", "http://127.0.0.1:8080", "null"] {
            assert!(upgrade("localhost:8080", foreign), "{foreign}");
        }
    }
}
