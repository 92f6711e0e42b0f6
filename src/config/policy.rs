//! `[policy]`, and patterns over methods and paths wherever they stand.

use super::fault::Report;
use super::location::{Field, Location, Spanned};
use crate::proxy::policy::pattern::Pattern;
use crate::proxy::policy::{Policy, Sessions};

/// The API that registers and deletes clients: a caller with the shared token could end the access
/// of every other app.
const DENY: [&str; 1] = ["/rest/auth/v1/**"];

/// Parses the policy.
pub(super) fn parse(
    deny: Field<Vec<String>>,
    sessions: Field<String>,
    report: &mut Report,
) -> Policy {
    let deny = match deny {
        Field::Given(spanned) => patterns(&spanned.value, &spanned.location, report),
        Field::Absent | Field::Faulty => DENY.iter().filter_map(|text| text.parse().ok()).collect(),
    };
    let sessions = sessions
        .given()
        .map(|spanned| self::sessions(&spanned, report));
    Policy {
        deny,
        sessions: sessions.unwrap_or_default(),
    }
}

/// Parses a list of patterns, and reports invalid ones.
pub(super) fn patterns(texts: &[String], location: &Location, report: &mut Report) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<Pattern>() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let problem = format!("item {} is no pattern: {error}", index + 1);
                report.fault(location.fault(problem, error.remedy()));
            }
        }
    }
    patterns
}

fn sessions(spanned: &Spanned<String>, report: &mut Report) -> Sessions {
    match spanned.value.as_str() {
        "local" => Sessions::Local,
        "deny" => Sessions::Deny,
        "pass" => Sessions::Pass,
        _ => {
            report.fault(spanned.location.fault(
                "there is no such way to treat session logins",
                "write \"local\" (answered here), \"deny\" or \"pass\"",
            ));
            Sessions::default()
        }
    }
}
