//! The session login that old programs perform, answered by the proxy. They send a user's name and
//! password to `/rest/2.0/auth/sessions` first, and get a cookie and a CSRF token. Pure.

use serde::{Deserialize, Serialize};

use super::request::{Credentials, basic};
use crate::secret::Secret;

/// The session cookie, named like Collibra's.
pub const COOKIE: &str = "JSESSIONID";

/// The response to a login.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionResponse<'a> {
    /// The token that the program will send back as `X-CSRF-TOKEN`. It protects nothing: requests
    /// from other sites are refused by other checks.
    pub csrf_token: &'a str,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// Reads a login's name and password from its JSON body or its `Authorization` header.
#[must_use]
pub fn read(authorization: Option<&[u8]>, body: &[u8]) -> Vec<Credentials> {
    match serde_json::from_slice::<Login>(body) {
        Ok(login) => vec![Credentials {
            name: login.username,
            secret: Secret::from(login.password),
        }],
        Err(_) => authorization.map(basic).unwrap_or_default(),
    }
}

/// The values of the session's cookies in the headers `Cookie`: there may be one of Collibra's
/// beside one of this proxy's.
pub fn sessions<'a>(cookies: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let pairs = cookies.into_iter().flat_map(|line| line.split(';'));
    let named = pairs.filter_map(|pair| pair.trim().split_once('='));
    named.filter_map(|(name, value)| (name == COOKIE).then_some(value.trim_matches('"')))
}

/// The `Set-Cookie` header of a session that lasts `seconds`, restricted to TLS if `secure`.
#[must_use]
pub fn set_cookie(token: &Secret, seconds: u64, secure: bool) -> String {
    let value = token.expose();
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// The `Set-Cookie` header that deletes a session.
#[must_use]
pub fn unset_cookie() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_from_its_body_or_its_header() {
        let shown = &read(None, br#"{"username":"lineage","password":"key","x":1}"#)[0];
        assert_eq!(
            (shown.name.as_str(), shown.secret.expose()),
            ("lineage", "key")
        );
        let shown = &read(Some(b"Basic bGluZWFnZTprZXk="), b"")[0];
        assert_eq!(
            (shown.name.as_str(), shown.secret.expose()),
            ("lineage", "key")
        );
        assert!(read(None, b"").is_empty());
        assert!(read(None, br#"{"username":"lineage"}"#).is_empty());
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |lines: &[&'static str]| sessions(lines.iter().copied()).collect::<Vec<_>>();
        assert_eq!(found(&["a=b; JSESSIONID=x.y; c=d"]), ["x.y"]);
        assert_eq!(
            found(&["a=b; JSESSIONID=1", "JSESSIONID=\"x\""]),
            ["1", "x"]
        );
        assert!(found(&["XJSESSIONID=x; jsessionid=y"]).is_empty());
        assert!(found(&[]).is_empty());
    }

    #[test]
    fn a_cookie_stays_with_the_program() {
        let token = Secret::from("x".to_owned());
        assert_eq!(
            set_cookie(&token, 60, true),
            "JSESSIONID=x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
        );
    }
}
