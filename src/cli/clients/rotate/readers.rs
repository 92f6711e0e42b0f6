//! The running proxies that use a client, as their admin addresses tell.

use std::time::Duration;

use anyhow::bail;

use crate::admin::report::StatusReport;
use crate::cli::admin_client::{AdminClient, Target};
use crate::cli::status;
use crate::clock::{Clock, SystemClock};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Running proxies.
#[derive(Debug)]
pub(super) struct Readers(Vec<AdminClient>);

/// Which client a proxy uses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Uses {
    /// The one that is replaced: configured so, or by the token in hand.
    Old,
    /// The successor, and a token of its own.
    New,
    /// The successor, but it has no token of its own yet; with what failed last.
    Soon(Option<String>),
    /// None of both.
    Neither,
}

impl Readers {
    /// Those at `addresses`.
    ///
    /// # Errors
    /// As for [`AdminClient::at`].
    pub(super) fn at(addresses: &[Target]) -> anyhow::Result<Readers> {
        let clients = addresses.iter().cloned().map(AdminClient::at);
        Ok(Readers(clients.collect::<anyhow::Result<_>>()?))
    }

    /// Their addresses.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(AdminClient::address).collect();
        names.join(", ")
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That each of them uses `old` now.
    ///
    /// # Errors
    /// Which does not answer, or uses another client.
    pub(super) async fn all_use(&self, old: &str) -> anyhow::Result<()> {
        for reader in &self.0 {
            let (_, report) = status::report(reader).await?;
            let address = reader.address();
            let tokens = report.clients.iter().filter_map(|c| c.token.as_ref());
            if tokens.clone().any(|token| token.client_id.is_empty()) {
                bail!(
                    "the proxy at {address} does not tell whose token it holds, for it is of version {}: update it first",
                    report.version
                );
            }
            if uses(&report, old, "") != Uses::Old {
                bail!("the proxy at {address} does not use {old}: leave it out, or name another");
            }
        }
        Ok(())
    }

    /// That none of them uses `id`.
    ///
    /// # Errors
    /// Which does, or does not answer.
    pub(super) async fn none_uses(&self, id: &str) -> anyhow::Result<()> {
        for reader in &self.0 {
            let (_, report) = status::report(reader).await?;
            if uses(&report, id, "") == Uses::Old {
                bail!("the proxy at {} uses {id}", reader.address());
            }
        }
        Ok(())
    }

    /// Waits until each of them has a token of `new`, and none of `old`.
    ///
    /// # Errors
    /// What the first of them did last that is not there after `patience`.
    pub(super) async fn take_over(
        &self,
        old: &str,
        new: &str,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let deadline = SystemClock.now() + patience;
        for reader in &self.0 {
            loop {
                let seen = match status::report(reader).await {
                    Ok((_, report)) => uses(&report, old, new),
                    Err(error) if SystemClock.now() >= deadline => return Err(error),
                    // it may be restarting
                    Err(_) => Uses::Neither,
                };
                if seen == Uses::New {
                    break;
                }
                if SystemClock.now() >= deadline {
                    let limit = humantime::format_duration(patience);
                    let address = reader.address();
                    bail!("after {limit} the proxy at {address} {}", seen.in_words());
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

impl Uses {
    fn in_words(&self) -> String {
        match self {
            Uses::Old => "still uses the old client; does it read the same file?".to_owned(),
            Uses::New => "uses the new client".to_owned(),
            Uses::Soon(None) => "has no token of the new client yet".to_owned(),
            Uses::Soon(Some(why)) => format!("gets no token of the new client: {why}"),
            Uses::Neither => "uses neither the old client nor the new one".to_owned(),
        }
    }
}

fn uses(report: &StatusReport, old: &str, new: &str) -> Uses {
    let of_old = report.clients.iter().any(|client| {
        let token = client.token.as_ref();
        client.client_id == old || token.is_some_and(|token| token.client_id == old)
    });
    if of_old {
        return Uses::Old;
    }
    let Some(client) = report.clients.iter().find(|client| client.client_id == new) else {
        return Uses::Neither;
    };
    match &client.token {
        Some(token) if token.usable && token.client_id == new => Uses::New,
        _ => Uses::Soon(
            client
                .failure
                .as_ref()
                .map(|failure| failure.message.clone()),
        ),
    }
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
            ("old", Some("old"), Uses::Old),
            ("old", None, Uses::Old),
            ("new", Some("old"), Uses::Old),
            ("new", None, Uses::Soon(None)),
            ("new", Some("new"), Uses::New),
            ("other", Some("other"), Uses::Neither),
        ] {
            let report = report(configured, token_of);
            assert_eq!(
                uses(&report, "old", "new"),
                expected,
                "{configured} {token_of:?}"
            );
        }
    }
}
