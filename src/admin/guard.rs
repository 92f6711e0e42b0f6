//! Refuses requests of web pages to the admin address, as at a listener: its responses contain
//! names and ids. A page that points its own name here (DNS rebinding) sends that name as `Host`.
//!
//! Any IP address is accepted as `Host`, because nobody can point it elsewhere; probes and scrapers
//! mostly use one. `/livez` reveals nothing and accepts any name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::local::Caller;
use super::view::View;
use crate::browser;

/// Refuses a request that a web page may have sent, before the routes see it.
pub(super) async fn guard(
    State(view): State<Arc<View>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let is_open = caller.is_over_unix || request.uri().path() == "/livez";
    let refused = if is_open {
        None
    } else {
        let hosts = &view.parts.load().hosts;
        let (path, headers) = (request.uri().path(), request.headers());
        let by_host = foreign_host(hosts, headers);
        // that route has a stricter check of its own
        by_host.or_else(|| (path != "/drain").then(|| foreign_page(hosts, headers))?)
    };
    match refused {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    }
}

/// The status and text of a refusal.
type Refusal = (StatusCode, &'static str);

/// Returns the refusal of a request whose `Host` is not accepted.
fn foreign_host(hosts: &[String], headers: &HeaderMap) -> Option<Refusal> {
    // a browser sends exactly one
    let foreign = headers.get_all(HOST).iter().any(|host| {
        let host = host.to_str().ok().and_then(browser::host_of_authority);
        !host.is_some_and(|host| is_ours(hosts, &host))
    });
    foreign.then_some((
        StatusCode::MISDIRECTED_REQUEST,
        "not a host of this address: call it by an IP address or localhost, or add the name to hosts of [admin]\n",
    ))
}

/// Returns the refusal of a request that another site's page sent.
fn foreign_page(hosts: &[String], headers: &HeaderMap) -> Option<Refusal> {
    // another site's page may link here: it cannot read the response
    let is_link = headers
        .get("sec-fetch-dest")
        .is_some_and(|dest| dest.as_bytes() == b"document");
    let is_foreign = browser::is_cross_site(|host| is_ours(hosts, host), headers);
    (is_foreign && !is_link).then_some((
        StatusCode::FORBIDDEN,
        "a page of another site may not read this address\n",
    ))
}

/// Returns whether `host` is an IP address, localhost or one of `hosts`.
fn is_ours(hosts: &[String], host: &str) -> bool {
    is_address(host) || host == "localhost" || browser::is_accepted(hosts, host)
}

/// Returns whether `host` is an IP address in the form that `Host` uses.
fn is_address(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn status(fields: &[(&'static str, &'static str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let hosts = ["proxy.internal".to_owned()];
        let refused = foreign_host(&hosts, &headers).or_else(|| foreign_page(&hosts, &headers));
        refused.map(|(status, _)| status.as_u16())
    }

    #[test]
    fn it_answers_to_addresses_and_to_its_own_names() {
        for host in [
            "127.0.0.1:9902",
            "10.1.2.3",
            "[::1]:9902",
            "localhost:9902",
            "LocalHost",
            "Proxy.Internal:80",
        ] {
            assert_eq!(status(&[("host", host)]), None, "{host}");
        }
        assert_eq!(status(&[]), None, "HTTP/1.0");
        for host in [
            "attacker.example:9902",
            "127.0.0.1.attacker.example",
            "localhost.attacker.example",
            "0x7f000001",
            "2130706433",
            "[::1].attacker.example",
            "",
            "a b",
        ] {
            assert_eq!(status(&[("host", host)]), Some(421), "{host}");
        }
        let two = [("host", "localhost"), ("host", "attacker.example")];
        assert_eq!(status(&two), Some(421));
    }

    #[test]
    fn another_sites_page_reads_nothing_and_may_link_here() {
        let host = ("host", "localhost:9902");
        for foreign in [
            ("origin", "http://attacker.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(status(&[host, foreign]), Some(403), "{foreign:?}");
        }
        let link = [
            host,
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(status(&link), None);
        for own in [
            ("origin", "http://localhost:9902"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(status(&[host, own]), None, "{own:?}");
        }
    }
}
