//! The response of `GET /readyz` as text: short for probes, longer for people.

use std::fmt::Write as _;

use super::report::{ApiReport, ClientReport, RefusedReport, StatusReport};

/// One line: ready, or the clients that make the process not ready.
pub(super) fn brief(report: &StatusReport) -> String {
    if report.draining {
        return "not ready: draining\n".to_owned();
    }
    let without: Vec<_> = report
        .clients
        .iter()
        .filter(|client| !client.is_usable())
        .map(|client| client.name.as_str())
        .collect();
    if without.is_empty() {
        "ready\n".to_owned()
    } else {
        format!("not ready: no usable token for {}\n", without.join(", "))
    }
}

/// One paragraph for a refused configuration and for each client, then the line of [`brief`].
pub(super) fn verbose(report: &StatusReport) -> String {
    let mut text = String::new();
    if let Some(refused) = &report.refused_configuration {
        text.push_str(&refused_configuration(refused));
    }
    for client in &report.clients {
        text.push_str(&paragraph(client));
    }
    text + &brief(report)
}

fn refused_configuration(refused: &RefusedReport) -> String {
    let RefusedReport { since, faults, .. } = refused;
    let faults = faults.iter().map(|fault| format!("  {fault}\n"));
    let faults: String = faults.collect();
    format!("configuration refused since {since}, the one before stays in force\n{faults}")
}

fn paragraph(client: &ClientReport) -> String {
    let mut text = format!("{}: ", client.name);
    let written = match &client.token {
        None => write!(text, "has no token yet"),
        Some(token) if token.usable && token.revoked => write!(
            text,
            "has no usable token: the API rejects token {} for all callers",
            token.generation
        ),
        Some(token) if token.usable => write!(
            text,
            "holds token {} until {} ({} s left)",
            token.generation, token.expires, token.seconds_left
        ),
        Some(token) => write!(
            text,
            "has no usable token: token {} ended at {}",
            token.generation, token.expires
        ),
    };
    let written = written.and_then(|()| match (client.next.at, client.next.in_seconds) {
        (Some(at), Some(seconds)) if seconds > 0 => {
            writeln!(text, "; next request at {at} (in {seconds} s)")
        }
        (Some(_), Some(_)) => writeln!(text, "; the next request is due now"),
        _ => writeln!(text, "; a request is in flight"),
    });
    let written = written.and_then(|()| match &client.failure {
        None => Ok(()),
        Some(failure) => writeln!(
            text,
            "  last failure: {} at {} ({} in a row): {}",
            failure.outcome, failure.at, failure.in_a_row, failure.message
        ),
    });
    let problem = client.store.as_ref().and_then(|s| s.problem.as_deref());
    let written = written.and_then(|()| match problem {
        None => Ok(()),
        Some(problem) => writeln!(text, "  going on without the store: {problem}"),
    });
    let written = written.and_then(|()| match client.api.as_ref() {
        Some(api) if api.failing_since.is_some() => writeln!(text, "  {}", outage(client, api)),
        _ => Ok(()),
    });
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

/// The current problem of the API, in one line.
pub(crate) fn outage(client: &ClientReport, api: &ApiReport) -> String {
    let instance = &client.instance;
    let share = api.failed_share().unwrap_or_else(|| "none".to_owned());
    let since = api.failing_since.map(|since| since.to_string());
    let last = api.last_failure.as_ref().map_or("", |last| &*last.message);
    format!(
        "calls of {instance} fail since {}, {share} of the last 5 minutes: {last}",
        since.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::super::view::Refused;
    use super::super::view::tests::{holds, refused, slot, view};
    use super::*;
    use crate::clock::Clock;
    use crate::outgoing::dial::Kind;
    use crate::token::cache::Status;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    #[test]
    fn says_what_each_client_holds_what_comes_next_and_why() {
        let (view, clock) = view();
        let slot = slot(&view);
        insta::assert_snapshot!(verbose(&view.report()), @r"
        catalog: has no token yet; the next request is due now
        not ready: no usable token for catalog
        ");

        let asked = clock.now();
        slot.publish(holds(asked));
        clock.advance(Duration::from_secs(20));
        insta::assert_snapshot!(verbose(&view.report()), @r"
        catalog: holds token 7 until 2027-01-15T08:05:00Z (280 s left); next request at 2027-01-15T08:02:30Z (in 130 s)
        ready
        ");

        clock.advance(Duration::from_secs(280));
        slot.publish(refused(holds(asked), clock.now()));
        insta::assert_snapshot!(verbose(&view.report()), @r"
        catalog: has no usable token: token 7 ended at 2027-01-15T08:05:00Z; next request at 2027-01-15T08:06:00Z (in 60 s)
          last failure: rate_limited at 2027-01-15T08:05:00Z (3 in a row): acme.collibra.com says that the pool is empty
        not ready: no usable token for catalog
        ");

        let api = Arc::clone(&view.parts.load().clients[0].api);
        api.failed(
            clock.now(),
            Kind::Connect,
            "acme.collibra.com refused the connection",
        );
        slot.publish(Status {
            store_problem: Some("redis://redis:6379 does not answer".into()),
            ..holds(clock.now())
        });
        insta::assert_snapshot!(verbose(&view.report()), @r"
        catalog: holds token 7 until 2027-01-15T08:10:00Z (300 s left); next request at 2027-01-15T08:07:30Z (in 150 s)
          going on without the store: redis://redis:6379 does not answer
          calls of https://acme.collibra.com fail since 2027-01-15T08:05:00Z, 100.0 % of the last 5 minutes: acme.collibra.com refused the connection
        ready
        ");
    }

    #[test]
    fn a_refused_configuration_is_told_until_a_sound_one_comes() {
        let (view, clock) = view();
        slot(&view).publish(holds(clock.now()));
        let refused = Refused {
            since: clock.now(),
            faults: vec!["proxy.toml:3: a.b: this key is unknown; write `c`".to_owned()],
        };
        view.refused.store(Some(Arc::new(refused)));
        clock.advance(Duration::from_secs(20));
        insta::assert_snapshot!(verbose(&view.report()), @r"
        configuration refused since 2027-01-15T08:00:00Z, the one before stays in force
          proxy.toml:3: a.b: this key is unknown; write `c`
        catalog: holds token 7 until 2027-01-15T08:05:00Z (280 s left); next request at 2027-01-15T08:02:30Z (in 130 s)
        ready
        ");
        let told = view.report().refused_configuration.unwrap();
        assert_eq!(told.seconds_ago, 20);
        view.refused.store(None);
        assert!(verbose(&view.report()).starts_with("catalog: "));
    }

    #[test]
    fn a_token_that_the_api_rejects_for_all_callers_is_not_usable() {
        let (view, clock) = view();
        slot(&view).publish(Status {
            rejected: true,
            ..holds(clock.now())
        });
        // after a single rejection the token is replaced within a second or so
        assert_eq!(brief(&view.report()), "ready\n");
        slot(&view).publish(Status {
            rejected: true,
            revoked: true,
            ..holds(clock.now())
        });
        assert!(!view.report().ready);
        insta::assert_snapshot!(verbose(&view.report()), @r"
        catalog: has no usable token: the API rejects token 7 for all callers; next request at 2027-01-15T08:02:30Z (in 150 s)
        not ready: no usable token for catalog
        ");
    }

    #[test]
    fn a_process_that_drains_is_not_ready_whatever_it_holds() {
        let (view, clock) = view();
        slot(&view).publish(holds(clock.now()));
        assert_eq!(brief(&view.report()), "ready\n");
        view.draining.store(true, Ordering::Relaxed);
        assert!(!view.report().ready);
        assert_eq!(brief(&view.report()), "not ready: draining\n");
    }
}
