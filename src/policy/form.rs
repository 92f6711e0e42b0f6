//! Methods that the body of a POST names in place of the request's own: `_method=DELETE` in a form
//! (Rails, Symfony, Laravel, Spring's `HiddenHttpMethodFilter`). Pure.
//!
//! Each part of a body is searched before it goes on, so that no part is held back. A refused body
//! never arrives whole, and a server that reads forms waits for all of it.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::method::{is_method_parameter, read_method};

/// The longest pair or line that is searched, in bytes. No server finds a method in a longer one.
const LONGEST: usize = 512;

/// The search of a form, part by part.
#[derive(Debug)]
pub(crate) struct FormMethod {
    kind: Kind,
    /// The pair or line that is not complete yet, up to [`LONGEST`] bytes.
    open: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `application/x-www-form-urlencoded`: pairs.
    UrlEncoded,
    /// `multipart/form-data`: lines.
    Multipart(Line),
}

/// What the next line of a multipart body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Any line.
    Any,
    /// The continuation of a `Content-Disposition`, if it begins with a space.
    Folded,
    /// A header of the part with the name `_method`.
    Header,
    /// That part's value.
    Value,
}

impl FormMethod {
    /// Returns the search of a request's body, if servers look for a method in the body of one with
    /// this `method` and these `headers`.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Option<FormMethod> {
        if *method != Method::POST {
            return None;
        }
        let kind = match headers.get(CONTENT_TYPE) {
            // Rack reads a POST without one as a form
            None => Kind::UrlEncoded,
            Some(value) => {
                let is = |kind: &[u8]| {
                    let start = value.as_bytes().trim_ascii_start().get(..kind.len());
                    start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
                };
                if is(b"application/x-www-form-urlencoded") {
                    Kind::UrlEncoded
                } else if is(b"multipart/form-data") {
                    Kind::Multipart(Line::Any)
                } else {
                    return None;
                }
            }
        };
        let open = Vec::new();
        Some(FormMethod { kind, open })
    }

    /// Searches the next `part` of the body. Returns the methods that it completes; `None` if one
    /// is not a method.
    pub(crate) fn search(&mut self, part: &[u8], is_last: bool) -> Option<Vec<Method>> {
        let mut found = Vec::new();
        let mut rest = part;
        while let Some(end) = self.separator(rest) {
            self.keep(&rest[..end]);
            rest = &rest[end + 1..];
            self.close(&mut found)?;
        }
        self.keep(rest);
        if is_last {
            self.close(&mut found)?;
        }
        Some(found)
    }

    fn separator(&self, bytes: &[u8]) -> Option<usize> {
        match self.kind {
            Kind::UrlEncoded => memchr::memchr2(b'&', b';', bytes),
            Kind::Multipart(_) => memchr::memchr(b'\n', bytes),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.open.len());
        self.open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Ends a pair or line, and adds the method that it names to `found`; `None` if that is not a
    /// method.
    fn close(&mut self, found: &mut Vec<Method>) -> Option<()> {
        let closed = std::mem::take(&mut self.open);
        let value = match &mut self.kind {
            Kind::UrlEncoded => {
                let mut pairs = url::form_urlencoded::parse(&closed);
                let named = pairs.find(|(name, _)| is_method_parameter(name));
                named.map(|(_, value)| value.into_owned())
            }
            Kind::Multipart(line) => line.next(closed.strip_suffix(b"\r").unwrap_or(&closed)),
        };
        // keeps the capacity
        self.open = closed;
        self.open.clear();
        if let Some(value) = value {
            found.push(read_method(value.as_bytes())?);
        }
        Some(())
    }
}

impl Line {
    /// Reads `line`; returns it if it is the value.
    fn next(&mut self, line: &[u8]) -> Option<String> {
        const HEADER: &[u8] = b"content-disposition:";
        match *self {
            Line::Value => {
                *self = Line::Any;
                // a boundary: there is no value
                let is_value = !line.starts_with(b"--");
                return is_value.then(|| String::from_utf8_lossy(line).into_owned());
            }
            Line::Header if line.is_empty() => *self = Line::Value,
            Line::Header => {}
            Line::Any | Line::Folded => {
                let start = line.get(..HEADER.len());
                let begins = start.is_some_and(|start| start.eq_ignore_ascii_case(HEADER));
                let goes_on = *self == Line::Folded && line.starts_with(b" ");
                *self = match begins || goes_on {
                    true if names_method(line) => Line::Header,
                    true => Line::Folded,
                    false => Line::Any,
                };
            }
        }
        None
    }
}

/// Whether a line of `Content-Disposition` says that its part is named `_method`.
fn names_method(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    text.split(';').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let name = name.trim().trim_end_matches('*');
        let value = value.trim().trim_matches(['"', '\'']);
        // `name*=UTF-8''_method` (RFC 5987)
        let value = value.rsplit('\'').next().unwrap_or_default();
        name.eq_ignore_ascii_case("name") && is_method_parameter(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn form(content_type: &'static str) -> FormMethod {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        FormMethod::of(&Method::POST, &headers).unwrap()
    }

    /// What is found in `body`, whether it comes whole or byte by byte.
    fn found(content_type: &'static str, body: &str) -> Option<Vec<Method>> {
        let whole = form(content_type).search(body.as_bytes(), true);
        let mut form = form(content_type);
        let bytes = body.bytes().enumerate();
        let by_byte: Option<Vec<_>> = bytes
            .map(|(nth, byte)| form.search(&[byte], nth + 1 == body.len()))
            .collect();
        assert_eq!(whole, by_byte.map(|found| found.concat()), "{body}");
        whole
    }

    fn delete() -> Option<Vec<Method>> {
        Some(vec![Method::DELETE])
    }

    const URL_ENCODED: &str = "application/x-www-form-urlencoded";
    const MULTIPART: &str = "Multipart/Form-Data; boundary=b";

    #[test]
    fn a_pair_names_a_method_as_lenient_servers_read_it() {
        for body in [
            "_method=DELETE",
            "a=1&_method=delete&b=2",
            "a=1;_method=DELETE;b",
            "%5Fmethod=%44ELETE",
            "_METHOD=+DELETE+",
            "+_method=DELETE",
            ".method=DELETE",
        ] {
            assert_eq!(found(URL_ENCODED, body), delete(), "{body}");
        }
        let two = found(URL_ENCODED, "_method=DELETE&_method=GET");
        assert_eq!(two, Some(vec![Method::DELETE, Method::GET]));
        for body in [
            "",
            "a=_method",
            "x_method=DELETE",
            "_methods=DELETE",
            "{\"_method\":1}",
        ] {
            assert_eq!(found(URL_ENCODED, body), Some(Vec::new()), "{body}");
        }
        assert_eq!(found(URL_ENCODED, "_method=a b"), None);
        let long = format!("x={}&_method=PUT", "x".repeat(100_000));
        assert_eq!(found(URL_ENCODED, &long), Some(vec![Method::PUT]));
    }

    #[test]
    fn a_part_names_a_method() {
        let part = |header: &str, value: &str| {
            format!("--b\r\n{header}\r\nX: y\r\n\r\n{value}\r\n--b--\r\n")
        };
        for header in [
            "Content-Disposition: form-data; name=\"_method\"",
            "content-disposition:form-data;name=_method",
            "Content-Disposition: form-data; name*=UTF-8''_method",
            "Content-Disposition: form-data;\r\n name=\"_method\"",
            "X: y\r\nContent-Disposition: form-data; name='_METHOD'",
        ] {
            let body = part(header, "DELETE");
            assert_eq!(found(MULTIPART, &body), delete(), "{body}");
            let bare = body.replace('\r', "");
            assert_eq!(found(MULTIPART, &bare), delete(), "{bare}");
        }
        for body in [
            part(
                "Content-Disposition: form-data; name=\"file\"",
                "<input\n name=\"_method\">\n\nDELETE",
            ),
            part(
                "Content-Disposition: form-data; name=\"a\"; filename=\"_method\"",
                "DELETE",
            ),
            "--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\n--b--\r\n".to_owned(),
        ] {
            assert_eq!(found(MULTIPART, &body), Some(Vec::new()), "{body}");
        }
    }

    #[test]
    fn other_requests_have_no_method_in_their_body() {
        let of = |method: Method, content_type: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = content_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            FormMethod::of(&method, &headers).is_some()
        };
        assert!(of(
            Method::POST,
            Some("application/x-www-form-urlencoded; charset=UTF-8")
        ));
        assert!(of(Method::POST, None));
        assert!(!of(Method::POST, Some("application/json")));
        assert!(!of(Method::PUT, Some(URL_ENCODED)));
    }
}
