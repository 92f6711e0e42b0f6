//! Checks that a request's head has exactly one reading.
//!
//! An ambiguous head is refused with 400. The proxy attaches a token: a caller whose request the
//! instance reads differently would act with that token, past the policy. Pure.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri, Version};
use percent_encoding::percent_decode_str;

use crate::browser::host_of_authority;

/// Why a request is refused as malformed. The text says what is wrong and what to send instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The request line's target is not a path, or has a fragment.
    #[error(
        "The request target must be a path that starts with '/' (or an absolute URL of this proxy or of the Collibra instance), without a fragment."
    )]
    TargetForm,
    /// The path starts with two slashes.
    #[error(
        "The path must not start with '//': cut the slash at the end of the base URL that the program is given."
    )]
    DoubleSlash,
    /// The path has an encoded dot, slash, backslash or control character, a bare backslash, or is
    /// not UTF-8.
    #[error(
        "The path must be UTF-8, without a backslash and without an encoded dot, slash, backslash or control character (%2e, %2f, %5c, %00 to %1f, %7f)."
    )]
    AmbiguousPath,
    /// A path segment consists of dots with `;parameters`.
    #[error("A path segment of dots must not have ';' parameters.")]
    DotParameters,
    /// `Host` is missing, repeated or invalid.
    #[error("The request must have exactly one valid Host header.")]
    Host,
    /// `Content-Length` or `Transfer-Encoding` is ambiguous.
    #[error(
        "The request's length must be given in one way: one Content-Length that is a number, or 'Transfer-Encoding: chunked'."
    )]
    Framing,
    /// A header name has an underscore, which some servers read as a hyphen.
    #[error("Header names must not have underscores.")]
    Underscore,
    /// `Connection` names an invalid field, too many fields, or one that the checks depend on.
    #[error("The Connection header may name up to 9 header fields, and not Host or X-Forwarded-*.")]
    Connection,
    /// The readings of the path lead to different clients.
    #[error(
        "The path can be read in more than one way, and these lead to different clients; send it decoded, without '//', '/./' or ';'."
    )]
    Route,
    /// A line of the head does not end with CRLF, or contains a CR.
    #[error("Every line of the head must end with CR and LF.")]
    LineEnd,
}

/// Returns whether a method is never forwarded: it echoes the token or turns the proxy into a
/// tunnel.
#[must_use]
pub fn is_forbidden(method: &Method) -> bool {
    let name = method.as_str();
    let forbidden = ["TRACE", "TRACK", "CONNECT"];
    // names are case-sensitive (RFC 9110, section 9.1), but not on every server
    matches!(name.len(), 5 | 7) && forbidden.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Checks header names and framing.
///
/// # Errors
/// [`Malformed`] says what is ambiguous.
pub fn check_headers(version: Version, headers: &HeaderMap) -> Result<(), Malformed> {
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(Malformed::Underscore);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !digits || lengths.next().is_some() {
            return Err(Malformed::Framing);
        }
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let both = headers.contains_key(CONTENT_LENGTH);
        if !chunked || both || codings.next().is_some() || version < Version::HTTP_11 {
            return Err(Malformed::Framing);
        }
    }
    Ok(())
}

/// The one `Host` of a request, in lower case and without its port. HTTP/2's `:authority` replaces
/// it if present.
///
/// # Errors
/// [`Malformed::Host`] if it is missing, repeated or invalid.
pub fn host<'a>(headers: &'a HeaderMap) -> Result<Cow<'a, str>, Malformed> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(value), None) = (hosts.next(), hosts.next()) else {
        return Err(Malformed::Host);
    };
    let text = value.to_str().map_err(|_| Malformed::Host)?;
    host_of_authority(text).ok_or(Malformed::Host)
}

/// Checks the target as it is in the request line, which is also how it is forwarded. (Its `Uri`
/// shows `/` for a target of an unknown form.) `Ok(Some(uri))` replaces it: the path of an absolute
/// target whose host `is_ours` accepts.
///
/// # Errors
/// [`Malformed`] says what is wrong.
pub fn check_target(
    target: &[u8],
    is_ours: impl FnOnce(&str) -> bool,
) -> Result<Option<Uri>, Malformed> {
    // the target is forwarded unmodified, but the checks stop at a fragment
    if target.contains(&b'#') {
        return Err(Malformed::TargetForm);
    }
    if target.first() == Some(&b'/') {
        let end = target.iter().position(|b| *b == b'?');
        check_path(&target[..end.unwrap_or(target.len())])?;
        return Ok(None);
    }
    let uri: Uri = std::str::from_utf8(target)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Malformed::TargetForm)?;
    let authority = uri.authority().ok_or(Malformed::TargetForm)?;
    let host = host_of_authority(authority.as_str()).ok_or(Malformed::TargetForm)?;
    let scheme_is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    if !scheme_is_web || !is_ours(&host) {
        return Err(Malformed::TargetForm);
    }
    check_path(uri.path().as_bytes())?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    path.parse().map(Some).map_err(|_| Malformed::TargetForm)
}

fn check_path(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.first() != Some(&b'/') {
        return Err(Malformed::TargetForm);
    }
    if bytes.get(1) == Some(&b'/') {
        return Err(Malformed::DoubleSlash);
    }
    // the path is checked as text: in another encoding it could be read differently
    let path = std::str::from_utf8(bytes).map_err(|_| Malformed::AmbiguousPath)?;
    // nearly every path has none of these
    if !bytes.iter().any(|b| matches!(b, b'%' | b';' | b'\\')) {
        return Ok(());
    }
    if bytes.contains(&b'\\') {
        return Err(Malformed::AmbiguousPath);
    }
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let plain = match code(&bytes[at..]) {
            Some(byte) => !byte.is_ascii_control() && !b"./\\".contains(&byte),
            None => false,
        };
        if !plain {
            return Err(Malformed::AmbiguousPath);
        }
    }
    // overlong forms of dots and slashes are not UTF-8, and neither is binary data
    if percent_decode_str(path).decode_utf8().is_err() {
        return Err(Malformed::AmbiguousPath);
    }
    let dots_with_parameters = path.split('/').any(|segment| {
        let rest = segment.trim_start_matches('.');
        let dots = segment.len() - rest.len();
        let parameters = rest.starts_with(';') || code(rest.as_bytes()) == Some(b';');
        parameters && matches!(dots, 1 | 2)
    });
    if dots_with_parameters {
        return Err(Malformed::DotParameters);
    }
    Ok(())
}

/// The byte that `%XX` at the start of `text` encodes.
fn code(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    text.strip_prefix(b"%")?;
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn target(text: &str) -> Result<Option<String>, Malformed> {
        check_target(text.as_bytes(), |host| {
            matches!(host, "localhost" | "acme.example")
        })
        .map(|rewritten| rewritten.map(|uri| uri.to_string()))
    }

    #[test]
    fn a_plain_path_passes_as_it_is() {
        for path in [
            "/",
            "/rest/2.0/assets?name=a%2fb&x=..;/",
            "/rest/2.0/assets/urn:1;v=2",
            "/graphql",
            "/a/../b",
            "/caf%C3%A9",
            "/100%25/a%3Bb/...;c",
        ] {
            assert_eq!(target(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (path, why) in [
            ("//evil.example/x", Malformed::DoubleSlash),
            ("/rest/%2e%2e/admin", Malformed::AmbiguousPath),
            ("/rest%2Fauth", Malformed::AmbiguousPath),
            ("/rest%5cauth", Malformed::AmbiguousPath),
            ("/rest/%00", Malformed::AmbiguousPath),
            ("/rest/%0d%0a", Malformed::AmbiguousPath),
            ("/rest/%7f", Malformed::AmbiguousPath),
            ("/rest/%c0%ae%c0%ae/auth", Malformed::AmbiguousPath),
            ("/rest/%e9", Malformed::AmbiguousPath),
            ("/rest/..%3B/auth", Malformed::DotParameters),
            ("/rest#/auth", Malformed::TargetForm),
            ("/rest?x#y", Malformed::TargetForm),
            ("/rest/%", Malformed::AmbiguousPath),
            ("/rest/%zz", Malformed::AmbiguousPath),
            ("/rest/..;/auth", Malformed::DotParameters),
            ("/rest/.;x=1/auth", Malformed::DotParameters),
            ("*", Malformed::TargetForm),
            ("", Malformed::TargetForm),
            ("?x", Malformed::TargetForm),
            ("rest/auth", Malformed::TargetForm),
            ("@evil.example/", Malformed::TargetForm),
            ("x/../rest/auth/v1", Malformed::TargetForm),
            ("localhost:8080", Malformed::TargetForm),
        ] {
            assert_eq!(target(path), Err(why), "{path}");
        }
        let not_utf_8 = check_target(b"/caf\xe9", |_| true);
        assert_eq!(not_utf_8, Err(Malformed::AmbiguousPath));
        assert_eq!(check_target(b"/x?caf\xe9", |_| true), Ok(None));
    }

    #[test]
    fn an_absolute_target_of_ours_is_taken_as_its_path() {
        assert_eq!(
            target("http://localhost:8080/rest?a=1"),
            Ok(Some("/rest?a=1".to_owned()))
        );
        assert_eq!(
            target("https://ACME.example/graphql"),
            Ok(Some("/graphql".to_owned()))
        );
        assert_eq!(target("http://evil.example/"), Err(Malformed::TargetForm));
        assert_eq!(target("ftp://localhost/"), Err(Malformed::TargetForm));
        assert_eq!(
            target("http://localhost@evil.example/"),
            Err(Malformed::TargetForm)
        );
        // a base URL that ends in a slash
        let doubled = target("http://localhost:8080//rest/2.0/assets").unwrap_err();
        assert_eq!(doubled, Malformed::DoubleSlash);
        assert!(
            doubled
                .to_string()
                .contains("cut the slash at the end of the base URL")
        );
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn exactly_one_valid_host() {
        let one = |value| headers(&[("host", value)]);
        assert_eq!(host(&one("LocalHost:8080")).unwrap(), "localhost");
        assert_eq!(host(&one("[::1]:8080")).unwrap(), "[::1]");
        assert_eq!(host(&one("127.0.0.1")).unwrap(), "127.0.0.1");
        for wrong in [
            "",
            "a b",
            "localhost:80:80",
            "localhost:x",
            "localhost:65536",
            "a/b",
            "u@localhost",
            "[::1",
        ] {
            assert_eq!(host(&one(wrong)), Err(Malformed::Host), "{wrong:?}");
        }
        assert_eq!(host(&headers(&[])), Err(Malformed::Host));
        assert_eq!(
            host(&headers(&[("host", "a"), ("host", "a")])),
            Err(Malformed::Host)
        );
    }

    #[test]
    fn framing_is_given_once_and_plainly() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            check_headers(Version::HTTP_11, &headers(pairs))
        };
        assert_eq!(check(&[("content-length", "5")]), Ok(()));
        assert_eq!(check(&[("transfer-encoding", "Chunked")]), Ok(()));
        for wrong in [
            &[("content-length", "5,5")][..],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
        ] {
            assert_eq!(check(wrong), Err(Malformed::Framing), "{wrong:?}");
        }
        let chunked = headers(&[("transfer-encoding", "chunked")]);
        assert_eq!(
            check_headers(Version::HTTP_10, &chunked),
            Err(Malformed::Framing)
        );
    }

    #[test]
    fn underscores_and_forbidden_methods() {
        assert_eq!(
            check_headers(Version::HTTP_11, &headers(&[("x_forwarded_for", "1")])),
            Err(Malformed::Underscore)
        );
        assert!(is_forbidden(&Method::TRACE) && is_forbidden(&Method::CONNECT));
        for method in ["TRACK", "trace", "Connect"] {
            assert!(is_forbidden(&method.parse().unwrap()), "{method}");
        }
        assert!(!is_forbidden(&Method::PATCH));
    }
}
