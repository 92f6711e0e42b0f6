//! Rewrites the headers of requests and responses.

use http::header::{
    CONTENT_LENGTH, HOST, LOCATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING,
};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use super::hop_by_hop;
use crate::browser::host_of_authority;
use crate::outgoing::via::{self, VIA_FIELD};
use crate::upstream::Instance;

/// The header with a request's id in other logs.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The longest id that is accepted from a caller.
const LONGEST_REQUEST_ID: usize = 128;

/// The destination of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a> {
    /// The value of `Host`.
    pub(super) host: &'a HeaderValue,
    /// The same for HTTP/2.
    pub(super) authority: &'a Authority,
    /// Whether it uses HTTP/2.
    pub(super) is_http2: bool,
    /// Whether the request asks for a WebSocket.
    pub(super) is_upgrade: bool,
    /// Whether it has a body.
    pub(super) has_body: bool,
}

/// Builds the head of a request for the instance. It has the client's token instead of the app's
/// credentials, the instance's host, and the framing of its protocol. It has nothing of the app's
/// session or connection.
///
/// # Errors
/// If its target cannot be sent over HTTP/2.
pub(super) fn outgoing(
    request: &RequestHeader,
    to: Destination<'_>,
    authorization: &HeaderValue,
) -> Result<Box<RequestHeader>> {
    let mut request = Box::new(match to.is_http2 {
        true => to_http2(request, to.authority)?,
        false => request.clone(),
    });
    let is_unwanted = |name: &str| is_unwanted(name) || (to.is_http2 && name == "expect");
    // first: `Connection` must not remove fields that are set below
    for name in hop_by_hop::unwanted(&request.headers, is_unwanted) {
        request.remove_header(&name);
    }
    if to.is_http2 {
        request.remove_header(&HOST);
    } else {
        request.insert_header(HOST, to.host.clone())?;
        request.set_version(Version::HTTP_11);
        if to.has_body && !request.headers.contains_key(CONTENT_LENGTH) {
            request.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        if to.is_upgrade {
            hop_by_hop::ask_for_websocket(&mut request)?;
        }
    }
    let via = via::passed_on(&request.headers);
    // as text: pingora copies a HeaderName's, and borrows this
    request.insert_header(VIA_FIELD, via)?;
    request.insert_header("Authorization", authorization.clone())?;
    Ok(request)
}

/// Copies the head of a request to HTTP/2, without the spelling of its fields' names.
fn to_http2(request: &RequestHeader, authority: &Authority) -> Result<RequestHeader> {
    let invalid = || Error::new(ErrorType::InvalidHTTPHeader);
    if !request.raw_path_is_utf8() {
        return Err(invalid());
    }
    let path = request.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(authority.clone())
        .path_and_query(path.ok_or_else(invalid)?)
        .build();
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method.clone();
    parts.uri = uri.map_err(|_| invalid())?;
    parts.version = Version::HTTP_2;
    parts.headers = request.headers.clone();
    Ok(parts.into())
}

/// Returns whether the request field `name` is not forwarded.
fn is_unwanted(name: &str) -> bool {
    match name.strip_prefix("x-") {
        None => {
            hop_by_hop::is_hop_by_hop(name)
                || matches!(name, "cookie" | "forwarded")
                || is_told_by_a_proxy(name)
        }
        Some("csrf-token") => true,
        Some(rest) => rest.starts_with("forwarded-") || is_told_by_a_proxy_as_x(rest),
    }
}

/// Whether some servers trust this field to name the caller, its address or the target. Only a
/// proxy may set it: a caller could act as another with the shared token.
fn is_told_by_a_proxy(name: &str) -> bool {
    matches!(
        name,
        "remote-user"
            | "client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "fastly-client-ip"
            | "front-end-https"
            | "ssl-client-cert"
            | "ssl-client-verify"
    )
}

/// The same for fields that begin with `X-`, given without that. Another path: IIS with URL
/// Rewrite, Symfony, Zend and Laminas, nginx, Envoy. Another user: what nginx, Apache,
/// oauth2-proxy, Pomerium, Kong, Google's IAP, Azure's App Service and AWS's load balancers add for
/// what stands behind them.
fn is_told_by_a_proxy_as_x(rest: &str) -> bool {
    const BEGINNINGS: [&str; 10] = [
        "original-",
        "remote-",
        "auth-request-",
        "authenticated-",
        "ssl-client-",
        "client-cert",
        "pomerium-",
        "goog-authenticated-user",
        "ms-client-principal",
        "amzn-oidc-",
    ];
    matches!(
        rest,
        "rewrite-url"
            | "override-url"
            | "request-uri"
            | "envoy-original-path"
            | "waws-unencoded-url"
            | "http-destinationurl"
            | "host"
            | "http-host-override"
            | "real-ip"
            | "client-ip"
            | "cluster-client-ip"
            | "url-scheme"
            | "scheme"
            | "script-name"
            | "webauth-user"
            | "auth-user"
            | "auth-email"
            | "user"
            | "consumer-id"
            | "consumer-username"
            | "consumer-custom-id"
            | "credential-identifier"
    ) || BEGINNINGS.iter().any(|start| rest.starts_with(start))
}

/// The request's id in the log and in the response: the caller's if it is plain and short,
/// otherwise a new one.
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

/// How the app addressed the proxy.
#[derive(Clone, Copy, Debug)]
struct ClientView<'a> {
    /// Whether over TLS.
    over_tls: bool,
    /// The value of `Host`.
    host: Option<&'a HeaderValue>,
    /// The prefix that was stripped from the path.
    prefix: &'a str,
}

/// Rewrites the headers of a response: removes hop-by-hop fields, cookies of the shared session and
/// HSTS, turns redirects within the instance back to the address of the `request` (with `prefix`,
/// which was stripped from its path), and adds its id, unless the instance set one.
///
/// # Errors
/// If a header cannot be set.
pub(crate) fn incoming(
    response: &mut ResponseHeader,
    request: &RequestHeader,
    id: Option<&HeaderValue>,
    instance: &Instance,
    over_tls: bool,
    prefix: &str,
) -> Result<()> {
    hop_by_hop::clean_response(response, request)?;
    if let Some(id) = id
        && !response.headers.contains_key(REQUEST_ID)
    {
        response.insert_header(REQUEST_ID, id.clone())?;
    }
    let way = ClientView {
        over_tls,
        host: request.headers.get(HOST),
        prefix,
    };
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

/// Converts a location on the instance to one on the proxy.
fn turned_back(location: &str, instance: &Instance, way: ClientView<'_>) -> Option<String> {
    let ClientView {
        over_tls,
        host,
        prefix,
    } = way;
    let scheme = if over_tls { "https" } else { "http" };
    if location.starts_with('/') && !location.starts_with("//") {
        return (!prefix.is_empty()).then(|| format!("{prefix}{location}"));
    }
    let host = host?.to_str().ok()?;
    let (scheme_given, rest) = location.split_once("//")?;
    let is_web = ["", "http:", "https:"]
        .iter()
        .any(|known| scheme_given.eq_ignore_ascii_case(known));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let own_port = |authority: &str| match authority.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && !port.ends_with(']') => port.parse().ok(),
        // the default port, which the instance's authority omits too
        _ => None::<u16>,
    };
    let default = own_port(&instance.authority).is_none();
    let is_port = own_port(authority).map_or(default, |port| port == instance.port);
    let is_instance = host_of_authority(authority)? == host_of_authority(&instance.authority)?;
    (is_web && is_instance && is_port).then(|| format!("{scheme}://{host}{prefix}{path}"))
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
            address: Vec::new(),
            http2: true,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            header_timeout: Duration::from_secs(60),
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
            ("X-Original-URL", "/rest/auth/v1/clients"),
            ("X-Rewrite-URL", "/rest/auth/v1/clients"),
            ("X-Original-Host", "x"),
            ("X-Remote-User", "admin"),
            ("X-Auth-Request-Email", "admin@acme.example"),
            ("Remote-User", "admin"),
            ("X-Real-IP", "1.2.3.4"),
            ("True-Client-IP", "1.2.3.4"),
            ("X-HTTP-Method-Override", "PATCH"),
            ("X-Empty", ""),
        ] {
            request.append_header(name, value).unwrap();
        }
        request
            .append_header("Authorization", "Bearer stale")
            .unwrap();
        request
            .append_header("Connection", "authorization, x-named")
            .unwrap();
        request.append_header("X-Named", "1").unwrap();
        let sent = sent(&request, false, false);
        let via = format!("{}: {}", via::VIA, via::own().to_str().unwrap());
        assert_eq!(
            fields(&sent),
            [
                "authorization: Bearer t0k3n",
                "host: acme.collibra.com",
                &via,
                "x-empty: ",
                "x-http-method-override: PATCH",
            ]
        );
        let sent = self::sent(&request, true, false);
        assert_eq!(sent.uri, "https://acme.collibra.com/rest/2.0/assets");
        assert_eq!(
            fields(&sent),
            [
                "authorization: Bearer t0k3n",
                &via,
                "x-empty: ",
                "x-http-method-override: PATCH",
            ]
        );
    }

    fn sent(request: &RequestHeader, is_http2: bool, has_body: bool) -> Box<RequestHeader> {
        let to = Destination {
            host: &HeaderValue::from_static("acme.collibra.com"),
            authority: &Authority::from_static("acme.collibra.com"),
            is_http2,
            is_upgrade: false,
            has_body,
        };
        outgoing(request, to, &HeaderValue::from_static("Bearer t0k3n")).unwrap()
    }

    fn fields(request: &RequestHeader) -> Vec<String> {
        let fields = request.headers.iter();
        let mut fields: Vec<_> = fields
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        fields.sort();
        fields
    }

    #[test]
    fn a_body_is_framed_for_the_protocol() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        request.set_version(Version::HTTP_2);
        let chunked = |sent: &RequestHeader| sent.headers.contains_key(TRANSFER_ENCODING);
        assert!(chunked(&sent(&request, false, true)));
        assert!(!chunked(&sent(&request, true, true)));
        assert!(!chunked(&sent(&request, false, false)));
        request.insert_header(CONTENT_LENGTH, 5).unwrap();
        assert!(!chunked(&sent(&request, false, true)));
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
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header(HOST, "localhost:8080").unwrap();
        let id = HeaderValue::from_static("1a2b");
        incoming(&mut response, &request, Some(&id), &instance(), true, "").unwrap();
        assert_eq!(response.headers[REQUEST_ID], "1a2b");
        assert!(!response.headers.contains_key("set-cookie"));
        assert!(!response.headers.contains_key("strict-transport-security"));
        assert_eq!(response.headers["location"], "https://localhost:8080/x?y#z");
        assert_eq!(response.headers["etag"], "1");
    }

    #[test]
    fn a_location_gets_the_prefix_back_that_was_cut() {
        let host = HeaderValue::from_static("localhost");
        let way = ClientView {
            over_tls: true,
            host: Some(&host),
            prefix: "/dev",
        };
        let turned = |location| turned_back(location, &instance(), way);
        let back = "https://localhost/dev/x";
        assert_eq!(turned("https://acme.collibra.com/x").unwrap(), back);
        assert_eq!(turned("/x?y").unwrap(), "/dev/x?y");
        for spelling in [
            "https://acme.collibra.com:443/x",
            "HTTPS://ACME.collibra.com/x",
            "//acme.collibra.com/x",
            "//acme.collibra.com:443/x",
            "https://acme.collibra.com:/x",
        ] {
            assert_eq!(turned(spelling).as_deref(), Some(back), "{spelling}");
        }
        for left_alone in [
            "x",
            "//other.example/x",
            "https://other.example/x",
            "https://acme.collibra.com:8443/x",
            "ftp://acme.collibra.com/x",
        ] {
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
        let way = ClientView {
            over_tls: true,
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
