//! `check --live` for a client: its store, a token, its pool, and one API call with the token.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::timeout;

use super::live::{Found, milliseconds, step};
use crate::clock::Clock;
use crate::config::Client;
use crate::oauth::client::TokenClient;
use crate::outgoing::client::Client as HttpClient;
use crate::outgoing::quotation::Quotation;
use crate::secret::Secret;
use crate::store::{self, key::Key};
use crate::token::budget::{self, Budget};
use crate::token::ports::{Outcome, Record, StoredPool, TokenEndpoint};
use crate::upstream::Instance;

/// The timeout of reading a store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of the API call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

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
    pub(super) clock: Arc<dyn Clock>,
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
        let token = step(out, "token", found)?;
        let Some((token, cost)) = token else {
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
        let store = store::build(self.store, &client.name, key, Arc::clone(&self.clock));
        let store = store.map_err(|e| e.to_string())?;
        let began = self.clock.now();
        let read = match timeout(STORE_TIMEOUT, store.read()).await {
            Ok(read) => read.map_err(|e| e.to_string())?,
            Err(_) => return Err("it does not answer".to_owned()),
        };
        let spent = milliseconds(self.clock.now().since(began));
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
        let left = (token.asked + token.lifetime).duration_since(self.clock.wall());
        let left = left.ok().filter(|left| *left >= MARGIN)?;
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        let said = format!("that of the store is good for {left}: none was taken",);
        Some(((token.access_token.clone(), 0), said))
    }

    /// Requests one token out of the pool. The token itself is never printed.
    async fn ask(&self, record: Option<&Record>) -> Found<(Secret, u32)> {
        let ready = record.map(|record| self.ready_in(record));
        if let Some(wait) = ready.filter(|wait| !wait.is_zero()) {
            let wait = humantime::format_duration(Duration::from_secs(wait.as_secs() + 1));
            return Err(format!(
                "the pool is empty, as the store has it, for {wait}; none was asked for: come again then"
            ));
        }
        let client = TokenClient::new(&self.client.oauth, None, Arc::clone(&self.clock));
        let client = client.map_err(|e| e.to_string())?;
        let began = self.clock.now();
        match client.request_token().await {
            Ok(grant) => {
                let spent = milliseconds(self.clock.now().since(began));
                let life = humantime::format_duration(grant.expires_in);
                let said = format!("one came in {spent} and lives {life}");
                Ok(((grant.access_token, 1), said))
            }
            Err(error) => {
                let empty = match error.outcome {
                    Outcome::RateLimited => " (the pool holds 0)",
                    _ => "",
                };
                Err(match error.retry_after {
                    Some(wait) => {
                        let wait = humantime::format_duration(wait);
                        format!("{error}{empty} (it wants to be asked again in {wait})")
                    }
                    None => format!("{error}{empty}"),
                })
            }
        }
    }

    /// The tokens left in the pool after `cost`.
    fn pool(&self, record: Option<&Record>, cost: u32) -> String {
        let capacity = self.client.schedule.pool.capacity;
        match record {
            Some(record) => {
                let left = self.budget(record).available(self.clock.now());
                let left = (left - f64::from(cost)).max(0.0);
                format!("{left:.1} of {capacity} left, as counted in the store")
            }
            None => format!(
                "at most {} of {capacity} left: a guess, because the requests of other processes are unknown",
                capacity.saturating_sub(cost)
            ),
        }
    }

    /// How long until a token request is allowed.
    fn ready_in(&self, record: &Record) -> Duration {
        self.budget(record).ready_at().since(self.clock.now())
    }

    fn budget(&self, record: &Record) -> Budget {
        let StoredPool {
            full_at,
            not_before,
        } = record.pool;
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let moment = |at: SystemTime| now + at.duration_since(wall).unwrap_or_default();
        let mut budget = Budget::full(self.client.schedule.pool);
        budget.restore(moment(full_at), moment(not_before), now);
        budget
    }

    /// Calls the API once with `token`, without reading the response's body.
    async fn call(&self, token: &Secret) -> Found<()> {
        let instance = self.instance;
        let http = HttpClient::new(&instance.route(), &instance.authority, CALL_TIMEOUT, None);
        let http = http.map_err(|e| e.to_string())?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| "the token cannot be sent".to_owned())?;
        authorization.set_sensitive(true);
        let request = Request::get(self.probe)
            .header(AUTHORIZATION, authorization)
            .body(Bytes::new())
            .map_err(|e| format!("{}: {e}", self.probe))?;
        let quotation = Quotation::without(vec![token.clone()]);
        let began = self.clock.now();
        let sent = http.send(request, 0, "the call", &quotation).await;
        let status = sent.map_err(|failure| failure.message)?.status;
        let spent = milliseconds(self.clock.now().since(began));
        let said = format!(
            "GET {} was answered {} in {spent}",
            self.probe,
            status.as_u16()
        );
        match advice(status) {
            None => Ok(((), said)),
            Some(advice) => Err(format!("{said}: {advice}")),
        }
    }
}

/// Returns what to do about a response to the call, unless the call succeeded.
fn advice(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        200..=299 => return None,
        300..=399 => {
            "a redirect, which is not followed; the instance's url is probably wrong, or a login page stands in between"
        }
        401 => {
            "it does not accept the token; see that the url is that of the instance whose token endpoint gave it"
        }
        403 => {
            "the registered application may not do this, or a network policy stands in the way; name another path by --probe"
        }
        404 | 405 => "there is nothing like it at this instance; name another path by --probe",
        429 => "the API's own limit is reached; come again later",
        500.. => "it failed, or what stands before it did; check Collibra's status",
        _ => "it refuses the call; name another path by --probe",
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
        humantime::format_duration(config.refill)
    )
}

/// Parses a path to call.
///
/// # Errors
/// What to write instead.
pub(super) fn probe(text: &str) -> Result<String, &'static str> {
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['\\', '#']);
    match text.starts_with('/') && !text.starts_with("//") && is_plain {
        true => Ok(text.to_owned()),
        false => Err("write a path of the API, like /rest/2.0/application/info"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_stays_at_its_instance() {
        assert_eq!(probe("/rest?a=1").as_deref(), Ok("/rest?a=1"));
        for wrong in [
            "",
            "rest",
            "//evil.example/",
            "/\\evil",
            "/a b",
            "/ä",
            "/a#b",
            "@evil/",
        ] {
            assert!(probe(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_answer_that_is_no_success_has_its_advice() {
        assert_eq!(advice(StatusCode::OK), None);
        for status in [302, 401, 403, 404, 418, 429, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(advice(status).is_some_and(|advice| !advice.is_empty()));
        }
    }
}
