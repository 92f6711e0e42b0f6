//! The status page: the documents that a browser is sent, and what a reader without JavaScript
//! sees.
//!
//! With JavaScript, `status.js` draws the events of `/api/events` into `status.html`. Without, the
//! page holds the same figures as text and reloads itself; it has no plots.

use super::ready;
use super::report::StatusReport;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's style and scripts, the same for everyone: path, content type, text.
pub(super) const DOCUMENTS: [(&str, &str, &str); 6] = [
    ("/status.css", STYLE, include_str!("status.css")),
    ("/status.js", SCRIPT, include_str!("status.js")),
    ("/cards.js", SCRIPT, include_str!("cards.js")),
    ("/plots.js", SCRIPT, include_str!("plots.js")),
    ("/tables.js", SCRIPT, include_str!("tables.js")),
    ("/text.js", SCRIPT, include_str!("text.js")),
];

const PAGE: &str = include_str!("status.html");

/// The page at this moment.
pub(super) fn page(report: &StatusReport) -> String {
    let (tone, state) = match report {
        report if report.draining => ("warn", "draining"),
        report if report.ready => ("good", "ready"),
        _ => ("bad", "not ready"),
    };
    let about = format!("version {}, up since {}", report.version, report.started);
    let figures = serde_json::to_string_pretty(report).expect("every key is a string");
    // text from outside goes in last, so that no placeholder in it is replaced
    PAGE.replacen("{tone}", tone, 1)
        .replacen("{state}", state, 1)
        .replacen("{about}", &about, 1)
        .replacen(
            "{plain}",
            &escape(&(ready::verbose(report) + "\n" + &figures)),
            1,
        )
}

/// Escapes `text` for an element of HTML.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{CANARY, holds, refused, slot, view};
    use super::*;
    use crate::clock::Clock;
    use crate::token::cache::Status;
    use std::time::Duration;

    #[test]
    fn without_a_script_it_says_the_same_as_text() {
        let (view, clock) = view();
        slot(&view).publish(Status {
            store_problem: Some("redis://redis:6379 does not answer".into()),
            ..refused(holds(clock.now()), clock.now())
        });
        clock.advance(Duration::from_secs(90));
        let html = page(&view.report());
        let (_, plain) = html.split_once("<noscript>\n").unwrap();
        let (plain, _) = plain.split_once("</noscript>").unwrap();
        for text in [
            "catalog: holds token 7 until 2027-01-15T08:05:00Z (210 s left)",
            "last failure: rate_limited at 2027-01-15T08:00:00Z (3 in a row): acme.collibra.com says that the pool is empty",
            "redis://redis:6379 does not answer",
            "\"replicas\": 3",
            "\"name\": \"lineage\"",
            "\"max_in_flight\": 32",
            "\"address\": \"127.0.0.1:8080\"",
        ] {
            assert!(plain.contains(text), "{text} is not in {plain}");
        }
        assert!(html.contains("<p id=\"state\" class=\"badge good\" role=\"status\">ready</p>"));
        assert!(html.contains("version 0.0.0, up since 2027-01-15T08:00:00Z"));
        assert!(!html.contains(CANARY));
    }

    #[test]
    fn what_came_from_elsewhere_is_text() {
        let (view, clock) = view();
        let mut status = refused(holds(clock.now()), clock.now());
        let evil = "</noscript><script>alert(1)</script>{plain}{state}&\"'";
        if let Some(failure) = &mut status.failure {
            failure.error.message = evil.to_owned();
        }
        slot(&view).publish(status);
        let html = page(&view.report());
        assert!(html.contains(&escape(evil)), "{html}");
        assert!(!html.contains("<script>"));
        assert_eq!(html.matches("</noscript>").count(), 2);
    }

    #[test]
    fn it_obeys_its_own_policy() {
        assert!(!PAGE.contains("<style") && !PAGE.contains(" style="));
        assert!(!PAGE.contains("<script>") && !PAGE.contains(" onclick="));
        let documents = DOCUMENTS.iter().map(|(_, _, text)| *text);
        for text in documents.chain([PAGE]) {
            assert!(!text.contains("://"), "nothing is loaded from elsewhere");
            assert!(!text.contains("innerHTML"));
        }
    }
}
