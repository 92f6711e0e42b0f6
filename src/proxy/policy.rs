//! Which requests are forwarded. Everybody's token may do everything at Collibra, so what an app
//! may do is settled here. Pure.
//!
//! A request is judged by every method and every path that a server may read in it: what is denied
//! is denied if one reading is, what is allowed has to be allowed in all of them.

pub mod pattern;
mod reading;

use http::{HeaderMap, Method};
use pattern::{Case, Pattern};
pub(super) use reading::Readings;

/// What is done with session logins (`/rest/2.0/auth/sessions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sessions {
    /// Opening and ending one is answered here; no session at Collibra is opened or ended.
    #[default]
    Local,
    /// They are refused.
    Deny,
    /// They are forwarded. A login ends the session that the same user has elsewhere.
    Pass,
}

/// What holds for every app.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What is never forwarded, without regard to case.
    pub deny: Vec<Pattern>,
    /// What is done with session logins.
    pub sessions: Sessions,
}

/// Why a request is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is below the token endpoint: a request there would draw from the pool.
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

/// The API of session logins.
const SESSIONS: &str = "/rest/2.0/auth/sessions";

/// The headers by which some servers are told another method than the request line's.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

impl Policy {
    /// What forbids the request, if anything does; `methods` are those of [`methods`].
    pub(super) fn denied(&self, methods: &[Method], paths: &Readings<'_>) -> Option<Denied> {
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

    fn denies_session_call(&self, methods: &[Method], paths: &Readings<'_>) -> bool {
        let is_one = || paths.any(|path| is_at_or_below(path, SESSIONS));
        match self.sessions {
            Sessions::Pass => false,
            Sessions::Deny => is_one(),
            // to look at one opens and ends none
            Sessions::Local => !methods.iter().all(Method::is_safe) && is_one(),
        }
    }
}

/// Whether some pattern allows each of `methods` on each reading of the path.
pub(super) fn allows(allow: &[Pattern], methods: &[Method], paths: &Readings<'_>) -> bool {
    methods.iter().all(|method| {
        paths.all(|path| {
            let mut patterns = allow.iter();
            patterns.any(|pattern| pattern.matches(method, path, Case::Counts))
        })
    })
}

/// Whether `path`, as it was read, is `prefix` or lies below it, without regard to case.
pub(super) fn is_at_or_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let path = path.as_bytes();
    path.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && matches!(path.get(prefix.len()), None | Some(b'/'))
}

/// What of the session API the request is for, if it is: the path below it.
pub(super) fn session_call(path: &str) -> Option<&str> {
    is_at_or_below(path, SESSIONS).then(|| path[SESSIONS.len()..].trim_matches('/'))
}

/// Every method that a server may read in a request: its own, and those that headers or the query
/// name in its place. `None` if one of these is no method.
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
    // most queries do not have the word in them
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

/// Whether a parameter of this name stands for the method: `_method`, without regard to case, and as
/// PHP reads names (spaces before it are cut; a dot, a space and a bracket are an underscore).
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
        policy.denied(&[method], &Readings::of(path).unwrap())
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
        let allows = |method, path: &str| allows(&allow, &[method], &Readings::of(path).unwrap());
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
