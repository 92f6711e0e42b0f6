//! Decides which request a fault hits.
//!
//! Pure: it gets the time as an argument and uses no randomness. A `share` is spread evenly: with
//! 0.25, exactly every fourth request is hit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::reply;

/// The kinds of faults, as listed in messages.
const KINDS: &str = "status:NNN, hang, reset, close, empty, html, truncate, oversized, redirect, \
     slow:MILLIS, none; for tokens also expires_in:VALUE (JSON, or the word absent), token_type:VALUE";

/// The endpoint that a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Endpoint {
    /// `POST /rest/oauth/v2/token`.
    Token,
    /// Everything else except the control calls.
    Api,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Kind {
    /// Nothing: the endpoint works again.
    None,
    /// A status with a JSON error.
    Status(StatusCode),
    /// No response until the peer gives up.
    Hang,
    /// A TCP reset.
    Reset,
    /// The connection closes without a response.
    Close,
    /// 200 and an empty body.
    Empty,
    /// 200 and a login page.
    Html,
    /// 200 and half of the announced JSON, then the connection closes.
    Truncate,
    /// 200 and one mebibyte of JSON.
    Oversized,
    /// 302 to another path on the same host.
    Redirect,
    /// The response is delayed by this time (real time).
    Slow(Duration),
    /// The token has this `expires_in`, or none.
    ExpiresIn(Option<Value>),
    /// The token has this `token_type`.
    TokenType(String),
}

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(typed: String) -> Result<Self, String> {
        let (name, value) = match typed.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (&*typed, None),
        };
        let kind = match (name, value) {
            ("none", None) => Some(Self::None),
            ("hang", None) => Some(Self::Hang),
            ("reset", None) => Some(Self::Reset),
            ("close", None) => Some(Self::Close),
            ("empty", None) => Some(Self::Empty),
            ("html", None) => Some(Self::Html),
            ("truncate", None) => Some(Self::Truncate),
            ("oversized", None) => Some(Self::Oversized),
            ("redirect", None) => Some(Self::Redirect),
            ("status", Some(code)) => reply::status(code).map(Self::Status),
            ("slow", Some(millis)) => {
                let millis = millis.parse().ok();
                millis.map(|millis| Self::Slow(Duration::from_millis(millis)))
            }
            ("expires_in", Some("absent")) => Some(Self::ExpiresIn(None)),
            ("expires_in", Some(json)) => {
                let json = serde_json::from_str(json).ok();
                json.map(|json| Self::ExpiresIn(Some(json)))
            }
            ("token_type", Some(word)) => Some(Self::TokenType(word.to_owned())),
            _ => None,
        };
        kind.ok_or_else(|| format!("unknown kind `{typed}`; the kinds are {KINDS}"))
    }
}

/// A fault: the body of `POST /_simulator/faults`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    /// Where it hits requests.
    pub(super) endpoint: Endpoint,
    /// What goes wrong.
    pub(super) kind: Kind,
    /// How long it lasts, in simulated time; `None` until it is replaced.
    #[serde(rename = "for", default, deserialize_with = "duration")]
    lasts: Option<Duration>,
    /// The share of the requests that it hits, more than 0 and at most 1; `None` is 1.
    share: Option<f64>,
    /// Whether a token request without a token still takes one from the pool.
    #[serde(default)]
    pub(super) draws: bool,
    /// The `Retry-After` of a status, in seconds.
    pub(super) retry_after: Option<u64>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let typed = String::deserialize(deserializer)?;
    let parsed = humantime::parse_duration(&typed).ok();
    let wrong = || format!("`for` must be a duration such as \"30s\" or \"5m\", not `{typed}`");
    parsed.map(Some).ok_or_else(|| D::Error::custom(wrong()))
}

impl Fault {
    /// Whether it replaces the response, instead of delaying or changing it.
    pub(super) fn replaces(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Slow(_) | Kind::ExpiresIn(_) | Kind::TokenType(_)
        )
    }

    /// Waits if the response is to be delayed.
    pub(super) async fn delay(&self) {
        if let Kind::Slow(delay) = self.kind {
            tokio::time::sleep(delay).await;
        }
    }
}

struct Active {
    fault: Fault,
    until: Option<Instant>,
    /// The sum of the shares of the requests so far, less the hits.
    due: f64,
}

/// The active faults: at most one per endpoint.
#[derive(Default)]
pub(super) struct Faults(HashMap<Endpoint, Active>);

impl Faults {
    /// Activates a fault, in place of the endpoint's previous one.
    ///
    /// # Errors
    /// Why the fault cannot be; the previous one then stays active.
    pub(super) fn set(
        &mut self,
        fault: Fault,
        speed: f64,
        now: Instant,
    ) -> Result<(), &'static str> {
        let is_tokens = matches!(fault.kind, Kind::ExpiresIn(_) | Kind::TokenType(_));
        if fault.endpoint == Endpoint::Api && (is_tokens || fault.draws) {
            return Err("expires_in, token_type and `draws` are for the endpoint `token` only");
        }
        if fault.retry_after.is_some() && !matches!(fault.kind, Kind::Status(_)) {
            return Err("`retry_after` goes with `status:NNN` only");
        }
        let is_share = |share| share > 0.0 && share <= 1.0;
        if !fault.share.is_none_or(is_share) {
            return Err("`share` must be more than 0 and at most 1");
        }
        let lasts = fault.lasts.map(|lasts| lasts.min(super::LONGEST));
        let until = lasts.map(|lasts| now + lasts.div_f64(speed));
        let (endpoint, due) = (fault.endpoint, 0.0);
        match fault.kind {
            Kind::None => self.0.remove(&endpoint),
            _ => self.0.insert(endpoint, Active { fault, until, due }),
        };
        Ok(())
    }

    /// The fault that hits a request at `now`, if any.
    pub(super) fn strike(&mut self, endpoint: Endpoint, now: Instant) -> Option<Fault> {
        let active = self.0.get_mut(&endpoint);
        let active = active.filter(|active| active.until.is_none_or(|until| now < until))?;
        active.due += active.fault.share.unwrap_or(1.0);
        // slightly less than one, because shares such as 0.1 do not add up exactly
        let is_hit = active.due > 1.0 - 1e-9;
        active.due -= f64::from(is_hit);
        is_hit.then(|| active.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::clock;

    fn set(faults: &mut Faults, json: &str, now: Instant) -> Result<(), String> {
        let fault: Fault = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(faults.set(fault, 10.0, now)?)
    }

    #[test]
    fn kinds_are_read_as_documented() {
        for (typed, kind) in [
            ("none", Kind::None),
            ("status:503", Kind::Status(StatusCode::SERVICE_UNAVAILABLE)),
            ("truncate", Kind::Truncate),
            ("slow:250", Kind::Slow(Duration::from_millis(250))),
            (
                "expires_in:\"299\"",
                Kind::ExpiresIn(Some(Value::from("299"))),
            ),
            ("expires_in:-1", Kind::ExpiresIn(Some(Value::from(-1)))),
            ("expires_in:absent", Kind::ExpiresIn(None)),
            ("token_type:mac", Kind::TokenType("mac".to_owned())),
        ] {
            assert_eq!(Kind::try_from(typed.to_owned()), Ok(kind));
        }
    }

    #[test]
    fn what_is_unknown_is_refused_and_the_known_kinds_are_named() {
        let now = clock::read().steady;
        let mut faults = Faults::default();
        for kind in [
            "explode",
            "status:99",
            "status:x",
            "hang:1",
            "expires_in:{",
            "slow:-1",
        ] {
            let json = serde_json::json!({"endpoint": "token", "kind": kind}).to_string();
            let refused = set(&mut faults, &json, now).unwrap_err();
            assert!(refused.contains("truncate"), "{kind}: {refused}");
        }
        for json in [
            r#"{"endpoint":"token","kind":"hang","shares":1}"#,
            r#"{"endpoint":"disk","kind":"hang"}"#,
            r#"{"endpoint":"token","kind":"hang","share":0}"#,
            r#"{"endpoint":"token","kind":"hang","share":1.01}"#,
            r#"{"endpoint":"token","kind":"hang","for":"soon"}"#,
            r#"{"endpoint":"api","kind":"hang","draws":true}"#,
            r#"{"endpoint":"api","kind":"token_type:x"}"#,
            r#"{"endpoint":"token","kind":"hang","retry_after":3}"#,
        ] {
            assert!(set(&mut faults, json, now).is_err(), "{json}");
        }
        assert_eq!(faults.strike(Endpoint::Token, now), None);
    }

    #[test]
    fn a_fault_lasts_as_long_as_told_in_collibra_time() {
        let now = clock::read().steady;
        let mut faults = Faults::default();
        set(
            &mut faults,
            r#"{"endpoint":"api","kind":"hang","for":"30s"}"#,
            now,
        )
        .unwrap();
        assert_eq!(faults.strike(Endpoint::Token, now), None);
        assert!(
            faults
                .strike(Endpoint::Api, now + Duration::from_millis(2999))
                .is_some()
        );
        assert_eq!(
            faults.strike(Endpoint::Api, now + Duration::from_secs(3)),
            None
        );
    }

    #[test]
    fn a_share_is_spread_evenly() {
        let now = clock::read().steady;
        for (share, every) in [(0.1, 10), (0.25, 4), (1.0, 1)] {
            let mut faults = Faults::default();
            let json = serde_json::json!({"endpoint": "api", "kind": "reset", "share": share});
            set(&mut faults, &json.to_string(), now).unwrap();
            for nth in 1..=100 {
                let hit = faults.strike(Endpoint::Api, now).is_some();
                assert_eq!(hit, nth % every == 0, "request {nth} of a share of {share}");
            }
        }
    }

    #[test]
    fn a_fault_replaces_the_one_before_and_none_lifts_it() {
        let now = clock::read().steady;
        let mut faults = Faults::default();
        set(&mut faults, r#"{"endpoint":"token","kind":"hang"}"#, now).unwrap();
        set(&mut faults, r#"{"endpoint":"token","kind":"reset"}"#, now).unwrap();
        assert_eq!(
            faults.strike(Endpoint::Token, now).unwrap().kind,
            Kind::Reset
        );
        set(&mut faults, r#"{"endpoint":"token","kind":"none"}"#, now).unwrap();
        assert_eq!(faults.strike(Endpoint::Token, now), None);
    }
}
