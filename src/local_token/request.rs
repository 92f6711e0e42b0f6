//! The token endpoint that the proxy serves to apps: parses and answers a client credentials grant
//! (RFC 6749, section 4.4). Pure.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A name and a secret, as an app presented them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `client_id`: an app's name or the client's id.
    pub name: String,
    /// `client_secret`: the app's key or the client's secret.
    pub secret: Secret,
}

/// Why a token request is refused (RFC 6749, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRequestError {
    /// The request lacks a parameter, repeats one, or cannot be parsed; the text says which.
    InvalidRequest(&'static str),
    /// The credentials are unknown.
    InvalidClient,
    /// The grant type is not client credentials.
    UnsupportedGrantType,
    /// Too many were asked for in a short time; the next one is due after this.
    TooMany(Duration),
}

/// A token response (RFC 6749, section 5.1).
#[derive(Serialize)]
pub struct TokenResponse<'a> {
    /// The token.
    pub access_token: &'a str,
    /// `Bearer`.
    pub token_type: &'static str,
    /// How many seconds the token is valid for.
    pub expires_in: u64,
}

impl TokenRequestError {
    /// The values of `error` and `error_description`.
    #[must_use]
    pub fn texts(self) -> (&'static str, &'static str) {
        match self {
            TokenRequestError::InvalidRequest(what) => ("invalid_request", what),
            TokenRequestError::InvalidClient => (
                "invalid_client",
                "No app has this name and key, and they are not the client's own id and secret.",
            ),
            TokenRequestError::UnsupportedGrantType => (
                "unsupported_grant_type",
                "This endpoint supports only client_credentials.",
            ),
            // RFC 8628, section 3.5, defines it
            TokenRequestError::TooMany(_) => (
                "slow_down",
                "Too many tokens were requested; keep one until it expires, and retry after the seconds in Retry-After.",
            ),
        }
    }
}

/// The parameters of a token request. Unknown ones are ignored (RFC 6749, section 3.2).
#[derive(Deserialize)]
struct Parameters {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Parses a token request: the `Authorization` and `Content-Type` headers, and the body. Returns
/// the credentials in the two possible encodings, the standard one first.
///
/// # Errors
/// [`TokenRequestError`] if it is not valid.
pub fn read(
    authorization: Option<&[u8]>,
    content_type: Option<&[u8]>,
    body: &[u8],
) -> Result<Vec<Credentials>, TokenRequestError> {
    let invalid = TokenRequestError::InvalidRequest;
    let form = b"application/x-www-form-urlencoded";
    let is_form = content_type.is_some_and(|value| {
        let kind = value.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(form)
    });
    if !is_form {
        return Err(invalid(
            "The body must be a form: Content-Type: application/x-www-form-urlencoded.",
        ));
    }
    let Parameters {
        grant_type,
        client_id,
        client_secret,
    } = serde_urlencoded::from_bytes(body).map_err(|_| invalid("A parameter is repeated."))?;
    // an empty value counts as missing (section 3.1)
    match grant_type.as_deref().unwrap_or_default() {
        "client_credentials" => {}
        "" => return Err(invalid("The parameter grant_type is missing.")),
        _ => return Err(TokenRequestError::UnsupportedGrantType),
    }
    let pair = client_id.zip(client_secret.map(Secret::from));
    let pair = pair.filter(|(name, secret)| !name.is_empty() && !secret.expose().is_empty());
    let in_body = pair.map(|(name, secret)| Credentials { name, secret });
    let Some(header) = authorization else {
        return Ok(in_body.into_iter().collect());
    };
    let mut in_header = basic(header);
    if let Some(in_body) = in_body {
        in_header.retain(|shown| (&shown.name, &shown.secret) == (&in_body.name, &in_body.secret));
        if in_header.is_empty() {
            return Err(invalid(
                "The credentials in the header and in the body differ; send them in one place.",
            ));
        }
    }
    Ok(in_header)
}

/// The name and secret in an `Authorization: Basic` header: form-urlencoded as in RFC 6749, section
/// 2.3.1, then verbatim (RFC 7617), as many programs send them.
#[must_use]
pub fn basic(header: &[u8]) -> Vec<Credentials> {
    let Some(as_it_stands) = basic_pair(header) else {
        return Vec::new();
    };
    let encoded = |text: &str| text.contains(['%', '+']);
    let Credentials { name, secret } = &as_it_stands;
    if !encoded(name) && !encoded(secret.expose()) {
        return vec![as_it_stands];
    }
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let text = percent_encoding::percent_decode_str(&text).decode_utf8();
        text.ok().map(std::borrow::Cow::into_owned)
    };
    let decoded = decode(name).zip(decode(secret.expose()));
    let decoded = decoded.map(|(name, secret)| Credentials {
        name,
        secret: secret.into(),
    });
    decoded.into_iter().chain([as_it_stands]).collect()
}

fn basic_pair(header: &[u8]) -> Option<Credentials> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let pair = Secret::from(String::from_utf8(pair).ok()?);
    let (name, secret) = pair.expose().split_once(':')?;
    Some(Credentials {
        name: name.to_owned(),
        secret: secret.to_owned().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Option<&[u8]> = Some(b"application/x-www-form-urlencoded; charset=UTF-8");
    const GRANT: &[u8] = b"grant_type=client_credentials";

    fn header(pair: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(pair)).into_bytes()
    }

    fn pairs(asked: &[Credentials]) -> Vec<(&str, &str)> {
        asked
            .iter()
            .map(|shown| (shown.name.as_str(), shown.secret.expose()))
            .collect()
    }

    #[test]
    fn credentials_come_in_the_header_or_in_the_body() {
        let asked = read(Some(&header("lineage:key")), FORM, GRANT).unwrap();
        assert_eq!(pairs(&asked), [("lineage", "key")]);
        let body = b"grant_type=client_credentials&client_id=lin+eage&client_secret=k%26y&scope=x";
        let asked = read(None, FORM, body).unwrap();
        assert_eq!(pairs(&asked), [("lin eage", "k&y")]);
        assert!(read(None, FORM, GRANT).unwrap().is_empty());
    }

    #[test]
    fn a_header_is_read_as_the_standard_says_and_as_many_write_it() {
        let id = "urn:sys:env:1:i:x";
        let encoded = header("urn%3Asys%3Aenv%3A1%3Ai%3Ax:s%2Bt");
        assert_eq!(pairs(&basic(&encoded))[0], (id, "s+t"));
        assert_eq!(
            pairs(&basic(&header("lineage:a+b%"))),
            [("lineage", "a b%"), ("lineage", "a+b%")]
        );
        for odd in ["Basic", "Basic !!!", "Bearer eDp5", "Basic bm9jb2xvbg=="] {
            assert!(basic(odd.as_bytes()).is_empty(), "{odd}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_standards_words() {
        let error = |content, body: &[u8]| read(None, content, body).unwrap_err().texts().0;
        assert_eq!(error(None, GRANT), "invalid_request");
        assert_eq!(error(Some(b"application/json"), b"{}"), "invalid_request");
        assert_eq!(error(FORM, b""), "invalid_request");
        assert_eq!(error(FORM, b"grant_type="), "invalid_request");
        assert_eq!(error(FORM, b"grant_type=a&grant_type=a"), "invalid_request");
        assert_eq!(
            error(FORM, b"grant_type=password"),
            "unsupported_grant_type"
        );
        let both = b"grant_type=client_credentials&client_id=a&client_secret=b";
        let twice = read(Some(&header("a:c")), FORM, both).unwrap_err();
        assert_eq!(twice.texts().0, "invalid_request");
    }

    #[test]
    fn the_same_credentials_in_header_and_body_are_taken() {
        for (pair, form) in [("a:b", "b"), ("a:s%2Bt", "s%2Bt"), ("a:s+t", "s%2Bt")] {
            let body = format!("grant_type=client_credentials&client_id=a&client_secret={form}");
            let asked = read(Some(&header(pair)), FORM, body.as_bytes()).unwrap();
            assert_eq!(asked.len(), 1, "{pair}");
        }
    }

    #[test]
    fn a_grant_is_written_as_the_standard_has_it() {
        let granted = TokenResponse {
            access_token: "cap1.x",
            token_type: "Bearer",
            expires_in: 3_600,
        };
        assert_eq!(
            serde_json::to_string(&granted).unwrap(),
            r#"{"access_token":"cap1.x","token_type":"Bearer","expires_in":3600}"#
        );
    }
}
