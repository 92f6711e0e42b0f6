//! The caller's credentials: parses `Authorization` headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::form;

/// The `Authorization` header of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authorization {
    /// There is no header.
    Absent,
    /// There are several, which no client may send (RFC 9110, section 5.3).
    Several,
    /// The Basic scheme and its value (RFC 7617).
    Basic(String),
    /// The Bearer scheme and its token (RFC 6750, section 2.1).
    Bearer(String),
    /// Anything else.
    Other,
}

impl Authorization {
    /// Parses the header of a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Absent;
        };
        if values.next().is_some() {
            return Self::Several;
        }
        let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Other;
        };
        let rest = rest.trim_start_matches(' ').to_owned();
        match &*scheme.to_ascii_lowercase() {
            "basic" => Self::Basic(rest),
            "bearer" => Self::Bearer(rest),
            _ => Self::Other,
        }
    }
}

/// An id and its secret.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Pair {
    /// The client's id.
    pub(super) id: String,
    /// The secret.
    pub(super) secret: String,
}

impl Pair {
    /// Parses `client_secret_basic`: id and secret, each form-urlencoded, joined by a colon (RFC
    /// 6749, section 2.3.1). An id whose own colons are not encoded is therefore split at the first
    /// of them. `None` if it is malformed.
    pub(super) fn from_client_secret_basic(encoded: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some(Self {
            id: form::decode(id.as_bytes()).ok()?,
            secret: form::decode(secret.as_bytes()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
    const SECRET: &str = "s3cr+t/=%&x y~!*";

    fn read(text: &str) -> Option<Pair> {
        Pair::from_client_secret_basic(&STANDARD.encode(text))
    }

    #[test]
    fn halves_that_were_encoded_separately_are_understood() {
        let text = "urn%3Asys%3Aenv%3A2eeadf60-1a11-5170-7e57-000000000000%3Ai%3A1cnxtsn\
                    :s3cr%2Bt%2F%3D%25%26x+y%7E%21*";
        assert_eq!(
            read(text),
            Some(Pair {
                id: ID.to_owned(),
                secret: SECRET.to_owned()
            })
        );
    }

    #[test]
    fn an_identifier_with_bare_colons_breaks_at_the_first() {
        let pair = read(&format!("{ID}:abc")).unwrap();
        assert_eq!(pair.id, "urn");
    }

    #[test]
    fn a_bare_percent_sign_is_not_guessed_at() {
        assert_eq!(read(&format!("id:{SECRET}")), None);
        assert_eq!(Pair::from_client_secret_basic("%%%"), None);
        assert_eq!(read("no colon"), None);
    }

    #[test]
    fn schemes_are_told_apart_without_regard_to_case() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            Authorization::of(&headers)
        };
        assert_eq!(of(&[]), Authorization::Absent);
        assert_eq!(
            of(&["bearer  abc"]),
            Authorization::Bearer("abc".to_owned())
        );
        assert_eq!(of(&["BASIC abc"]), Authorization::Basic("abc".to_owned()));
        assert_eq!(of(&["Negotiate abc"]), Authorization::Other);
        assert_eq!(of(&["Bearer abc", "Bearer abc"]), Authorization::Several);
    }
}
