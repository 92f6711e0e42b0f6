//! The address of a caller behind other proxies, as the trusted ones among them report it. Pure. It
//! is for the log only, and never authenticates a caller.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

/// The address of the caller of a request that came from `peer`: the last reported one that is not
/// `trusted` itself. `None` if `peer` is not trusted, or if no address was reported.
pub(crate) fn caller(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&peer) {
        return None;
    }
    let mut farthest = None;
    for ip in hops(headers) {
        let Some(ip) = ip else { break };
        farthest = Some(ip);
        if !is_trusted(&ip) {
            break;
        }
    }
    farthest
}

/// The addresses that the proxies added, the last one first; `None` for one that is not valid.
/// `X-Forwarded-For` counts before `Forwarded` (RFC 7239).
fn hops(headers: &HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + '_> {
    let items = |name| {
        let values = headers.get_all(name).into_iter().rev();
        values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
    };
    if headers.contains_key("x-forwarded-for") {
        return Box::new(items("x-forwarded-for").map(address));
    }
    Box::new(items(FORWARDED.as_str()).map(|element| {
        let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
        let node = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
        address(node.1.trim().trim_matches('"'))
    }))
}

/// An IP address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse();
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    ip.or_else(|_| with_port()).ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn told(peer: &str, fields: &[(&'static str, &'static str)]) -> Option<String> {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        caller(&headers, peer.parse().unwrap(), &trusted).map(|ip| ip.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_callers() {
        for (fields, expected) in [
            (&[("x-forwarded-for", "192.0.2.1")][..], "192.0.2.1"),
            (
                &[("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.1.2.3")],
                "192.0.2.1",
            ),
            (
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "192.0.2.1:4711"),
                ],
                "192.0.2.1",
            ),
            (&[("x-forwarded-for", "10.1.1.1, 10.2.2.2")], "10.1.1.1"),
            (&[("x-forwarded-for", "\"evil\", 10.2.2.2")], "10.2.2.2"),
            (&[("forwarded", "for=192.0.2.1;proto=https")], "192.0.2.1"),
            (
                &[(
                    "forwarded",
                    "by=x; For=\"[2001:db8::1]:4711\", for=10.0.0.1",
                )],
                "2001:db8::1",
            ),
            (&[("x-forwarded-for", "[2001:db8::2]")], "2001:db8::2"),
            (&[("x-forwarded-for", "::ffff:192.0.2.1")], "192.0.2.1"),
        ] {
            assert_eq!(
                told("10.0.0.1", fields).as_deref(),
                Some(expected),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let fields = [("x-forwarded-for", "192.0.2.1")];
        assert_eq!(told("192.0.2.9", &fields), None);
        assert_eq!(told("10.0.0.1", &[]), None);
        for odd in ["unknown", "_hidden", "192.0.2.1; x", ""] {
            let fields = [("x-forwarded-for", odd)];
            assert_eq!(told("10.0.0.1", &fields), None, "{odd:?}");
        }
    }
}
