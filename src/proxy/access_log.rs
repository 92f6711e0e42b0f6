//! One line for each request: who asked for what, and how it went. Never a query, a header value
//! or a body.

use std::time::Duration;

use tracing::info;

use super::caller::Caller;
use super::context::Context;
use super::respond::Refusal;

/// Writes the line of a request that has ended with `status` (0: no answer was sent) after `took`.
pub(super) fn write(
    caller: &Caller,
    context: &Context,
    status: u16,
    took: Duration,
    error: Option<String>,
) {
    let request = caller.head();
    info!(
        target: "access",
        listener = %context.plan.listener.name,
        client = %context.client.name,
        app = context.app().map(|name| &**name),
        request_id = context.id.as_ref().and_then(|id| id.to_str().ok()),
        method = %request.method,
        path = request.uri.path(),
        status,
        bytes = caller.body_bytes_sent(),
        milliseconds = millis(took),
        upstream_milliseconds = context.upstream.map(millis),
        token_generation = context.generation,
        replayed = context.replayed.then_some(true),
        refused = context.refusal.as_ref().map(Refusal::reason),
        error,
    );
}

fn millis(span: Duration) -> f64 {
    // to the microsecond
    (span.as_secs_f64() * 1e6).round() / 1e3
}
