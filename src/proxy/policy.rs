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
    if leads_to(path, token_path) {
        Some(Denied::TokenEndpoint)
    } else if leads_to(path, CLIENT_MANAGEMENT) {
        Some(Denied::ClientManagement)
    } else {
        None
    }
}

/// Whether `path` is `place` or lies below it, or passes it on its way: a server that resolves no
/// dots is there already. Names count without the dots and spaces at their end, and the spaces
/// before them, which some servers cut.
fn leads_to(path: &str, place: &str) -> bool {
    let is_plain = !path.contains("./") && !path.ends_with('.');
    if is_plain && matches!(as_read_leniently(path), Cow::Borrowed(_)) {
        return is_at_or_below(path, place);
    }
    let once = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    passes(&once, place) || passes(&twice, place)
}

fn passes(decoded: &str, place: &str) -> bool {
    let place: Vec<&str> = place.split('/').filter(|name| !name.is_empty()).collect();
    let mut way: Vec<&str> = Vec::new();
    decoded.split(['/', '\\']).any(|segment| {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(way.pop()),
            name => way.push(name.trim_end_matches(['.', ' '])),
        }
        let mut pairs = way.iter().zip(&place);
        way.len() == place.len() && pairs.all(|(name, other)| name.eq_ignore_ascii_case(other))
    })
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
            "/rest/auth/../v1/x",
            "/rest/auth/.../v1",
            "/rest/2.0/a./b",
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
            "/rest/auth/v1/../../x",
            "/rest/%252e%252e/rest/auth/v1",
            "/rest%252fauth/v1",
            "/rest//auth/v1/x/../../../y",
            "/rest./auth.../v1",
            "/rest/auth/v1.",
            "/rest%20/%20auth/v1/clients",
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
