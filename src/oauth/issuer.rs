//! The issuer's name in messages, and how to quote its responses: without the client's secret,
//! which a response could repeat.

use url::{Position, Url};

use super::{Config, request};
use crate::local_token;
use crate::outgoing::quotation::Quotation;
use crate::secret::Secret;

/// The token endpoint, for messages.
#[derive(Clone, Debug)]
pub struct Issuer {
    url: Url,
    quotation: Quotation,
    /// The key of the local tokens that a proxy issues to callers with the client's secret.
    local: local_token::Key,
}

impl Issuer {
    /// Returns the issuer of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Issuer {
        Issuer {
            url: config.token_url.clone(),
            quotation: Quotation::without(secret_forms(config)),
            local: local_token::Key::of(&config.client_secret),
        }
    }

    /// The host, and the port unless it is the default. Messages show no more of the address.
    #[must_use]
    pub fn authority(&self) -> &str {
        authority(&self.url)
    }

    /// The host and port that a redirect's `location` points to.
    #[must_use]
    pub fn redirect_target(&self, location: &str) -> Option<String> {
        // before parsing: the host may contain one part of the secret and the path another
        let target = self.url.join(&self.quotation.redact(location)).ok()?;
        target.host_str()?;
        Some(self.quote(authority(&target)))
    }

    /// Quotes `text` from a response in a message: at most 200 printable characters, with the
    /// secret in all its forms replaced by `[redacted]`.
    #[must_use]
    pub fn quote(&self, text: &str) -> String {
        self.quotation.quote(text)
    }

    /// Returns whether `token` is a local token of this proxy, or of another one with the same
    /// client.
    #[must_use]
    pub fn is_own(&self, token: &Secret) -> bool {
        let shown = local_token::UnverifiedToken::parse(token.expose());
        shown.is_some_and(|shown| shown.is_of_client(&self.local))
    }

    /// How to quote a response.
    #[must_use]
    pub fn quotation(&self) -> &Quotation {
        &self.quotation
    }
}

fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

fn secret_forms(config: &Config) -> Vec<Secret> {
    let raw = config.client_secret.expose();
    let encoded = request::form_urlencode(raw);
    let forms = [
        raw.to_owned(),
        // as the host of a URL
        raw.to_ascii_lowercase(),
        // the same bytes in other encoders' spelling
        encoded.replace('+', "%20"),
        lower_hex(&encoded),
        lower_hex(&encoded.replace('+', "%20")),
        encoded,
        request::basic_credentials(&config.client_id, &config.client_secret)
            .expose()
            .to_owned(),
    ];
    forms.into_iter().map(Secret::from).collect()
}

/// Percent-encoded text with lower-case hexadecimal digits.
fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (digits, rest) = part.split_at(2);
        text + "%" + &digits.to_ascii_lowercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing;

    fn issuer(secret: &str) -> Issuer {
        Issuer::new(&testing::config("urn:sys:env:1", secret))
    }

    #[test]
    fn the_secret_is_replaced_in_every_form_in_which_it_was_sent() {
        let issuer = issuer("s3cr+t/= x");
        for echoed in [
            "s3cr+t/= x",
            "s3cr%2Bt%2F%3D+x",
            "s3cr%2Bt%2F%3D%20x",
            "s3cr%2bt%2f%3d+x",
            "s3cr%2bt%2f%3d%20x",
            "s3c\u{200b}r+t/= x",
            "s3c\u{7}r+t/= x",
        ] {
            assert_eq!(
                issuer.quote(&format!("bad secret '{echoed}'!")),
                "bad secret '[redacted]'!",
                "{echoed:?}"
            );
        }
        let basic = "dXJuJTNBc3lzJTNBZW52JTNBMTpzM2NyJTJCdCUyRiUzRCt4";
        assert_eq!(issuer.quote(&format!("Basic {basic}")), "Basic [redacted]");
    }

    #[test]
    fn a_secret_with_an_invisible_character_in_it_is_replaced_too() {
        assert_eq!(
            issuer("ab\u{200b}cd").quote("x ab\u{200b}cd"),
            "x [redacted]"
        );
    }

    #[test]
    fn a_secret_at_the_cut_is_replaced_before_the_cut() {
        let quoted = issuer("canary-44").quote(&format!("{}canary-44", "x".repeat(195)));
        assert!(!quoted.contains("cana"), "{quoted}");
    }

    #[test]
    fn a_quotation_is_short_and_printable() {
        let issuer = issuer("secret");
        assert_eq!(issuer.quote(" a\r\nb\u{1b}[31m\u{202e}c\0 "), "a  b[31mc");
        assert_eq!(issuer.quote(&"\u{e9}".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn a_redirect_is_named_by_its_host_only() {
        let issuer = issuer("secret");
        for (location, target) in [
            ("/login?next=secret", Some("acme.example")),
            ("https://sso.example:8443/a?b#c", Some("sso.example:8443")),
            ("//other.example", Some("other.example")),
            ("http://u:p@h.example/x", Some("h.example")),
            ("mailto:x", None),
            ("http://[", None),
        ] {
            assert_eq!(
                issuer.redirect_target(location).as_deref(),
                target,
                "{location}"
            );
        }
    }

    #[test]
    fn a_redirect_to_a_host_named_like_the_secret_does_not_show_it() {
        let target = |secret: &str, location: &str| issuer(secret).redirect_target(location);
        let named = target("Canary-44", "https://Canary-44.example/");
        assert_eq!(named, None);
        let named = target("Canary/44", "https://Canary/44");
        assert_eq!(named, None);
        // spellings that a URL parser accepts
        for location in ["https://%43anary-44.example", "https://Can\tary-44.example"] {
            let named = target("Canary-44", location);
            assert_eq!(named.as_deref(), Some("[redacted].example"), "{location}");
        }
    }

    #[test]
    fn printing_shows_no_secret() {
        assert!(!format!("{:?}", issuer("canary-13")).contains("canary"));
    }
}
