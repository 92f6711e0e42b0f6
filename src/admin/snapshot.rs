//! Builds the status report of this moment.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::report::{
    ApiFailureReport, ApiReport, AppReport, CertificateReport, ClientReport, FailureReport,
    ListenerReport, NextKind, NextReport, PoolReport, RefusedReport, RequestsReport, StatusReport,
    StoreReport, TokenReport, TokenRequestReport,
};
use super::view::{Certificate, ClientView, View};
use crate::clock::{Instant, millis};
use crate::telemetry::{Label, TokenRequest};
use crate::token::cache::NextAttempt;
use crate::token::ports::Membership;

impl View {
    /// Reports the current state of the proxy.
    #[must_use]
    pub fn report(&self) -> StatusReport {
        let now = self.clock.now();
        let parts = self.parts.load();
        let clients = parts.clients.iter().map(|c| self.client(c, now));
        let clients: Vec<_> = clients.collect();
        let draining = self.draining.load(Ordering::Relaxed);
        let listener = |listener: &ListenerReport| ListenerReport {
            connections: self.metrics.listener(&listener.name).connections(),
            ..listener.clone()
        };
        StatusReport {
            version: self.version.to_owned(),
            at: timestamp(self.clock.wall()),
            started: timestamp(self.started),
            uptime_seconds: now.since(self.up_since).as_secs(),
            ready: !draining && clients.iter().all(ClientReport::is_usable),
            draining,
            refused_configuration: self.refused.load().as_deref().map(|refused| RefusedReport {
                since: self.time(refused.since),
                seconds_ago: now.since(refused.since).as_secs(),
                faults: refused.faults.clone(),
            }),
            clients,
            apps: parts.apps.iter().map(|app| self.app(app)).collect(),
            listeners: parts.listeners.iter().map(listener).collect(),
            certificates: parts
                .certificates
                .iter()
                .filter_map(|certificate| self.certificate(certificate))
                .collect(),
        }
    }

    fn client(&self, client: &ClientView, now: Instant) -> ClientReport {
        let status = client.slot.status();
        let metrics = self.metrics.client(&client.name);
        let totals = self.metrics.client_totals(&client.name);
        let latency = self.metrics.store(client.store_kind).latency();
        let token_requests = metrics.last_token_requests().into_iter();
        let issued_to = status.issued_to.as_ref();
        let health = client.api.summary(now);
        ClientReport {
            name: client.name.to_string(),
            instance: client.instance.clone(),
            client_id: client.client_id.to_string(),
            token: status.token.map(|token| TokenReport {
                usable: token.is_usable(now),
                rejected: status.rejected,
                revoked: status.revoked,
                client_id: issued_to.map(ToString::to_string).unwrap_or_default(),
                generation: token.generation(),
                issued: self.time(token.issued()),
                expires: self.time(token.expires()),
                seconds_left: token.expires().since(now).as_secs(),
            }),
            next: match status.next {
                NextAttempt::InFlight => NextReport {
                    kind: NextKind::Answer,
                    at: None,
                    in_seconds: None,
                },
                NextAttempt::At(at) => NextReport {
                    kind: NextKind::Request,
                    at: Some(self.time(at)),
                    in_seconds: Some(whole_seconds(at.since(now))),
                },
            },
            failure: status.failure.map(|failure| FailureReport {
                outcome: failure.error.outcome.label().to_owned(),
                message: failure.error.message,
                at: self.time(failure.at),
                seconds_ago: now.since(failure.at).as_secs(),
                in_a_row: failure.in_a_row,
            }),
            pool: PoolReport {
                available: hundredths(status.pool.available(now)),
                capacity: status.pool.config().capacity,
            },
            requests: RequestsReport {
                total: totals.answered,
                in_flight: totals.in_flight,
                failed: totals.failed,
                rejected: metrics.token_rejected_total(),
                lately: self.past().lately(&client.name),
            },
            store: Some(StoreReport {
                kind: client.store_kind.to_owned(),
                problem: status.store_problem.map(|problem| problem.to_string()),
                latency_milliseconds: latency.map(|took| hundredths(took.as_secs_f64() * 1e3)),
                replicas: match client.store.membership() {
                    Membership::Member { all, .. } => Some(all),
                    Membership::Single | Membership::Unknown => None,
                },
            }),
            token_requests: token_requests.map(token_request).collect(),
            api: Some(ApiReport {
                answered: health.answered,
                failed: health.failed,
                failing_since: health.since.map(|since| self.time(since)),
                failing_seconds: health.since.map(|since| now.since(since).as_secs()),
                last_failure: health.last.map(|last| ApiFailureReport {
                    kind: last.kind.label().to_owned(),
                    message: last.message,
                    at: self.time(last.at),
                    seconds_ago: now.since(last.at).as_secs(),
                }),
            }),
        }
    }

    fn app(&self, app: &AppReport) -> AppReport {
        let metrics = self.metrics.app(&app.name);
        let totals = metrics.totals();
        let (rate, last_seen) = self.past().app_lately(&app.name);
        AppReport {
            requests: totals.answered,
            local_tokens: metrics.local_tokens_total(),
            failed: totals.failed,
            in_flight: totals.in_flight,
            rate: hundredths(rate),
            last_seen: last_seen.map(timestamp),
            ..app.clone()
        }
    }

    fn certificate(&self, certificate: &Certificate) -> Option<CertificateReport> {
        let expires = timestamp(certificate.expires.get()?);
        let seconds = expires.as_second() - timestamp(self.clock.wall()).as_second();
        Some(CertificateReport {
            kind: certificate.kind.label().to_owned(),
            name: certificate.name.to_string(),
            expires,
            days_left: seconds.div_euclid(24 * 3_600),
        })
    }

    /// The wall-clock time of `at`.
    fn time(&self, at: Instant) -> Timestamp {
        timestamp(self.clock.wall_at(at))
    }
}

fn token_request(request: TokenRequest) -> TokenRequestReport {
    TokenRequestReport {
        at: timestamp(request.at),
        outcome: request.outcome.to_owned(),
        milliseconds: millis(request.took),
    }
}

/// Rounds to the precision that readers need.
fn hundredths(level: f64) -> f64 {
    (level * 100.0).round() / 100.0
}

/// Rounds up to whole seconds.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Rounds to the nearest second: each report converts the moment to wall-clock time again, and
/// finer values would vary between reports.
fn timestamp(at: SystemTime) -> Timestamp {
    let exact = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    exact.round(jiff::Unit::Second).unwrap_or(exact)
}

#[cfg(test)]
mod tests;
