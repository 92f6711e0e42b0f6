//! Hop-by-hop fields (RFC 9110, section 7.6.1): removed from requests and responses in every
//! protocol, together with all fields that `Connection` names. Pure.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::policy::target::Malformed;
use crate::upstream::session::has_no_body;

/// The most fields that `Connection` may name. No real program names more, and each costs a lookup.
const MOST_NAMED: usize = 9;

/// Returns whether `name` is a hop-by-hop field. This includes the framing (`Transfer-Encoding`,
/// `Trailer`): trailers are not passed on, so neither is the field that announces them.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Checks the fields that a request's `Connection` names.
///
/// # Errors
/// [`Malformed::Connection`] for an invalid name, too many, or a field that the request's checks
/// depend on.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut named = 0;
    for token in tokens(headers) {
        named += 1;
        let is_token = token.iter().all(|byte| is_token_char(*byte));
        let protected: [&[u8]; 4] = [
            b"host",
            b"x-forwarded-for",
            b"x-forwarded-host",
            b"x-forwarded-proto",
        ];
        let is_protected = protected
            .iter()
            .any(|name| token.eq_ignore_ascii_case(name));
        if named > MOST_NAMED || !is_token || is_protected {
            return Err(Malformed::Connection);
        }
    }
    Ok(())
}

/// The fields of `headers` that are unwanted or that `Connection` names.
pub(super) fn unwanted(headers: &HeaderMap, is_unwanted: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let mut names_others = false;
    for name in headers.keys() {
        if is_unwanted(name.as_str()) {
            names_others |= *name == CONNECTION;
            unwanted.push(name.clone());
        }
    }
    if names_others {
        let named = tokens(headers).filter_map(|token| HeaderName::from_bytes(token).ok());
        unwanted.extend(named.filter(|name| headers.contains_key(name)));
    }
    unwanted
}

/// Prepares a response for the caller of `request`: removes hop-by-hop fields and sets the framing.
///
/// # Errors
/// If a field cannot be set; impossible with the values set here.
pub(super) fn clean_response(
    response: &mut ResponseHeader,
    request: &RequestHeader,
) -> pingora::Result<()> {
    // each hop sends its own version (RFC 9110, section 2.5)
    response.set_version(Version::HTTP_11);
    let is_upgrade = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let kept = |name: &str| is_upgrade && matches!(name, "connection" | "upgrade");
    let is_unwanted =
        |name: &str| is_hop_by_hop(name) && name != "proxy-authenticate" && !kept(name);
    for name in unwanted(&response.headers, is_unwanted) {
        response.remove_header(&name);
    }
    if response.status.is_informational() {
        return Ok(());
    }
    let mut lengths = response.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => {
            let is_chunked = request.version == Version::HTTP_11;
            if is_chunked && !has_no_body(&request.method, response.status) {
                response.insert_header(TRANSFER_ENCODING, "chunked")?;
            }
        }
        (Some(length), more) => {
            // the session has checked that all are equal (RFC 9110, section 8.6)
            let first = length.as_bytes().split(|byte| *byte == b',').next();
            let first = first.unwrap_or_default().trim_ascii();
            if (more.is_some() || first.len() != length.len())
                && let Ok(single) = HeaderValue::from_bytes(first)
            {
                response.insert_header(CONTENT_LENGTH, single)?;
            }
        }
    }
    Ok(())
}

/// Returns whether the response's transfer coding can be removed: none, or only chunked.
pub(super) fn is_coding_known(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Sets the fields that request a WebSocket, as the caller did.
///
/// # Errors
/// If a field cannot be set; impossible with the values set here.
pub(super) fn ask_for_websocket(request: &mut RequestHeader) -> pingora::Result<()> {
    request.insert_header(CONNECTION, "Upgrade")?;
    request.insert_header(UPGRADE, "websocket")
}

/// Returns whether a request asks for a WebSocket (RFC 6455, section 4.1).
pub(super) fn asks_for_websocket(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11 && is_websocket(&request.headers)
}

/// Returns whether `Upgrade` names WebSocket.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(CONNECTION).iter();
    let tokens = fields.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Returns whether `byte` is allowed in a token (RFC 9110, section 5.6.2).
fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn connection_names_fields_and_nothing_else() {
        for fine in [
            "close",
            "keep-alive, X-One",
            "a,b,c,d,e,f,g,h,i",
            " , close,",
        ] {
            assert_eq!(check(&headers(&[("connection", fine)])), Ok(()), "{fine}");
        }
        for wrong in [
            "Host",
            "close, x-forwarded-for",
            "\"X-One\"",
            ":authority",
            "a b",
            "a,b,c,d,e,f,g,h,i,j",
        ] {
            let checked = check(&headers(&[("connection", wrong)]));
            assert_eq!(checked, Err(Malformed::Connection), "{wrong}");
        }
    }

    #[test]
    fn unwanted_fields_and_those_that_connection_names_are_found() {
        let headers = headers(&[
            ("connection", "close, X-One"),
            ("connection", "authorization, x-absent"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("authorization", "a"),
            ("keep-alive", "timeout=5"),
        ]);
        let mut found = unwanted(&headers, is_hop_by_hop);
        found.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        assert_eq!(
            found,
            ["authorization", "connection", "keep-alive", "x-one"]
        );
    }

    fn cleaned(
        fields: &[(&'static str, &'static str)],
        method: Method,
        version: Version,
    ) -> Vec<String> {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        request.set_version(version);
        clean_response(&mut response, &request).unwrap();
        let fields = response.headers.iter();
        fields
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn a_response_is_framed_for_its_caller() {
        let get = |fields: &[_], version| cleaned(fields, Method::GET, version);
        let chunked = [("transfer-encoding", "chunked")];
        assert_eq!(
            get(&chunked, Version::HTTP_11),
            ["transfer-encoding: chunked"]
        );
        assert!(get(&chunked, Version::HTTP_10).is_empty());
        assert!(get(&chunked, Version::HTTP_2).is_empty());
        assert!(cleaned(&chunked, Method::HEAD, Version::HTTP_11).is_empty());
        for lengths in [
            &[("content-length", "2"), ("content-length", "2")][..],
            &[("content-length", "2, 2")],
            &[("content-length", "2")],
        ] {
            assert_eq!(get(lengths, Version::HTTP_11), ["content-length: 2"]);
        }
    }

    #[test]
    fn a_response_loses_what_concerns_one_connection() {
        let fields = [
            ("connection", "X-Named, keep-alive"),
            ("x-named", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("trailer", "X-Sum"),
            ("content-length", "0"),
        ];
        let left = cleaned(&fields, Method::GET, Version::HTTP_11);
        assert_eq!(left, ["content-length: 0"]);
    }
}
