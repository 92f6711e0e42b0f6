//! The response of `GET /readyz` as text: short for probes, longer for people.

use super::report::{ClientReport, StatusReport};

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
        let since = refused.since;
        text += &format!("configuration refused since {since}, the one before stays in force\n");
        for fault in &refused.faults {
            text += &format!("  {fault}\n");
        }
    }
    for client in &report.clients {
        text += &paragraph(client);
    }
    text + &brief(report)
}

fn paragraph(client: &ClientReport) -> String {
    let token = match &client.token {
        None => "has no token yet".to_owned(),
        Some(token) => {
            let (generation, expires, left) = (token.generation, token.expires, token.seconds_left);
            match (token.usable, token.revoked) {
                (true, true) => format!(
                    "has no usable token: the API rejects token {generation} for all callers"
                ),
                (true, false) => {
                    format!("holds token {generation} until {expires} ({left} s left)")
                }
                (false, _) => format!("has no usable token: token {generation} ended at {expires}"),
            }
        }
    };
    let next = match (client.next.at, client.next.in_seconds) {
        (Some(at), Some(seconds)) if seconds > 0 => {
            format!("next request at {at} (in {seconds} s)")
        }
        (Some(_), Some(_)) => "the next request is due now".to_owned(),
        _ => "a request is in flight".to_owned(),
    };
    let mut text = format!("{}: {token}; {next}\n", client.name);
    if let Some(failure) = &client.failure {
        text += &format!(
            "  last failure: {} at {} ({} in a row): {}\n",
            failure.outcome, failure.at, failure.in_a_row, failure.message
        );
    }
    let store = client.store.as_ref();
    if let Some(problem) = store.and_then(|store| store.problem.as_ref()) {
        text += &format!("  going on without the store: {problem}\n");
    }
    if let Some(api) = &client.api
        && let Some(since) = api.failing_since
    {
        let instance = &client.instance;
        let share = api.failed_share().unwrap_or_else(|| "none".to_owned());
        let last = api.last_failure.as_ref().map_or("", |last| &last.message);
        text += &format!(
            "  calls of {instance} fail since {since}, {share} of the last 5 minutes: {last}\n"
        );
    }
    text
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
