//! The token endpoint that the proxy serves to apps: parses and answers a client credentials grant
//! (RFC 6749, section 4.4). Pure.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use url::form_urlencoded;

use crate::secret::Secret;

/// A name and a secret, as an app presented them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `client_id`: an app's name or the client's id.
    pub name: String,
    /// `client_secret`: the app's key or the client's secret.
    pub secret: Secret,
}

/// A parsed token request.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The credentials in the two possible encodings, the standard one first.
    pub credentials: Vec<Credentials>,
    /// Whether they came in the `Authorization` header.
    pub by_header: bool,
}

/// Why a token request is refused (RFC 6749, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRequestError {
    /// The request lacks a parameter, repeats one, or cannot be parsed; the text says which.
    InvalidRequest(&'static str),
    /// The credentials are unknown.
    InvalidClient {
        /// Whether they came in the header; the response then needs a challenge.
        by_header: bool,
    },
    /// The grant type is not client credentials.
    UnsupportedGrantType,
    /// Too many were asked for in a short time; the next one is due after this.
    TooMany(Duration),
}

/// A token response (RFC 6749, section 5.1).
#[derive(Serialize)]
pub struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
}

impl<'a> TokenResponse<'a> {
    /// A response with `token`, valid for `expires_in` seconds.
    #[must_use]
    pub fn new(token: &'a Secret, expires_in: u64) -> TokenResponse<'a> {
        TokenResponse {
            access_token: token.expose(),
            token_type: "Bearer",
            expires_in,
        }
    }
}

impl TokenRequestError {
    /// The value of `error`.
    #[must_use]
    pub fn error(self) -> &'static str {
        match self {
            TokenRequestError::InvalidRequest(_) => "invalid_request",
            TokenRequestError::InvalidClient { .. } => "invalid_client",
            TokenRequestError::UnsupportedGrantType => "unsupported_grant_type",
            // RFC 8628, section 3.5, has the one word for it
            TokenRequestError::TooMany(_) => "slow_down",
        }
    }

    /// The value of `error_description`.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            TokenRequestError::InvalidRequest(what) => what,
            TokenRequestError::InvalidClient { .. } => {
                "No app has this name and key, and they are not the client's own id and secret."
            }
            TokenRequestError::UnsupportedGrantType => {
                "This endpoint supports only client_credentials."
            }
            TokenRequestError::TooMany(_) => {
                "Too many tokens were asked for; keep one until it expires, and come again after the seconds that Retry-After says."
            }
        }
    }
}

/// Parses a token request: the `Authorization` and `Content-Type` headers, and the body.
///
/// # Errors
/// [`TokenRequestError`] if it is not valid.
pub fn read(
    authorization: Option<&[u8]>,
    content_type: Option<&[u8]>,
    body: &[u8],
) -> Result<TokenRequest, TokenRequestError> {
    let form = b"application/x-www-form-urlencoded";
    let is_form = content_type.is_some_and(|value| {
        let kind = value.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(form)
    });
    if !is_form {
        return Err(TokenRequestError::InvalidRequest(
            "The body must be a form: Content-Type: application/x-www-form-urlencoded.",
        ));
    }
    let mut parameters = Parameters::default();
    for (name, value) in form_urlencoded::parse(body) {
        parameters.take(&name, &value)?;
    }
    match parameters.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(TokenRequestError::UnsupportedGrantType),
        None => {
            return Err(TokenRequestError::InvalidRequest(
                "The parameter grant_type is missing.",
            ));
        }
    }
    let by_header = authorization.is_some();
    let in_body = match (parameters.client_id, parameters.client_secret) {
        (Some(name), Some(secret)) => Some(Credentials { name, secret }),
        _ => None,
    };
    let credentials = match (authorization, in_body) {
        (Some(header), Some(in_body)) => {
            let mut in_header = basic(header);
            in_header
                .retain(|shown| (&shown.name, &shown.secret) == (&in_body.name, &in_body.secret));
            if in_header.is_empty() {
                return Err(TokenRequestError::InvalidRequest(
                    "The credentials in the header and in the body differ; send them in one place.",
                ));
            }
            in_header
        }
        (Some(header), None) => basic(header),
        (None, in_body) => in_body.into_iter().collect(),
    };
    Ok(TokenRequest {
        credentials,
        by_header,
    })
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

#[derive(Default)]
struct Parameters {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
}

impl Parameters {
    /// Sets a parameter; an empty value counts as missing (section 3.1).
    fn take(&mut self, name: &str, value: &str) -> Result<(), TokenRequestError> {
        if value.is_empty() {
            return Ok(());
        }
        let value = value.to_owned();
        let twice = match name {
            "grant_type" => self.grant_type.replace(value).is_some(),
            "client_id" => self.client_id.replace(value).is_some(),
            "client_secret" => self.client_secret.replace(value.into()).is_some(),
            // unknown parameters are ignored (section 3.2)
            _ => false,
        };
        if twice {
            return Err(TokenRequestError::InvalidRequest(
                "A parameter is repeated.",
            ));
        }
        Ok(())
    }
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
        assert_eq!(pairs(&asked.credentials), [("lineage", "key")]);
        assert!(asked.by_header);
        let body = b"grant_type=client_credentials&client_id=lin+eage&client_secret=k%26y&scope=x";
        let asked = read(None, FORM, body).unwrap();
        assert_eq!(pairs(&asked.credentials), [("lin eage", "k&y")]);
        assert!(!asked.by_header);
        assert!(read(None, FORM, GRANT).unwrap().credentials.is_empty());
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
        let error = |content, body: &[u8]| read(None, content, body).unwrap_err().error();
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
        assert_eq!(twice.error(), "invalid_request");
    }

    #[test]
    fn the_same_credentials_in_header_and_body_are_taken() {
        for (pair, form) in [("a:b", "b"), ("a:s%2Bt", "s%2Bt"), ("a:s+t", "s%2Bt")] {
            let body = format!("grant_type=client_credentials&client_id=a&client_secret={form}");
            let asked = read(Some(&header(pair)), FORM, body.as_bytes()).unwrap();
            assert_eq!(asked.credentials.len(), 1, "{pair}");
            assert!(asked.by_header);
        }
    }

    #[test]
    fn a_grant_is_written_as_the_standard_has_it() {
        let token = Secret::from("cap1.x".to_owned());
        let written = serde_json::to_string(&TokenResponse::new(&token, 3_600)).unwrap();
        assert_eq!(
            written,
            r#"{"access_token":"cap1.x","token_type":"Bearer","expires_in":3600}"#
        );
    }
}
