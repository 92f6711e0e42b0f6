//! Decides which requests are forwarded. Every token may do everything at Collibra, so an app's
//! permissions are enforced here. Pure.
//!
//! A request is checked with every method and path that a server may read in it. It is denied if
//! any reading is denied, and allowed only if all readings are allowed.

pub mod pattern;
mod reading;

use http::{HeaderMap, Method};
use pattern::{Case, Pattern};
pub(super) use reading::PathReadings;
use serde::{Deserialize, Serialize};

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

/// Headers that override the request's method on some servers.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

impl Policy {
    /// Why the request is denied, if it is; `methods` are those of [`methods`].
    pub(super) fn denied(&self, methods: &[Method], paths: &PathReadings<'_>) -> Option<Denied> {
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
pub(super) fn allows(allow: &[Pattern], methods: &[Method], paths: &PathReadings<'_>) -> bool {
    methods.iter().all(|method| {
        paths.all(|path| {
            let mut patterns = allow.iter();
            patterns.any(|pattern| pattern.matches(method, path, Case::Counts))
        })
    })
}

/// Returns whether a read `path` is `prefix` or below it, case-insensitively.
pub(super) fn is_at_or_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let path = path.as_bytes();
    path.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && matches!(path.get(prefix.len()), None | Some(b'/'))
}

/// The path below the session API, if the request is for it.
pub(super) fn session_call(path: &str) -> Option<&str> {
    is_at_or_below(path, SESSIONS).then(|| path[SESSIONS.len()..].trim_matches('/'))
}

/// Every method that a server may read in a request: its own, and those of override headers or the
/// query. `None` if one of them is not a method.
pub(super) fn methods(
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Option<Vec<Method>> {
    let mut methods = vec![method.clone()];
    for name in OVERRIDES {
        for value in headers.get_all(name) {
            methods.push(read_method(value.as_bytes())?);
        }
    }
    // most queries do not contain the parameter
    let may_have = |query: &&str| {
        let mut words = query.as_bytes().windows(6);
        query.contains('%') || words.any(|word| word.eq_ignore_ascii_case(b"method"))
    };
    // old servers take a semicolon for an ampersand
    let pairs = query.filter(may_have).into_iter();
    for pair in pairs.flat_map(|query| query.split(['&', ';'])) {
        for (name, value) in url::form_urlencoded::parse(pair.as_bytes()) {
            if is_method_parameter(&name) {
                methods.push(read_method(value.as_bytes())?);
            }
        }
    }
    Some(methods)
}

/// Whether a parameter of this name stands for the method: `_method`, without regard to case, and
/// as PHP reads names (spaces before it are cut; a dot, a space and a bracket are an underscore).
pub(super) fn is_method_parameter(name: &str) -> bool {
    let name = name.trim_start().split('\0').next().unwrap_or_default();
    let Some((first, rest)) = name.as_bytes().split_first() else {
        return false;
    };
    b"_. [".contains(first) && rest.eq_ignore_ascii_case(b"method")
}

/// The method that `text` names, whatever its case.
pub(super) fn read_method(text: &[u8]) -> Option<Method> {
    let text = text.trim_ascii().to_ascii_uppercase();
    Method::from_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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
    fn a_method_in_a_header_or_the_query_counts_as_well() {
        let found = |header: Option<(&'static str, &'static str)>, query| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, HeaderValue::from_static(value));
            }
            methods(&Method::POST, &headers, query)
        };
        for query in [
            "a=b&x_y=z",
            "a=_method",
            "x_method=PUT",
            "_methods=PUT",
            "a=1;b=method",
        ] {
            assert_eq!(
                found(None, Some(query)),
                Some(vec![Method::POST]),
                "{query}"
            );
        }
        for header in OVERRIDES {
            let expected = Some(vec![Method::POST, Method::DELETE]);
            assert_eq!(found(Some((header, " delete")), None), expected, "{header}");
        }
        for query in [
            "_method=PUT",
            "a=1&_Method=put",
            "%5Fmethod=PUT",
            "a=1;_method=PUT",
            ";_METHOD=PUT;",
            "+_method=PUT",
            ".method=PUT",
            "%5Bmethod=PUT",
            "_method%00x=PUT",
        ] {
            let expected = Some(vec![Method::POST, Method::PUT]);
            assert_eq!(found(None, Some(query)), expected, "{query}");
        }
        assert_eq!(found(Some((OVERRIDES[0], "a b")), None), None);
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
