//! `[policy]`, and patterns over methods and paths wherever they stand.

use super::fault::Report;
use super::place::{Field, Place, Typed};
use crate::proxy::policy::pattern::Pattern;
use crate::proxy::policy::{Policy, Sessions};

/// The API by which clients are registered and deleted: whoever may call it with the shared token
/// can end every other app's access.
const DENY: [&str; 1] = ["/rest/auth/v1/**"];

/// Settles the policy.
pub(super) fn parse(
    deny: Field<Vec<String>>,
    sessions: Field<String>,
    report: &mut Report,
) -> Policy {
    let deny = match deny {
        Field::Given(typed) => patterns(&typed.value, &typed.place, report),
        Field::Absent | Field::Faulty => DENY.iter().filter_map(|text| text.parse().ok()).collect(),
    };
    let sessions = sessions.given().map(|typed| self::sessions(&typed, report));
    Policy {
        deny,
        sessions: sessions.unwrap_or_default(),
    }
}

/// Reads a list of patterns; those that are none are reported.
pub(super) fn patterns(texts: &[String], place: &Place, report: &mut Report) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<Pattern>() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let problem = format!("item {} is no pattern: {error}", index + 1);
                report.fault(place.fault(problem, error.remedy()));
            }
        }
    }
    patterns
}

fn sessions(typed: &Typed<String>, report: &mut Report) -> Sessions {
    match typed.value.as_str() {
        "local" => Sessions::Local,
        "deny" => Sessions::Deny,
        "pass" => Sessions::Pass,
        _ => {
            report.fault(typed.place.fault(
                "there is no such way to treat session logins",
                "write \"local\" (answered here), \"deny\" or \"pass\"",
            ));
            Sessions::default()
        }
    }
}
