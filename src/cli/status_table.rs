//! Formats the status for people. Pure functions of the report and the width of the screen.

use std::fmt::Display;
use std::time::Duration;

use jiff::Timestamp;

use super::table::{Column, fit, fitted, text, wrap};
use super::terminal::Size;
use crate::admin::report::{AppReport, ClientReport, ListenerReport, NextKind, StatusReport};

/// A certificate that expires within this many days is listed.
const SOON: i64 = 14;

const CLIENTS: [Column; 11] = [
    Column::new("CLIENT").cut(),
    Column::new("TOKEN"),
    Column::new("LEFT").least(6),
    Column::new("NEXT").least(6),
    Column::new("POOL"),
    Column::new("OK 5m"),
    Column::new("P95 5m"),
    Column::new("REQUESTS").spare(1),
    Column::new("IN FLIGHT").spare(2),
    Column::new("GENERATION").spare(3),
    Column::new("LAST ERROR").cut().least(16),
];

const APPS: [Column; 8] = [
    Column::new("APP").cut(),
    Column::new("CLIENT").spare(2).cut(),
    Column::new("REQ/S"),
    Column::new("IN FLIGHT"),
    Column::new("FAILED"),
    Column::new("REQUESTS"),
    Column::new("LAST SEEN").least(10),
    Column::new("LOCAL TOKENS").spare(3),
];

const LISTENERS: [Column; 4] = [
    Column::new("LISTENER").cut(),
    Column::new("ADDRESS").cut(),
    Column::new("CLIENT").cut(),
    Column::new("CONNECTIONS"),
];

/// Formats everything: clients, problems and their causes, apps, listeners. No line is wider than
/// `width`.
pub(super) fn render(report: &StatusReport, width: Option<usize>) -> String {
    let mut parts = vec![vec![fitted(&title(report), width)]];
    let clients = report.clients.iter().map(|it| client(it, report));
    parts.push(table(&CLIENTS, clients, width));
    parts.extend(problems(report).iter().map(|it| wrap(it, width)));
    let apps = report.apps.iter().map(|it| app(it, report));
    parts.push(table(&APPS, apps, width));
    let listeners = report.listeners.iter().map(listener);
    parts.push(table(&LISTENERS, listeners, width));
    parts.retain(|lines| !lines.is_empty());
    let parts: Vec<String> = parts.iter().map(|lines| text(lines)).collect();
    parts.join("\n")
}

/// Formats one screen: first the clients, those with a problem first, then the apps, the busiest
/// first. A `notice` says that the report is old.
pub(super) fn screen(report: &StatusReport, notice: Option<&str>, size: Size) -> Vec<String> {
    let width = Some(size.columns);
    let title = match notice {
        None => title(report),
        Some(_) => {
            let at = report.at.strftime("%H:%M:%S UTC");
            format!("collibra-auth-proxy {}, last seen at {at}", report.version)
        }
    };
    let mut lines = vec![
        fitted(&title, width),
        fitted(notice.unwrap_or_default(), width),
    ];
    // the last line is for keys and the number of hidden rows
    let last = size.rows.saturating_sub(1);
    let room = |lines: &[String]| last.saturating_sub(lines.len());
    let add = |lines: &mut Vec<String>, table: Vec<String>| {
        let (room, all) = (room(lines), table.len());
        lines.extend(table.into_iter().take(room));
        all.saturating_sub(room)
    };

    let mut clients: Vec<&ClientReport> = report.clients.iter().collect();
    clients.sort_by_key(|client| is_well(client));
    let clients = clients.into_iter().map(|it| client(it, report));
    let clients_left = add(&mut lines, table(&CLIENTS, clients, width));
    let told = (room(&lines) / 4).max(1);
    let problems = problems(report);
    lines.extend(problems.iter().flat_map(|it| wrap(it, width)).take(told));

    let mut apps: Vec<&AppReport> = report.apps.iter().collect();
    apps.sort_by(|a, b| {
        let by_rate = b.rate.total_cmp(&a.rate);
        by_rate.then_with(|| b.requests.cmp(&a.requests))
    });
    let mut apps_left = 0;
    if !apps.is_empty() && room(&lines) > 2 {
        lines.push(String::new());
        let apps = apps.into_iter().map(|it| app(it, report));
        apps_left = add(&mut lines, table(&APPS, apps, width));
    }
    let table = table(&LISTENERS, report.listeners.iter().map(listener), width);
    if !table.is_empty() && room(&lines) > table.len() {
        lines.push(String::new());
        lines.extend(table);
    }
    lines.truncate(last);
    lines.resize(last, String::new());
    let mut keys = "q quits".to_owned();
    for (left, what) in [(clients_left, "clients"), (apps_left, "apps")] {
        if left > 0 {
            keys.push_str(&format!(", {left} more {what}"));
        }
    }
    lines.push(fitted(&keys, width));
    lines
}

/// As [`fit`]; no lines without rows.
fn table<const N: usize>(
    columns: &[Column; N],
    rows: impl Iterator<Item = [String; N]>,
    width: Option<usize>,
) -> Vec<String> {
    let lines = fit(columns, rows, width);
    if lines.len() > 1 { lines } else { Vec::new() }
}

fn title(report: &StatusReport) -> String {
    let state = match (report.draining, report.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let up = duration(report.uptime_seconds);
    format!("collibra-auth-proxy {}, up {up}: {state}", report.version)
}

/// The current problems, one sentence each.
fn problems(report: &StatusReport) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(refused) = &report.refused_configuration {
        let ago = duration(refused.seconds_ago);
        problems.push(format!(
            "configuration refused for {ago}, the one before stays in force:"
        ));
        problems.extend(refused.faults.iter().cloned());
    }
    for client in &report.clients {
        let (name, instance) = (&client.name, &client.instance);
        if let Some(failure) = &client.failure {
            let (ago, message) = (duration(failure.seconds_ago), &failure.message);
            problems.push(format!("{name}, token request failed {ago} ago: {message}"));
        }
        if let Some(api) = &client.api
            && let Some(seconds) = api.failing_seconds
        {
            let lasting = duration(seconds);
            let share = api.failed_share().unwrap_or_else(|| "none".to_owned());
            let last = api.last_failure.as_ref().map_or("", |last| &last.message);
            problems.push(format!(
                "{name}: calls of {instance} have been failing for {lasting}, {share} failed in 5 minutes: {last}"
            ));
        }
        if let Some(problem) = client.store.as_ref().and_then(|it| it.problem.as_ref()) {
            problems.push(format!("{name} goes on without its store: {problem}"));
        }
    }
    for certificate in report.certificates.iter().filter(|it| it.days_left < SOON) {
        let (kind, name) = (&certificate.kind, &certificate.name);
        let when = match certificate.days_left {
            ..0 => "has expired".to_owned(),
            days => format!("expires in {days} days"),
        };
        problems.push(format!("the certificate of {kind} {name} {when}"));
    }
    problems
}

fn is_well(client: &ClientReport) -> bool {
    let has_store = client.store.as_ref().is_none_or(|s| s.problem.is_none());
    let api = client.api.as_ref();
    let has_api = api.is_none_or(|api| api.failing_seconds.is_none());
    client.is_usable() && client.failure.is_none() && has_store && has_api
}

/// Formats a client's row.
fn client(client: &ClientReport, report: &StatusReport) -> [String; 11] {
    let (token, left) = match &client.token {
        None => ("none yet", "-".to_owned()),
        Some(token) if token.usable && token.revoked => ("rejected", duration(token.seconds_left)),
        Some(token) if token.usable => ("usable", duration(token.seconds_left)),
        Some(_) => ("expired", "-".to_owned()),
    };
    let generation = client.token.as_ref().map_or(0, |token| token.generation);
    let next = match (client.next.kind, client.next.in_seconds) {
        (NextKind::Answer, _) => "in flight".to_owned(),
        (NextKind::Request, None | Some(0)) => "now".to_owned(),
        (NextKind::Request, Some(seconds)) => duration(seconds),
    };
    let pool = &client.pool;
    let lately = &client.requests.lately;
    [
        client.name.clone(),
        token.to_owned(),
        left,
        next,
        format!("{:.1}/{}", pool.available, pool.capacity),
        success(lately.requests, lately.failed),
        milliseconds(lately.p95_milliseconds),
        client.requests.total.to_string(),
        client.requests.in_flight.to_string(),
        generation.to_string(),
        last_error(client, report),
    ]
}

/// Formats the share of requests that did not fail. Shows 100 % only if none failed.
fn success(requests: u64, failed: u64) -> String {
    match (requests, failed) {
        (0, _) => "-".to_owned(),
        (_, 0) => "100%".to_owned(),
        _ => {
            // rounded down, in whole numbers
            let hundredths = (requests - failed.min(requests)).saturating_mul(10_000) / requests;
            format!("{}.{:02}%", hundredths / 100, hundredths % 100)
        }
    }
}

fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.1}ms"),
        Some(value) if value < 1_000.0 => format!("{value:.0}ms"),
        Some(value) => format!("{:.1}s", value / 1_000.0),
    }
}

/// Describes the last failure, of a token request or an API call, with its count or its age.
fn last_error(client: &ClientReport, report: &StatusReport) -> String {
    if let Some(failure) = &client.failure {
        let outcome = &failure.outcome;
        return match failure.in_a_row {
            0 | 1 => outcome.clone(),
            in_a_row => format!("{outcome} x{in_a_row}"),
        };
    }
    let mut requests = client.token_requests.iter();
    let request = requests.find(|request| request.outcome != "ok");
    let request = request.map(|request| (request.at, &request.outcome));
    let call = client
        .api
        .as_ref()
        .and_then(|api| api.last_failure.as_ref());
    let call = call.map(|call| (call.at, &call.kind));
    match request.max(call) {
        None => "-".to_owned(),
        Some((at, what)) => format!("{what}, {} ago", age(at, report)),
    }
}

/// Formats an app's row.
fn app(app: &AppReport, report: &StatusReport) -> [String; 8] {
    [
        app.name.clone(),
        app.client.clone().unwrap_or_else(|| "-".to_owned()),
        of(format!("{:.1}", app.rate), app.max_rate),
        of(app.in_flight, app.max_in_flight),
        app.failed.to_string(),
        app.requests.to_string(),
        match app.last_seen {
            None => "never".to_owned(),
            Some(at) => format!("{} ago", age(at, report)),
        },
        app.local_tokens.to_string(),
    ]
}

/// Formats a listener's row.
fn listener(listener: &ListenerReport) -> [String; 4] {
    let most = Some(listener.max_connections).filter(|most| *most > 0);
    [
        listener.name.clone(),
        listener.address.clone(),
        listener.client.clone(),
        of(listener.connections, most),
    ]
}

/// Formats a value and its limit.
fn of(value: impl Display, most: Option<impl Display>) -> String {
    match most {
        None => value.to_string(),
        Some(most) => format!("{value}/{most}"),
    }
}

/// How long before the report something happened.
fn age(at: Timestamp, report: &StatusReport) -> String {
    let seconds = report.at.duration_since(at).as_secs().max(0);
    duration(seconds.unsigned_abs())
}

/// Formats a duration in its two largest units.
fn duration(seconds: u64) -> String {
    let coarse = match seconds {
        0..3_600 => seconds,
        3_600..86_400 => seconds - seconds % 60,
        _ => seconds - seconds % 3_600,
    };
    humantime::format_duration(Duration::from_secs(coarse)).to_string()
}

#[cfg(test)]
mod tests;
