//! What goes up and what comes back: the headers that are exchanged on the way.

use http::HeaderValue;
use http::header::{
    AUTHORIZATION, COOKIE, FORWARDED, HOST, LOCATION, PROXY_AUTHORIZATION, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use super::config::Instance;

/// By what a request is found again in other logs.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The longest that is accepted from a caller.
const LONGEST_REQUEST_ID: usize = 128;

/// Makes a request the client's: its token in place of whatever the app sent, the instance's host,
/// and nothing of the app's session or of the way it came.
///
/// # Errors
/// If a header cannot be set; never with values that were validated.
pub(crate) fn outgoing(
    request: &mut RequestHeader,
    authority: &HeaderValue,
    authorization: &HeaderValue,
) -> Result<()> {
    request.remove_header(&COOKIE);
    request.remove_header("x-csrf-token");
    request.remove_header(&PROXY_AUTHORIZATION);
    request.remove_header(&FORWARDED);
    let is_forwarding = |name: &&http::HeaderName| name.as_str().starts_with("x-forwarded-");
    let forwarding: Vec<_> = request
        .headers
        .keys()
        .filter(is_forwarding)
        .cloned()
        .collect();
    for name in &forwarding {
        request.remove_header(name);
    }
    request.insert_header(HOST, authority.clone())?;
    request.insert_header(AUTHORIZATION, authorization.clone())
}

/// By what a request is told in the log and to its sender: the id that the sender gave it, if that
/// is plain and short, or one of its own.
pub(crate) fn request_id(request: &RequestHeader) -> Option<HeaderValue> {
    let is_plain = |id: &&HeaderValue| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(plain)
    };
    match request.headers.get(REQUEST_ID).filter(is_plain) {
        Some(id) => Some(id.clone()),
        None => HeaderValue::try_from(format!("{:032x}", crate::random::unique())).ok(),
    }
}

/// By what way an app called the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The value of `Host`.
    pub(crate) host: Option<&'a HeaderValue>,
    /// What was cut from the path.
    pub(crate) prefix: &'a str,
}

/// Makes a response the proxy's: no cookie of the shared identity, no promise of HTTPS for this
/// host, and a redirect within the instance leads back by the `way` that the app came.
///
/// # Errors
/// If a header cannot be set.
pub(crate) fn incoming(
    response: &mut ResponseHeader,
    instance: &Instance,
    way: Way<'_>,
) -> Result<()> {
    response.remove_header(&SET_COOKIE);
    response.remove_header(&STRICT_TRANSPORT_SECURITY);
    let turned = response
        .headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| turned_back(location, instance, way));
    match turned {
        Some(location) => response.insert_header(LOCATION, location),
        None => Ok(()),
    }
}

/// A location on the instance as one on the proxy.
fn turned_back(location: &str, instance: &Instance, way: Way<'_>) -> Option<String> {
    let Way {
        scheme,
        host,
        prefix,
    } = way;
    if location.starts_with('/') && !location.starts_with("//") {
        return (!prefix.is_empty()).then(|| format!("{prefix}{location}"));
    }
    let host = host?.to_str().ok()?;
    let rest = location
        .strip_prefix("https://")
        .or_else(|| location.strip_prefix("http://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    authority
        .eq_ignore_ascii_case(&instance.authority)
        .then(|| format!("{scheme}://{host}{prefix}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn instance() -> Instance {
        Instance {
            name: "acme".into(),
            tls: true,
            host: "acme.collibra.com".to_owned(),
            port: 443,
            authority: "acme.collibra.com".to_owned(),
            token_path: "/rest/oauth/v2/token".to_owned(),
            ca_file: None,
            identity: None,
            proxy: None,
            http2: true,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            resolve_ttl_max: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_request_goes_out_as_the_client() {
        let mut request = RequestHeader::build("GET", b"/rest/2.0/assets", None).unwrap();
        for (name, value) in [
            ("Authorization", "Basic c2VjcmV0"),
            ("Host", "localhost:8080"),
            ("Cookie", "JSESSIONID=1"),
            ("X-CSRF-TOKEN", "1"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Forwarded", "for=1"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Anything", "x"),
            ("X-HTTP-Method-Override", "PATCH"),
            ("X-Empty", ""),
        ] {
            request.append_header(name, value).unwrap();
        }
        request
            .append_header("Authorization", "Bearer stale")
            .unwrap();
        let token = HeaderValue::from_static("Bearer t0k3n");
        let host = HeaderValue::from_static("acme.collibra.com");
        outgoing(&mut request, &host, &token).unwrap();
        let mut left: Vec<_> = request
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "authorization: Bearer t0k3n",
                "host: acme.collibra.com",
                "x-empty: ",
                "x-http-method-override: PATCH",
            ]
        );
    }

    #[test]
    fn a_response_comes_back_as_the_proxys() {
        let mut response = ResponseHeader::build(302, None).unwrap();
        for (name, value) in [
            ("Set-Cookie", "JSESSIONID=1"),
            ("Set-Cookie", "other=2"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Location", "https://ACME.collibra.com/x?y#z"),
            ("ETag", "1"),
        ] {
            response.append_header(name, value).unwrap();
        }
        let host = HeaderValue::from_static("localhost:8080");
        let way = Way {
            scheme: "https",
            host: Some(&host),
            prefix: "",
        };
        incoming(&mut response, &instance(), way).unwrap();
        assert!(!response.headers.contains_key("set-cookie"));
        assert!(!response.headers.contains_key("strict-transport-security"));
        assert_eq!(response.headers["location"], "https://localhost:8080/x?y#z");
        assert_eq!(response.headers["etag"], "1");
    }

    #[test]
    fn a_location_gets_the_prefix_back_that_was_cut() {
        let host = HeaderValue::from_static("localhost");
        let way = Way {
            scheme: "https",
            host: Some(&host),
            prefix: "/dev",
        };
        let turned = |location| turned_back(location, &instance(), way);
        let back = "https://localhost/dev/x";
        assert_eq!(turned("https://acme.collibra.com/x").unwrap(), back);
        assert_eq!(turned("/x?y").unwrap(), "/dev/x?y");
        for left_alone in ["x", "//other.example/x", "https://other.example/x"] {
            assert_eq!(turned(left_alone), None, "{left_alone}");
        }
    }

    #[test]
    fn a_request_keeps_a_plain_id_and_gets_one_otherwise() {
        let id = |given: Option<&str>| {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            if let Some(given) = given {
                request.insert_header(REQUEST_ID, given).unwrap();
            }
            request_id(&request).unwrap()
        };
        assert_eq!(id(Some("a-B_9.c")), "a-B_9.c");
        for odd in [
            None,
            Some(""),
            Some("a b"),
            Some("a\"b"),
            Some(&"a".repeat(129)),
        ] {
            let made = id(odd);
            assert_eq!(made.len(), 32, "{odd:?}");
            assert_ne!(made, id(odd));
        }
    }

    #[test]
    fn another_sites_location_is_left_alone() {
        let host = HeaderValue::from_static("localhost:8080");
        let way = Way {
            scheme: "https",
            host: Some(&host),
            prefix: "",
        };
        for location in [
            "https://sso.example/login",
            "https://acme.collibra.com.evil.example/",
            "https://acme.collibra.com@evil.example/",
            "/relative",
        ] {
            assert_eq!(turned_back(location, &instance(), way), None, "{location}");
        }
    }
}
