//! The rules: what is denied to all apps, and what one app is allowed.
//!
//! A request is checked with every method and path that a server may read in it. It is denied if
//! any reading is denied, and allowed only if all readings are allowed.

use http::Method;
use serde::{Deserialize, Serialize};

use super::pattern::{Case, Pattern};
use super::reading::PathReadings;

/// The handling of session logins (`/rest/2.0/auth/sessions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sessions {
    /// Opening and closing is answered here; no session at Collibra is affected.
    #[default]
    Local,
    /// They are refused.
    Deny,
    /// They are forwarded. A login ends the same user's session elsewhere.
    Pass,
}

/// The policy for all apps.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Patterns that are never forwarded, compared case-insensitively.
    pub deny: Vec<Pattern>,
    /// The handling of session logins.
    pub sessions: Sessions,
}

/// Why a request is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is below the token endpoint and would draw from the pool.
    TokenEndpoint,
    /// It would open or end a session at Collibra.
    Sessions,
    /// A pattern of `policy.deny` matches it.
    Pattern(String),
    /// No pattern of the app's `allow` matches it.
    NotAllowed {
        /// The app's name.
        app: String,
    },
}

/// The path of the session API.
const SESSIONS: &str = "/rest/2.0/auth/sessions";

impl Policy {
    /// Why the request is denied, if it is; `methods` are those of [`super::method::methods`].
    pub(crate) fn denied(&self, methods: &[Method], paths: &PathReadings<'_>) -> Option<Denied> {
        if self.denies_session_call(methods, paths) {
            return Some(Denied::Sessions);
        }
        let denies = |pattern: &&Pattern| {
            let hits = |method| paths.any(|path| pattern.matches(method, path, Case::Ignored));
            methods.iter().any(hits)
        };
        let pattern = self.deny.iter().find(denies)?;
        Some(Denied::Pattern(pattern.to_string()))
    }

    fn denies_session_call(&self, methods: &[Method], paths: &PathReadings<'_>) -> bool {
        let is_one = || paths.any(|path| is_at_or_below(path, SESSIONS));
        match self.sessions {
            Sessions::Pass => false,
            Sessions::Deny => is_one(),
            // reading a session neither opens nor ends one
            Sessions::Local => !methods.iter().all(Method::is_safe) && is_one(),
        }
    }
}

/// Returns whether some pattern allows each of `methods` on each reading of the path.
pub(crate) fn allows(allow: &[Pattern], methods: &[Method], paths: &PathReadings<'_>) -> bool {
    methods.iter().all(|method| {
        paths.all(|path| {
            let mut patterns = allow.iter();
            patterns.any(|pattern| pattern.matches(method, path, Case::Counts))
        })
    })
}

/// Returns whether a read `path` is `prefix` or below it, case-insensitively.
pub(crate) fn is_at_or_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let path = path.as_bytes();
    path.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && matches!(path.get(prefix.len()), None | Some(b'/'))
}

/// The path below the session API, if the request is for it.
pub(crate) fn session_call(path: &str) -> Option<&str> {
    is_at_or_below(path, SESSIONS).then(|| path[SESSIONS.len()..].trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(deny: &[&str]) -> Policy {
        Policy {
            deny: deny.iter().map(|text| text.parse().unwrap()).collect(),
            sessions: Sessions::Local,
        }
    }

    fn denied(policy: &Policy, method: Method, path: &str) -> Option<Denied> {
        policy.denied(&[method], &PathReadings::of(path).unwrap())
    }

    #[test]
    fn ordinary_paths_are_forwarded() {
        let policy = policy(&["/rest/auth/v1/**"]);
        for path in [
            "/",
            "/rest/2.0/assets",
            "/rest/auth/v10/x",
            "/rest/2.0/auth/sessions/current",
            "/graphql",
        ] {
            assert_eq!(denied(&policy, Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn no_spelling_gets_past_what_is_denied() {
        let policy = policy(&["/rest/auth/v1/**"]);
        for path in [
            "/rest/auth/v1",
            "/rest/auth/v1/",
            "/rest/auth/v1/clients",
            "/REST/Auth/V1/clients",
            "/rest//auth/v1/clients",
            "/rest/./auth/v1/clients",
            "/rest/2.0/../auth/v1/clients",
            "/rest/%61uth/v1/clients",
            "/rest/%2561uth/v1/clients",
            "/rest;x=1/auth;y/v1/clients",
            "/rest/2.0/%252e%252e/auth/v1/clients",
            "/x/../rest/auth/v1/platform/clients/1",
        ] {
            let found = denied(&policy, Method::GET, path);
            assert!(matches!(found, Some(Denied::Pattern(_))), "{path}");
        }
    }

    #[test]
    fn what_is_allowed_has_to_be_so_in_every_reading() {
        let allow = ["GET /rest/2.0/**".parse().unwrap()];
        let allows =
            |method, path: &str| allows(&allow, &[method], &PathReadings::of(path).unwrap());
        assert!(allows(Method::GET, "/rest/2.0/assets"));
        assert!(allows(Method::HEAD, "/rest/2.0/assets"));
        assert!(allows(Method::GET, "/rest/2.0"));
        assert!(allows(Method::GET, "/rest/2.0/assets/a%20b;v=1"));
        for path in [
            "/rest/2.1/assets",
            "/REST/2.0/assets",
            "/rest/2.0/../auth",
            "/rest/2.0/%252e%252e/auth",
            "/rest/2.0%252f..%252fauth",
        ] {
            assert!(!allows(Method::GET, path), "{path}");
        }
        assert!(!allows(Method::POST, "/rest/2.0/assets"));
    }

    #[test]
    fn the_session_api_is_told_by_its_path() {
        assert_eq!(session_call("/rest/2.0/auth/sessions"), Some(""));
        assert_eq!(
            session_call("/rest/2.0/auth/sessions/current/"),
            Some("current")
        );
        assert_eq!(session_call("/rest/2.0/auth/sessionsx"), None);
    }
}
