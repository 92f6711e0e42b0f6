//! One line for each request: who asked for what, and how it went. Never a query, a header value
//! or a body.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::Context;
use super::tunnel::Unreached;
use crate::outgoing::tunnel;
use crate::telemetry::access::{self, Record, RequestId};

/// Writes the line of a request that has ended at `at`, with `status` (0: no answer was sent) after
/// `took`.
pub(super) fn write(
    session: &Session,
    context: &Context,
    at: SystemTime,
    status: u16,
    took: Duration,
    error: Option<&Error>,
) {
    let request = session.req_header();
    let failed = error.filter(|e| *e.etype() != ErrorType::Custom("refused"));
    access::write(Record {
        at,
        listener: Arc::clone(&context.plan.listener.name),
        client: Arc::clone(&context.client.name),
        app: context.app().map(Arc::clone),
        request_id: context.id.clone().map(RequestId::Given),
        method: request.method.clone(),
        uri: request.uri.clone(),
        status,
        bytes: session.body_bytes_sent() as u64,
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: context
            .refusal
            .as_ref()
            .map(super::respond::Refusal::reason),
        error: failed.map(problem),
    });
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
