//! Paths that are never forwarded: a path is matched as a lenient server might read it. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The API by which clients are registered and deleted, denied by default: whoever may call it
/// with the shared token can end every other app's access.
const CLIENT_MANAGEMENT: &str = "/rest/auth/v1";

/// Why a path is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is the token endpoint: a request there would draw from the pool.
    TokenEndpoint,
    /// It is the API by which clients are managed.
    ClientManagement,
}

/// Whether `path` may be forwarded; `token_path` is the instance's.
#[must_use]
pub fn denied(path: &str, token_path: &str) -> Option<Denied> {
    let path = as_read_leniently(path);
    if is_at_or_below(&path, token_path) {
        Some(Denied::TokenEndpoint)
    } else if is_at_or_below(&path, CLIENT_MANAGEMENT) {
        Some(Denied::ClientManagement)
    } else {
        None
    }
}

/// The path percent-decoded once, `;parameters` cut, doubled slashes and dot segments resolved.
/// Costs nothing for a path that has none of these.
#[must_use]
pub fn as_read_leniently(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', ';']) && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// Whether `path` is `prefix` or lies below it, without regard to case.
fn is_at_or_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let path = path.as_bytes();
    path.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && matches!(path.get(prefix.len()), None | Some(b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN_PATH: &str = "/rest/oauth/v2/token";

    #[test]
    fn ordinary_paths_are_forwarded() {
        for path in [
            "/",
            "/rest/2.0/assets",
            "/rest/auth/v10/x",
            "/rest/oauth/v2/tokens",
            "/rest/2.0/auth/sessions/current",
            "/graphql",
        ] {
            assert_eq!(denied(path, TOKEN_PATH), None, "{path}");
        }
    }

    #[test]
    fn no_spelling_gets_past() {
        for path in [
            "/rest/auth/v1",
            "/rest/auth/v1/clients",
            "/REST/Auth/V1/clients",
            "/rest//auth/v1/clients",
            "/rest/./auth/v1/clients",
            "/rest/2.0/../auth/v1/clients",
            "/rest/%61uth/v1/clients",
            "/rest;x=1/auth;y/v1/clients",
            "/x/../rest/auth/v1/platform/clients/1",
        ] {
            assert_eq!(
                denied(path, TOKEN_PATH),
                Some(Denied::ClientManagement),
                "{path}"
            );
        }
        for path in [
            TOKEN_PATH,
            "/rest/oauth/v2/token/",
            "/rest/oauth/v2/%74oken",
        ] {
            assert_eq!(
                denied(path, TOKEN_PATH),
                Some(Denied::TokenEndpoint),
                "{path}"
            );
        }
    }
}
