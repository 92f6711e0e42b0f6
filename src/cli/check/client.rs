//! `check --live` for a client: its store, a token, its pool, and one API call with the token.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use http::StatusCode;
use humantime::format_duration;
use tokio::time::timeout;

use super::live::{Found, milliseconds, step};
use crate::cli::probe;
use crate::clock::{Clock, SystemClock};
use crate::config::Client;
use crate::oauth::client::TokenClient;
use crate::secret::Secret;
use crate::store::{self, key::Key};
use crate::token::budget::{self, Budget};
use crate::token::ports::{Outcome, Record, RequestError, StoredPool, TokenEndpoint};
use crate::upstream::Instance;

/// The timeout of reading a store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stored token with a shorter remaining lifetime is not used.
const MARGIN: Duration = Duration::from_secs(30);

/// The default path to call: every Collibra user may.
pub(super) const PROBE: &str = "/rest/2.0/application/info";

/// A client, and how to try it.
pub(super) struct Trial<'a> {
    pub(super) instance: &'a Instance,
    pub(super) client: &'a Client,
    pub(super) store: &'a store::Config,
    /// The path that is called.
    pub(super) probe: &'a str,
}

impl Trial<'_> {
    /// Tries the client, without a token if its instance was not `reached`. Returns whether every
    /// step succeeded.
    ///
    /// # Errors
    /// Only if writing to `out` fails.
    pub(super) async fn run(&self, reached: bool, out: &mut impl Write) -> io::Result<bool> {
        let name = &self.client.name;
        match reached {
            true => writeln!(out, "trying client {name}")?,
            false => writeln!(out, "not trying client {name}: see above")?,
        }
        let mut all_well = true;
        let mut record = None;
        if *self.store != store::Config::Memory {
            match step(out, "store", self.look().await)? {
                Some(kept) => record = kept,
                None => all_well = false,
            }
        }
        if !reached {
            return Ok(all_well);
        }
        if let Some(proxy) = &self.client.oauth.proxy {
            writeln!(out, "  through the proxy {proxy}")?;
        }
        let found = match self.kept(record.as_ref()) {
            Some(kept) => Ok(kept),
            None => self.ask(record.as_ref()).await,
        };
        let Some((token, cost)) = step(out, "token", found)? else {
            return Ok(false);
        };
        writeln!(out, "  pool: {}", self.pool(record.as_ref(), cost))?;
        let called = step(out, "api", self.call(&token).await)?;
        Ok(all_well && called.is_some())
    }

    /// Reads the store without changing it.
    async fn look(&self) -> Found<Option<Record>> {
        let client = self.client;
        let (instance, oauth) = (self.instance.origin(), &client.oauth);
        let key = Key::new(&instance, &oauth.client_id, &oauth.client_secret);
        let store = store::build(self.store, &client.name, key, Arc::new(SystemClock))?;
        let began = SystemClock.now();
        let read = timeout(STORE_TIMEOUT, store.read()).await;
        let read = read.context("it does not answer")??;
        let spent = milliseconds(SystemClock.now().since(began));
        let held = match &read {
            Some(record) if record.token.is_some() => format!("token {}", record.generation),
            Some(_) => "a pool and no token that opens with this secret".to_owned(),
            None => "nothing yet".to_owned(),
        };
        let said = format!("{} store, read in {spent}: {held}", self.store.kind());
        Ok((read, said))
    }

    /// Returns the stored token, with a note that it cost nothing, if it lives long enough.
    fn kept(&self, record: Option<&Record>) -> Option<((Secret, u32), String)> {
        let token = record?.token.as_ref()?;
        let left = (token.asked + token.lifetime).duration_since(SystemClock.wall());
        let left = left.ok().filter(|left| *left >= MARGIN)?;
        let left = format_duration(Duration::from_secs(left.as_secs()));
        let said = format!("the one in the store is good for {left}, so none was requested");
        Some(((token.access_token.clone(), 0), said))
    }

    /// Requests one token out of the pool. The token itself is never printed.
    async fn ask(&self, record: Option<&Record>) -> Found<(Secret, u32)> {
        let now = SystemClock.now();
        let ready = record.map(|record| self.budget(record).ready_at().since(now));
        if let Some(wait) = ready.filter(|wait| !wait.is_zero()) {
            let wait = format_duration(Duration::from_secs(wait.as_secs() + 1));
            bail!(
                "the pool is empty for another {wait}, as counted in the store: no token was requested; retry then"
            );
        }
        let client = TokenClient::new(&self.client.oauth, None, Arc::new(SystemClock))?;
        let began = SystemClock.now();
        let grant = client.request_token().await.map_err(refused)?;
        let spent = milliseconds(SystemClock.now().since(began));
        let life = format_duration(grant.expires_in);
        let said = format!("one came in {spent} and lives {life}");
        Ok(((grant.access_token, 1), said))
    }

    /// The tokens left in the pool after `cost`.
    fn pool(&self, record: Option<&Record>, cost: u32) -> String {
        let capacity = self.client.schedule.pool.capacity;
        match record {
            Some(record) => {
                let left = self.budget(record).available(SystemClock.now());
                let left = (left - f64::from(cost)).max(0.0);
                format!("{left:.1} of {capacity} left, as counted in the store")
            }
            None => format!(
                "at most {} of {capacity} left: a guess, because the requests of other processes are unknown",
                capacity.saturating_sub(cost)
            ),
        }
    }

    fn budget(&self, record: &Record) -> Budget {
        let StoredPool {
            full_at,
            not_before,
        } = record.pool;
        let (now, wall) = (SystemClock.now(), SystemClock.wall());
        let moment = |at: SystemTime| now + at.duration_since(wall).unwrap_or_default();
        let mut budget = Budget::full(self.client.schedule.pool);
        budget.restore(moment(full_at), moment(not_before), now);
        budget
    }

    /// Calls the API once with `token`.
    async fn call(&self, token: &Secret) -> Found<()> {
        let path = self.probe;
        let (status, spent) = probe::call(self.instance, path, token, "the call").await?;
        let (code, spent) = (status.as_u16(), milliseconds(spent));
        let said = format!("GET {path} was answered {code} in {spent}");
        match advice(status) {
            None => Ok(((), said)),
            Some(advice) => bail!("{said}: {advice}"),
        }
    }
}

/// Describes a failed token request.
fn refused(error: RequestError) -> anyhow::Error {
    let empty = match error.outcome {
        Outcome::RateLimited => " (the pool holds 0)",
        _ => "",
    };
    let retry = error.retry_after.map(format_duration);
    let retry = retry.map_or_else(String::new, |wait| format!(" (retry in {wait})"));
    anyhow!("{error}{empty}{retry}")
}

/// Returns what to do about a response to the call, unless the call succeeded.
fn advice(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        200..=299 => return None,
        300..=399 => {
            "a redirect, which is not followed; the instance's url is probably wrong, or a login page intercepts the call"
        }
        401 => {
            "it does not accept the token; check that the url belongs to the instance whose token endpoint issued it"
        }
        403 => {
            "the registered application may not do this, or a network policy forbids it; name another path with --probe"
        }
        404 | 405 => "this instance has no such path; name another with --probe",
        429 => "the API's own rate limit is reached; retry later",
        500.. => "the API or a proxy before it failed; check Collibra's status",
        _ => "it refuses the call; name another path with --probe",
    })
}

/// Formats the pool's size for people; marks a default.
pub(super) fn pool(config: budget::Config, is_assumed: bool) -> String {
    let assumed = if is_assumed {
        " (a guess: Collibra's own; set pool if yours is another)"
    } else {
        ""
    };
    format!(
        "a pool of {} and one more every {}{assumed}",
        config.capacity,
        format_duration(config.refill)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_that_is_no_success_has_its_advice() {
        assert_eq!(advice(StatusCode::OK), None);
        for status in [302, 401, 403, 404, 418, 429, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(advice(status).is_some_and(|advice| !advice.is_empty()));
        }
    }
}
