//! The running proxies that use a client, as reported by their admin addresses.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::bail;

use crate::admin::report::{StatusReport, TokenReport};
use crate::cli::admin_client::AdminClient;
use crate::cli::polling::poll;
use crate::cli::status;
use crate::clock::{Clock, SystemClock};

/// The polling interval.
const PAUSE: Duration = Duration::from_millis(500);

/// The addresses of `proxies`.
pub(super) fn names(proxies: &[AdminClient]) -> String {
    let names: Vec<&str> = proxies.iter().map(|proxy| &*proxy.address).collect();
    names.join(", ")
}

/// Checks that each of `proxies` uses the client `id` if that `is_expected`, and none otherwise.
///
/// # Errors
/// The first proxy that does not answer, or for which that is wrong.
pub(super) async fn check(
    proxies: &[AdminClient],
    id: &str,
    is_expected: bool,
) -> anyhow::Result<()> {
    for proxy in proxies {
        let (_, report) = status::report(proxy).await?;
        let address = &proxy.address;
        match (uses(&report, id), is_expected) {
            (true, false) => bail!("the proxy at {address} uses {id}"),
            (false, true) => {
                bail!("the proxy at {address} does not use {id}: leave it out, or give another")
            }
            _ => {}
        }
    }
    Ok(())
}

/// Waits until each of `proxies` has a token of the client `new`, and none of `old`.
///
/// # Errors
/// The last state of the first proxy that has not switched after `patience`.
pub(super) async fn switch(
    proxies: &[AdminClient],
    old: &str,
    new: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = SystemClock.now() + patience;
    let limit = humantime::format_duration(patience);
    for proxy in proxies {
        let look = async |_| {
            Ok(match status::report(proxy).await {
                Ok((_, report)) => progress(&report, old, new).map_continue(|seen| {
                    format!("after {limit} the proxy at {} {seen}", proxy.address)
                }),
                // the proxy may be restarting
                Err(error) => ControlFlow::Continue(error.to_string()),
            })
        };
        poll(deadline, PAUSE, look).await?;
    }
    Ok(())
}

/// Whether a proxy uses the client `id`: by its configuration, or by its current token.
fn uses(report: &StatusReport, id: &str) -> bool {
    report.clients.iter().any(|client| {
        let token = client.token.as_ref();
        client.client_id == id || token.is_some_and(|token| token.client_id == id)
    })
}

/// Breaks if a proxy has switched from the client `old` to `new`, and says what it does otherwise.
fn progress(report: &StatusReport, old: &str, new: &str) -> ControlFlow<(), String> {
    let mut clients = report.clients.iter();
    let client = clients.find(|client| client.client_id == new);
    let is_new = |token: &TokenReport| token.usable && token.client_id == new;
    ControlFlow::Continue(
        match client.map(|client| (&client.token, &client.failure)) {
            _ if uses(report, old) => {
                "still uses the old client; check that it reads the same file".to_owned()
            }
            None => "uses neither the old client nor the new one".to_owned(),
            Some((Some(token), _)) if is_new(token) => return ControlFlow::Break(()),
            Some((_, None)) => "has no token of the new client yet".to_owned(),
            Some((_, Some(failure))) => {
                let why = &failure.message;
                format!("cannot get a token for the new client: {why}")
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(configured: &str, token_of: Option<&str>) -> StatusReport {
        let token = token_of.map(|id| {
            json!({ "usable": true, "client_id": id, "generation": 1, "seconds_left": 9,
                "issued": "2027-01-15T08:00:00Z", "expires": "2027-01-15T08:05:00Z" })
        });
        serde_json::from_value(json!({
            "version": "1", "started": "2027-01-15T08:00:00Z", "uptime_seconds": 1,
            "ready": true, "draining": false, "listeners": [],
            "clients": [{ "name": "catalog", "instance": "https://acme.example",
                "client_id": configured, "token": token, "failure": null,
                "next": { "kind": "answer", "at": null, "in_seconds": null },
                "pool": { "available": 5.0, "capacity": 5 },
                "requests": { "total": 0, "in_flight": 0 } }],
        }))
        .unwrap()
    }

    #[test]
    fn the_old_client_is_in_use_while_its_token_is() {
        for (configured, token_of, expected) in [
            ("old", Some("old"), Some("still uses the old client")),
            ("old", None, Some("still uses the old client")),
            ("new", Some("old"), Some("still uses the old client")),
            ("new", None, Some("has no token of the new client yet")),
            ("new", Some("new"), None),
            ("other", Some("other"), Some("uses neither")),
        ] {
            let seen = progress(&report(configured, token_of), "old", "new");
            let seen = seen.continue_value();
            let is_expected = match (&seen, expected) {
                (Some(seen), Some(expected)) => seen.starts_with(expected),
                (seen, expected) => seen.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{configured} {token_of:?}: {seen:?}");
        }
    }
}
