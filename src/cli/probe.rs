//! A call of the API that shows whether a token opens it.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Request, StatusCode};

use crate::clock::{Clock, SystemClock};
use crate::outgoing::client::Client;
use crate::outgoing::quotation::Quotation;
use crate::registration::Authorization;
use crate::secret::Secret;
use crate::upstream::Instance;

/// The timeout of the call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls `path` of `instance` once with `token`, without reading the response's body. Returns the
/// status, and how long it took. Messages name the call `what`.
///
/// # Errors
/// If there is no response; says why and what to do.
pub(super) async fn call(
    instance: &Instance,
    path: &str,
    token: &Secret,
    what: &str,
) -> anyhow::Result<(StatusCode, Duration)> {
    let http = Client::new(&instance.route(), TIMEOUT, None)?;
    let authorization = Authorization::Bearer(token.clone()).header();
    let request = Request::get(path)
        .header(ACCEPT, "application/json")
        .header(
            AUTHORIZATION,
            authorization.context("the token cannot be sent")?,
        )
        .body(Bytes::new())
        .with_context(|| path.to_owned())?;
    let quotation = Quotation::without(vec![token.clone()]);
    let began = SystemClock.now();
    let sent = http.send(request, 0, what, &quotation).await;
    let status = sent.map_err(|failure| anyhow!(failure.message))?.status;
    Ok((status, SystemClock.now().since(began)))
}

/// Parses a path to call.
///
/// # Errors
/// What to write instead.
pub(super) fn path(text: &str) -> Result<String, &'static str> {
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
        assert_eq!(path("/rest?a=1").as_deref(), Ok("/rest?a=1"));
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
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
