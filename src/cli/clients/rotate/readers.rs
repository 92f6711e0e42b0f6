//! The running proxies that use a client, as reported by their admin addresses.

use std::time::Duration;

use anyhow::bail;

use crate::admin::report::StatusReport;
use crate::cli::admin_client::{AdminClient, Target};
use crate::cli::status;
use crate::clock::{Clock, SystemClock};

/// The polling interval.
const PAUSE: Duration = Duration::from_millis(500);

/// Running proxies.
#[derive(Debug)]
pub(super) struct Readers(Vec<AdminClient>);

/// The client that a proxy uses.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ClientInUse {
    /// The replaced one: by its configuration, or by its current token.
    Old,
    /// The successor, with a token of its own.
    New,
    /// The successor, but without a token yet; with the last failure.
    Soon(Option<String>),
    /// Neither.
    Neither,
}

impl Readers {
    /// Returns the proxies at `addresses`.
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

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that each of them uses `old`.
    ///
    /// # Errors
    /// The proxy that does not answer, or uses another client.
    pub(super) async fn all_use(&self, old: &str) -> anyhow::Result<()> {
        for reader in &self.0 {
            let (_, report) = status::report(reader).await?;
            let address = reader.address();
            let tokens = report.clients.iter().filter_map(|c| c.token.as_ref());
            if tokens.clone().any(|token| token.client_id.is_empty()) {
                bail!(
                    "the proxy at {address} does not report whose token it has, because its version is {}: update it first",
                    report.version
                );
            }
            if uses(&report, old, "") != ClientInUse::Old {
                bail!("the proxy at {address} does not use {old}: leave it out, or give another");
            }
        }
        Ok(())
    }

    /// Checks that none of them uses `id`.
    ///
    /// # Errors
    /// The proxy that does, or does not answer.
    pub(super) async fn none_uses(&self, id: &str) -> anyhow::Result<()> {
        for reader in &self.0 {
            let (_, report) = status::report(reader).await?;
            if uses(&report, id, "") == ClientInUse::Old {
                bail!("the proxy at {} uses {id}", reader.address());
            }
        }
        Ok(())
    }

    /// Waits until each of them has a token of `new`, and none of `old`.
    ///
    /// # Errors
    /// The last state of the first proxy that has not switched after `patience`.
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
                    // the proxy may be restarting
                    Err(_) => ClientInUse::Neither,
                };
                if seen == ClientInUse::New {
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

impl ClientInUse {
    fn in_words(&self) -> String {
        match self {
            ClientInUse::Old => {
                "still uses the old client; check that it reads the same file".to_owned()
            }
            ClientInUse::New => "uses the new client".to_owned(),
            ClientInUse::Soon(None) => "has no token of the new client yet".to_owned(),
            ClientInUse::Soon(Some(why)) => format!("cannot get a token for the new client: {why}"),
            ClientInUse::Neither => "uses neither the old client nor the new one".to_owned(),
        }
    }
}

fn uses(report: &StatusReport, old: &str, new: &str) -> ClientInUse {
    let of_old = report.clients.iter().any(|client| {
        let token = client.token.as_ref();
        client.client_id == old || token.is_some_and(|token| token.client_id == old)
    });
    if of_old {
        return ClientInUse::Old;
    }
    let Some(client) = report.clients.iter().find(|client| client.client_id == new) else {
        return ClientInUse::Neither;
    };
    match &client.token {
        Some(token) if token.usable && token.client_id == new => ClientInUse::New,
        _ => ClientInUse::Soon(
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
            ("old", Some("old"), ClientInUse::Old),
            ("old", None, ClientInUse::Old),
            ("new", Some("old"), ClientInUse::Old),
            ("new", None, ClientInUse::Soon(None)),
            ("new", Some("new"), ClientInUse::New),
            ("other", Some("other"), ClientInUse::Neither),
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
