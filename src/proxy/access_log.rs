//! One line for each request: who asked for what, and how it went. Never a query, a header value
//! or a body.

use std::time::Duration;

use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;
use tracing::info;

use super::context::Context;
use super::tunnel::Unreached;
use crate::outgoing::tunnel;

/// Writes the line of a request that has ended with `status` (0: no answer was sent) after `took`.
pub(super) fn write(
    session: &Session,
    context: &Context,
    status: u16,
    took: Duration,
    error: Option<&Error>,
) {
    let request = session.req_header();
    let failed = error.filter(|e| *e.etype() != ErrorType::Custom("refused"));
    info!(
        target: "access",
        listener = %context.plan.listener.name,
        client = %context.client.name,
        app = context.app().map(|name| &**name),
        request_id = context.id.as_ref().and_then(|id| id.to_str().ok()),
        method = %request.method,
        path = request.uri.path(),
        status,
        bytes = session.body_bytes_sent(),
        milliseconds = millis(took),
        upstream_milliseconds = context.upstream.map(millis),
        token_generation = context.generation,
        replayed = context.replayed.then_some(true),
        refused = context.refusal.as_ref().map(super::respond::Refusal::reason),
        error = failed.map(problem),
    );
}

/// What went wrong, without what the other side sent.
pub(super) fn problem(e: &Error) -> String {
    let cause = e.root_cause();
    if let Some(proxy) = cause.downcast_ref::<tunnel::Error>() {
        return proxy.to_string();
    }
    if let Some(unreached) = cause.downcast_ref::<Unreached>() {
        return unreached.to_string();
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => format!("{}: {io}", e.etype().as_str()),
        None => e.etype().as_str().to_owned(),
    }
}

fn millis(span: Duration) -> f64 {
    // to the microsecond
    (span.as_secs_f64() * 1e6).round() / 1e3
}
