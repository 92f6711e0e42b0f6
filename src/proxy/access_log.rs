//! Writes one log line per request: the caller, the request and its result. Never a query, a header
//! value or a body. A separate thread formats and writes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::caller::Caller;
use super::context::Context;
use crate::telemetry::Label as _;
use crate::telemetry::access::{self, Record, RequestId};

/// Writes the line of a request that ended at `at` with `status` (0 if no response was sent) after
/// `took`.
pub(super) fn write(
    caller: &Caller,
    context: &Context,
    at: SystemTime,
    status: u16,
    took: Duration,
    error: Option<String>,
) {
    let request = caller.head();
    access::write(Record {
        at,
        listener: Arc::clone(&context.plan.listener.name),
        client: Arc::clone(&context.client.name),
        app: context.app().map(Arc::clone),
        request_id: context.id.clone().map(RequestId::Given),
        method: request.method.clone(),
        uri: request.uri.clone(),
        status,
        bytes: caller.body_bytes_sent(),
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: context
            .refusal
            .as_ref()
            .map(|refusal| refusal.reason().label()),
        error,
    });
}
