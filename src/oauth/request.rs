//! Builds the token request: the form and the credentials (RFC 6749, sections 2.3.1 and 4.4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use url::form_urlencoded;

use super::{AuthMethod, Config};
use crate::client_id::ClientId;
use crate::secret::Secret;

/// A token request that can be sent repeatedly.
#[derive(Clone, Debug)]
pub(super) struct TokenRequest {
    /// The `Authorization` header, marked sensitive, if the credentials go there.
    pub(super) authorization: Option<HeaderValue>,
    /// The body, of type `application/x-www-form-urlencoded`.
    pub(super) form: Secret,
}

impl TokenRequest {
    /// Builds the request for `config`. The credentials go into the header or the form, never into
    /// both (RFC 6749, section 2.3).
    pub(super) fn new(config: &Config) -> TokenRequest {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &config.scope {
            form.append_pair("scope", scope);
        }
        let (id, secret) = (&config.client_id, &config.client_secret);
        let authorization = match config.auth_method {
            AuthMethod::ClientSecretBasic => Some(basic_header(id, secret)),
            AuthMethod::ClientSecretPost => {
                form.append_pair("client_id", id.as_str());
                form.append_pair("client_secret", secret.expose());
                None
            }
        };
        TokenRequest {
            authorization,
            form: Secret::from(form.finish()),
        }
    }
}

/// Encodes `text` as `application/x-www-form-urlencoded` (RFC 6749, appendix B).
pub(super) fn form_urlencode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The credentials of `client_secret_basic`: id and secret, *each* form-urlencoded, joined by a
/// colon, in Base64. An unencoded id with a colon would be split at it.
pub(super) fn basic_credentials(id: &ClientId, secret: &Secret) -> Secret {
    let id = form_urlencode(id.as_str());
    let secret = Zeroizing::new(form_urlencode(secret.expose()));
    let pair = Zeroizing::new(format!("{id}:{}", secret.as_str()));
    Secret::from(BASE64.encode(pair.as_bytes()))
}

fn basic_header(id: &ClientId, secret: &Secret) -> HeaderValue {
    let credentials = basic_credentials(id, secret);
    let mut value = HeaderValue::try_from(format!("Basic {}", credentials.expose()))
        .expect("Base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing;

    const ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
    const SECRET: &str = "s3cr+t/=%&x y~!*";

    #[test]
    fn form_urlencoding_agrees_with_published_vectors() {
        for (text, encoded) in [
            (" %&+\u{a3}\u{20ac}", "+%25%26%2B%C2%A3%E2%82%AC"),
            (
                ID,
                "urn%3Asys%3Aenv%3A2eeadf60-1a11-5170-7e57-000000000000%3Ai%3A1cnxtsn",
            ),
            (SECRET, "s3cr%2Bt%2F%3D%25%26x+y%7E%21*"),
            ("", ""),
            ("aZ09*-._", "aZ09*-._"),
            ("\u{1f511}\n\"", "%F0%9F%94%91%0A%22"),
        ] {
            assert_eq!(form_urlencode(text), encoded, "{text:?}");
        }
    }

    #[test]
    fn basic_encodes_id_and_secret_each_before_it_joins_them() {
        let request = TokenRequest::new(&testing::config(ID, SECRET));
        let header = request.authorization.unwrap();
        let credentials = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(
            BASE64.decode(credentials).unwrap(),
            b"urn%3Asys%3Aenv%3A2eeadf60-1a11-5170-7e57-000000000000%3Ai%3A1cnxtsn:s3cr%2Bt%2F%3D%25%26x+y%7E%21*"
        );
        assert_eq!(request.form.expose(), "grant_type=client_credentials");
    }

    #[test]
    fn post_puts_both_into_the_form_and_nothing_into_the_header() {
        let request = TokenRequest::new(&Config {
            auth_method: AuthMethod::ClientSecretPost,
            ..testing::config(ID, SECRET)
        });
        assert!(request.authorization.is_none());
        assert_eq!(
            request.form.expose(),
            "grant_type=client_credentials\
             &client_id=urn%3Asys%3Aenv%3A2eeadf60-1a11-5170-7e57-000000000000%3Ai%3A1cnxtsn\
             &client_secret=s3cr%2Bt%2F%3D%25%26x+y%7E%21*"
        );
    }

    #[test]
    fn a_scope_is_sent_only_if_configured() {
        let request = TokenRequest::new(&Config {
            scope: Some("a b".to_owned()),
            ..testing::config(ID, SECRET)
        });
        assert_eq!(
            request.form.expose(),
            "grant_type=client_credentials&scope=a+b"
        );
    }

    #[test]
    fn printing_shows_no_credentials() {
        for auth_method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
            let config = Config {
                auth_method,
                ..testing::config("id", "canary-52")
            };
            let credentials = basic_credentials(&config.client_id, &config.client_secret);
            let shown = format!("{:?} {credentials:?}", TokenRequest::new(&config));
            assert!(!shown.contains("canary"), "{shown}");
            assert!(!shown.contains(credentials.expose()), "{shown}");
        }
    }
}
