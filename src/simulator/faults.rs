//! Decides which request a fault hits.
//!
//! Pure: it gets the time as an argument and uses no randomness. A `share` is spread evenly: with
//! 0.25, exactly every fourth request is hit.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::body::Unusable;

/// The kinds of faults, as listed in messages.
pub(super) const KINDS: &str = "status:NNN, hang, reset, close, empty, html, truncate, oversized, redirect, \
     slow:MILLIS, none; for tokens also expires_in:VALUE (JSON, or the word absent), token_type:VALUE";

/// The endpoint that a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Endpoint {
    /// `POST /rest/oauth/v2/token`.
    Token,
    /// Everything else except the control calls.
    Api,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// The fault replaces the response.
    Instead(Outage),
    /// The request is processed normally and its response is changed.
    Upon(Change),
}

/// What replaces a response.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outage {
    /// A status with a JSON error, and `Retry-After` in seconds.
    Status(StatusCode, Option<u64>),
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
}

/// How a response is changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It is delayed by this time (real time).
    Slow(Duration),
    /// The token has this `expires_in`, or none.
    ExpiresIn(Option<Value>),
    /// The token has this `token_type`.
    TokenType(String),
}

impl Change {
    /// Waits if the response is to be delayed.
    pub(super) async fn delay(&self) {
        if let Self::Slow(delay) = self {
            tokio::time::sleep(*delay).await;
        }
    }
}

impl Kind {
    /// Parses a kind; the outer `None` is the kind `none`.
    fn parse(typed: &str, retry_after: Option<u64>) -> Result<Option<Self>, Refused> {
        let unknown = || Refused::Kind(typed.to_owned());
        let (name, value) = match typed.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (typed, None),
        };
        let kind = match (name, value) {
            ("none", None) => return Ok(None),
            ("hang", None) => Self::Instead(Outage::Hang),
            ("reset", None) => Self::Instead(Outage::Reset),
            ("close", None) => Self::Instead(Outage::Close),
            ("empty", None) => Self::Instead(Outage::Empty),
            ("html", None) => Self::Instead(Outage::Html),
            ("truncate", None) => Self::Instead(Outage::Truncate),
            ("oversized", None) => Self::Instead(Outage::Oversized),
            ("redirect", None) => Self::Instead(Outage::Redirect),
            ("status", Some(code)) => {
                let code = code.parse().ok().filter(|code| (200..=599).contains(code));
                let code = code.and_then(|code: u16| StatusCode::from_u16(code).ok());
                Self::Instead(Outage::Status(code.ok_or_else(unknown)?, retry_after))
            }
            ("slow", Some(millis)) => {
                let millis = millis.parse().map_err(|_| unknown())?;
                Self::Upon(Change::Slow(Duration::from_millis(millis)))
            }
            ("expires_in", Some("absent")) => Self::Upon(Change::ExpiresIn(None)),
            ("expires_in", Some(json)) => {
                let json = serde_json::from_str(json).map_err(|_| unknown())?;
                Self::Upon(Change::ExpiresIn(Some(json)))
            }
            ("token_type", Some(word)) => Self::Upon(Change::TokenType(word.to_owned())),
            _ => return Err(unknown()),
        };
        Ok(Some(kind))
    }
}

/// The body of `POST /_simulator/faults`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    endpoint: Endpoint,
    kind: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    share: Option<f64>,
    draws: Option<bool>,
    retry_after: Option<u64>,
}

/// Why a fault was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The kind is unknown, or its value is malformed.
    #[error("unknown kind `{0}`; the kinds are {KINDS}")]
    Kind(String),
    /// The kind does not apply to the API.
    #[error("`{0}` and `draws` are for the endpoint `token` only")]
    TokenOnly(String),
    /// A kind that issues a token always takes it from the pool.
    #[error("`{0}` issues a token, so it always draws from the pool; leave `draws` out")]
    AlwaysDraws(String),
    /// A `Retry-After` without a status.
    #[error("`retry_after` goes with `status:NNN` only, not with `{0}`")]
    RetryAfter(String),
    /// A malformed duration.
    #[error("`for` must be a duration such as \"30s\" or \"5m\", not `{0}`")]
    Duration(String),
    /// A share out of range.
    #[error("`share` must be more than 0 and at most 1, not {0}")]
    Share(f64),
    /// An unusable body.
    #[error(transparent)]
    Body(#[from] Unusable),
}

/// A fault that hits a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// What goes wrong.
    pub(super) kind: Kind,
    /// Whether a token request still takes a token from the pool.
    pub(super) draws: bool,
}

struct Active {
    fault: Fault,
    until: Option<Instant>,
    share: f64,
    due: f64,
}

/// The active faults: at most one per endpoint.
#[derive(Default)]
pub(super) struct Faults {
    token: Option<Active>,
    api: Option<Active>,
}

impl Faults {
    /// Activates a fault, in place of the endpoint's previous one.
    ///
    /// # Errors
    /// [`Refused`]; the previous fault then stays active.
    pub(super) fn set(&mut self, order: Order, speed: f64, now: Instant) -> Result<(), Refused> {
        let (endpoint, active) = order.read(speed, now)?;
        *self.at(endpoint) = active;
        Ok(())
    }

    /// The fault that hits this request, if any.
    pub(super) fn strike(&mut self, endpoint: Endpoint, now: Instant) -> Option<Fault> {
        let place = self.at(endpoint);
        let active = place.as_mut()?;
        if active.until.is_some_and(|until| now >= until) {
            *place = None;
            return None;
        }
        active.due += active.share;
        // slightly less than one, because shares such as 0.1 do not add up exactly
        if active.due < 1.0 - 1e-9 {
            return None;
        }
        active.due -= 1.0;
        Some(active.fault.clone())
    }

    /// Removes all faults.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn at(&mut self, endpoint: Endpoint) -> &mut Option<Active> {
        match endpoint {
            Endpoint::Token => &mut self.token,
            Endpoint::Api => &mut self.api,
        }
    }
}

impl Order {
    fn read(self, speed: f64, now: Instant) -> Result<(Endpoint, Option<Active>), Refused> {
        let Some(kind) = Kind::parse(&self.kind, self.retry_after)? else {
            return Ok((self.endpoint, None));
        };
        let token_only = matches!(
            kind,
            Kind::Upon(Change::ExpiresIn(_) | Change::TokenType(_))
        );
        if self.endpoint == Endpoint::Api && (token_only || self.draws.is_some()) {
            return Err(Refused::TokenOnly(self.kind));
        }
        let issues = matches!(kind, Kind::Upon(_));
        if issues && self.draws == Some(false) {
            return Err(Refused::AlwaysDraws(self.kind));
        }
        if self.retry_after.is_some() && !matches!(kind, Kind::Instead(Outage::Status(..))) {
            return Err(Refused::RetryAfter(self.kind));
        }
        let share = self.share.unwrap_or(1.0);
        if !(share > 0.0 && share <= 1.0) {
            return Err(Refused::Share(share));
        }
        let until = self
            .lasts
            .map(|typed| lasts_until(&typed, speed, now))
            .transpose()?;
        let fault = Fault {
            kind,
            draws: self.draws.unwrap_or(issues),
        };
        Ok((
            self.endpoint,
            Some(Active {
                fault,
                until,
                share,
                due: 0.0,
            }),
        ))
    }
}

fn lasts_until(typed: &str, speed: f64, now: Instant) -> Result<Instant, Refused> {
    let refused = || Refused::Duration(typed.to_owned());
    let collibra_time = humantime::parse_duration(typed).map_err(|_| refused())?;
    let real = Duration::try_from_secs_f64(collibra_time.as_secs_f64() / speed);
    real.ok()
        .and_then(|real| now.checked_add(real))
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::clock;

    fn set(faults: &mut Faults, json: &str, now: Instant) -> Result<(), String> {
        let order: Order = serde_json::from_str(json).map_err(|error| error.to_string())?;
        faults
            .set(order, 10.0, now)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_are_read_as_documented() {
        let outage = |typed| match Kind::parse(typed, None).unwrap() {
            Some(Kind::Instead(outage)) => outage,
            other => panic!("{typed}: {other:?}"),
        };
        let change = |typed| match Kind::parse(typed, None).unwrap() {
            Some(Kind::Upon(change)) => change,
            other => panic!("{typed}: {other:?}"),
        };
        assert_eq!(
            outage("status:503"),
            Outage::Status(StatusCode::SERVICE_UNAVAILABLE, None)
        );
        assert_eq!(outage("truncate"), Outage::Truncate);
        assert_eq!(change("slow:250"), Change::Slow(Duration::from_millis(250)));
        assert_eq!(
            change("expires_in:\"299\""),
            Change::ExpiresIn(Some(Value::from("299")))
        );
        assert_eq!(
            change("expires_in:-1"),
            Change::ExpiresIn(Some(Value::from(-1)))
        );
        assert_eq!(change("expires_in:absent"), Change::ExpiresIn(None));
        assert_eq!(
            change("token_type:mac"),
            Change::TokenType("mac".to_owned())
        );
        assert_eq!(Kind::parse("none", None).unwrap(), None);
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
            r#"{"endpoint":"token","kind":"hang","for":"soon"}"#,
            r#"{"endpoint":"api","kind":"hang","draws":true}"#,
            r#"{"endpoint":"api","kind":"token_type:x"}"#,
            r#"{"endpoint":"token","kind":"slow:1","draws":false}"#,
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
        for (share, hits) in [(0.1, 10), (0.25, 25), (1.0, 100)] {
            let mut faults = Faults::default();
            let json = serde_json::json!({"endpoint": "api", "kind": "reset", "share": share});
            set(&mut faults, &json.to_string(), now).unwrap();
            let hit = (0..100)
                .filter(|_| faults.strike(Endpoint::Api, now).is_some())
                .count();
            assert_eq!(hit, hits, "{share}");
        }
    }

    #[test]
    fn only_kinds_that_issue_a_token_draw_unless_told_otherwise() {
        let now = clock::read().steady;
        for (json, draws) in [
            (r#"{"endpoint":"token","kind":"status:500"}"#, false),
            (
                r#"{"endpoint":"token","kind":"status:500","draws":true}"#,
                true,
            ),
            (r#"{"endpoint":"token","kind":"expires_in:0"}"#, true),
        ] {
            let mut faults = Faults::default();
            set(&mut faults, json, now).unwrap();
            let fault = faults.strike(Endpoint::Token, now).unwrap();
            assert_eq!(fault.draws, draws, "{json}");
        }
    }

    #[test]
    fn an_order_replaces_the_one_before_and_none_lifts_it() {
        let now = clock::read().steady;
        let mut faults = Faults::default();
        set(&mut faults, r#"{"endpoint":"token","kind":"hang"}"#, now).unwrap();
        set(&mut faults, r#"{"endpoint":"token","kind":"reset"}"#, now).unwrap();
        assert_eq!(
            faults.strike(Endpoint::Token, now).unwrap().kind,
            Kind::Instead(Outage::Reset)
        );
        set(&mut faults, r#"{"endpoint":"token","kind":"none"}"#, now).unwrap();
        assert_eq!(faults.strike(Endpoint::Token, now), None);
    }
}
