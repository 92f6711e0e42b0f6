//! The status page: the documents that a browser is sent, and what a reader without JavaScript
//! sees.
//!
//! With JavaScript, `status.js` draws the events of `/api/events` into `status.html`. Without, the
//! page holds the same figures as text and reloads itself; it has no plots.

use std::fmt::Write as _;

use super::report::{
    AppReport, CertificateReport, ClientReport, FailureReport, NextKind, StatusReport, StoreReport,
    TokenRequestReport,
};

/// A document of the page that is the same for everyone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document {
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's style and scripts.
pub(super) const DOCUMENTS: [Document; 6] = [
    Document {
        path: "/status.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("status.css"),
    },
    Document {
        path: "/status.js",
        content_type: SCRIPT,
        text: include_str!("status.js"),
    },
    Document {
        path: "/cards.js",
        content_type: SCRIPT,
        text: include_str!("cards.js"),
    },
    Document {
        path: "/plots.js",
        content_type: SCRIPT,
        text: include_str!("plots.js"),
    },
    Document {
        path: "/tables.js",
        content_type: SCRIPT,
        text: include_str!("tables.js"),
    },
    Document {
        path: "/text.js",
        content_type: SCRIPT,
        text: include_str!("text.js"),
    },
];

const PAGE: &str = include_str!("status.html");

/// A certificate that expires within so many days is warned of.
const EXPIRES_SOON: i64 = 14;

/// The page at this moment.
pub(super) fn page(report: &StatusReport) -> String {
    let (tone, state) = match report {
        report if report.draining => ("warn", "draining"),
        report if report.ready => ("good", "ready"),
        _ => ("bad", "not ready"),
    };
    let about = format!(
        "version {}, up {}",
        report.version,
        duration(report.uptime_seconds)
    );
    // what came from elsewhere goes in last, so that nothing in it is taken for a place
    PAGE.replacen("{tone}", tone, 1)
        .replacen("{state}", state, 1)
        .replacen("{about}", &escape(&about), 1)
        .replacen("{plain}", &plain(report), 1)
}

/// The report as HTML, without a script.
fn plain(report: &StatusReport) -> String {
    let mut html = String::from(
        "<p class=\"notice\">Without JavaScript this page has no plots; it reloads every 5 seconds.</p>\n",
    );
    if let Some(refused) = &report.refused_configuration {
        for fault in &refused.faults {
            html.push_str(&notice("configuration refused", fault));
        }
    }
    for client in &report.clients {
        html.push_str(&card(client));
    }
    let apps = report.apps.iter().map(app);
    let heads = [
        "App",
        "Client",
        "Rate/s",
        "In flight",
        "Failed",
        "Requests",
        "Local tokens",
        "Last seen",
    ];
    html.push_str(&section("Apps", &heads, apps));
    let listeners = report.listeners.iter().map(|listener| {
        let connections = of(
            listener.connections,
            Some(listener.max_connections).filter(|most| *most > 0),
        );
        vec![
            listener.name.clone(),
            listener.address.clone(),
            listener.client.clone(),
            connections,
        ]
    });
    let heads = ["Listener", "Address", "Client", "Connections"];
    html.push_str(&section("Listeners", &heads, listeners));
    let certificates = report.certificates.iter().map(certificate);
    let heads = ["Certificate", "Kind", "Expires", "Left"];
    html.push_str(&section("Certificates", &heads, certificates));
    html
}

fn card(client: &ClientReport) -> String {
    let (tone, state) = match (&client.token, &client.failure) {
        (Some(token), _) if token.usable && token.rejected => ("bad", "token rejected"),
        (Some(token), Some(_)) if token.usable => ("warn", "usable, renewal failing"),
        (Some(token), None) if token.usable => ("good", "usable"),
        (Some(_), _) => ("bad", "no usable token"),
        (None, Some(_)) => ("bad", "no token"),
        (None, None) => ("warn", "no token yet"),
    };
    let mut html = format!(
        "<section class=\"card\"><div class=\"head\"><h2>{}</h2><p class=\"instance\">{}</p><p class=\"badge {tone}\">{state}</p></div>\n",
        escape(&client.name),
        escape(&client.instance)
    );
    if let Some(failure) = &client.failure {
        html.push_str(&notice(&failure_text(failure), &failure.message));
    }
    let api = client.api.as_ref();
    if let Some(api) = api.filter(|api| api.failing_since.is_some()) {
        let last = api.last_failure.as_ref();
        html.push_str(&notice(
            "API failing",
            last.map_or("", |last| &last.message),
        ));
    }
    if let Some(problem) = client
        .store
        .as_ref()
        .and_then(|store| store.problem.as_ref())
    {
        html.push_str(&notice("store unavailable", problem));
    }
    html.push_str("<dl>\n");
    for (name, value) in facts(client) {
        let written = writeln!(
            html,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escape(&value)
        );
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    html.push_str("</dl>\n");
    let requests = client.token_requests.iter().map(token_request);
    html.push_str(&table(&["Token request", "Outcome", "Took"], requests));
    html.push_str("</section>\n");
    html
}

fn facts(client: &ClientReport) -> Vec<(&'static str, String)> {
    let token = client
        .token
        .as_ref()
        .map_or("none since the start".to_owned(), |token| {
            let (generation, expires) = (token.generation, token.expires);
            let left = duration(token.seconds_left);
            format!("no. {generation}, until {expires}, {left} left")
        });
    let next = match (client.next.kind, client.next.in_seconds) {
        (NextKind::Answer, _) | (NextKind::Request, None) => "in flight".to_owned(),
        (NextKind::Request, Some(wait)) => format!("in {}", duration(wait)),
    };
    let (requests, lately) = (&client.requests, &client.requests.lately);
    let milliseconds = |value: Option<f64>| value.map_or("–".to_owned(), |ms| format!("{ms} ms"));
    vec![
        ("Token", token),
        ("Next token", next),
        (
            "Pool",
            format!("{:.1} of {}", client.pool.available, client.pool.capacity),
        ),
        (
            "Requests",
            format!("{}, {} in flight", requests.total, requests.in_flight),
        ),
        (
            "Failed, 5 min",
            format!("{} of {}", lately.failed, lately.requests),
        ),
        (
            "p50 / p95, 5 min",
            format!(
                "{} / {}",
                milliseconds(lately.p50_milliseconds),
                milliseconds(lately.p95_milliseconds)
            ),
        ),
        ("Store", client.store.as_ref().map_or("–".to_owned(), store)),
        ("Client id", client.client_id.clone()),
    ]
}

fn store(store: &StoreReport) -> String {
    let state = match (&store.problem, store.kind.as_str()) {
        (Some(_), kind) => format!("{kind}, unavailable"),
        (None, "memory") => "memory".to_owned(),
        (None, kind) => format!("{kind}, up"),
    };
    match store.replicas {
        Some(replicas) => format!("{state}, {replicas} replicas"),
        None => state,
    }
}

fn failure_text(failure: &FailureReport) -> String {
    let outcome = failure.outcome.replace('_', " ");
    let (ago, row) = (duration(failure.seconds_ago), failure.in_a_row);
    format!("token request: {outcome} {ago} ago, {row} in a row")
}

fn token_request(request: &TokenRequestReport) -> Vec<String> {
    let outcome = request.outcome.replace('_', " ");
    let took = format!("{} ms", request.milliseconds);
    vec![request.at.to_string(), outcome, took]
}

fn app(app: &AppReport) -> Vec<String> {
    vec![
        app.name.clone(),
        app.client.clone().unwrap_or_else(|| "–".to_owned()),
        of(app.rate, app.max_rate),
        of(app.in_flight, app.max_in_flight),
        app.failed.to_string(),
        app.requests.to_string(),
        app.local_tokens.to_string(),
        app.last_seen
            .map_or("never".to_owned(), |at| at.to_string()),
    ]
}

fn certificate(certificate: &CertificateReport) -> Vec<String> {
    let left = match certificate.days_left {
        ..0 => "expired".to_owned(),
        days @ 0..EXPIRES_SOON => format!("{days} days left: renew it"),
        days => format!("{days} days left"),
    };
    vec![
        certificate.name.clone(),
        certificate.kind.clone(),
        certificate.expires.to_string(),
        left,
    ]
}

fn of(now: impl ToString, most: Option<impl ToString>) -> String {
    let now = now.to_string();
    match most {
        Some(most) => format!("{now} of {}", most.to_string()),
        None => now,
    }
}

fn notice(title: &str, text: &str) -> String {
    let (title, text) = (escape(title), escape(text));
    format!("<div class=\"notice bad\"><p><strong>{title}</strong></p><p>{text}</p></div>\n")
}

/// A table below a heading; nothing if it has no rows.
fn section(title: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    match table(heads, rows).as_str() {
        "" => String::new(),
        table => format!("<section><h2>{title}</h2>{table}</section>\n"),
    }
}

/// A table; nothing if it has no rows.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let row = |texts: Vec<String>| {
        let cells = texts
            .iter()
            .map(|text| format!("<td>{}</td>", escape(text)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = rows.map(row).collect();
    if rows.is_empty() {
        return rows;
    }
    let label = heads[0];
    let heads = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{head}</th>"));
    let heads: String = heads.collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n"
    )
}

/// `text` as it stands in HTML, in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            char => html.push(char),
        }
    }
    html
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
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
        let (_, plain) = html.split_once("<noscript><p").unwrap();
        let (plain, _) = plain.split_once("</noscript>").unwrap();
        for text in [
            "usable, renewal failing",
            "acme.collibra.com says that the pool is empty",
            "token request: rate limited 1 min 30 s ago, 3 in a row",
            "redis://redis:6379 does not answer",
            "redis, unavailable, 3 replicas",
            "no. 7, until 2027-01-15T08:05:00Z, 3 min 30 s left",
            "<td>lineage</td>",
            "<td>0 of 32</td>",
            "<td>127.0.0.1:8080</td>",
        ] {
            assert!(plain.contains(text), "{text} is not in {plain}");
        }
        assert!(html.contains("<p id=\"state\" class=\"badge good\" role=\"status\">ready</p>"));
        assert!(html.contains("version 0.0.0, up 1 min 30 s"));
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
        let documents = DOCUMENTS.iter().map(|document| document.text);
        for text in documents.chain([PAGE]) {
            assert!(!text.contains("://"), "nothing is loaded from elsewhere");
            assert!(!text.contains("innerHTML"));
        }
    }

    #[test]
    fn a_certificate_about_to_expire_is_warned_of() {
        let left = |days_left| {
            let report = CertificateReport {
                kind: "listener".to_owned(),
                name: "local".to_owned(),
                expires: jiff::Timestamp::UNIX_EPOCH,
                days_left,
            };
            certificate(&report).pop().unwrap()
        };
        assert_eq!(left(-1), "expired");
        assert_eq!(left(13), "13 days left: renew it");
        assert_eq!(left(14), "14 days left");
    }
}
