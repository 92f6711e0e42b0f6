//! Records a request that has ended: counts it in the metrics, logs one line, and ends its span.
//! Never a query, a header value or a body. A separate thread formats and writes the line.

use std::sync::Arc;

use super::caller::Caller;
use super::context::Context;
use crate::clock::Clock;
use crate::telemetry::access::{self, Record, RequestId};
use crate::telemetry::{Ended, Label as _, Source};

/// How a request ended.
#[derive(Debug)]
pub(super) struct Sent {
    /// The status sent to the caller; 0 if none.
    pub(super) status: u16,
    /// How much of the request's body was read.
    pub(super) request_bytes: usize,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// Records the request of `caller`, which ended now.
pub(super) fn write(caller: &Caller, context: &mut Context, clock: &dyn Clock, sent: Sent) {
    let took = clock.now().since(context.started);
    let ended = Ended {
        method: caller.method().into(),
        status: sent.status,
        source: context.upstream.map_or(Source::Proxy, |_| Source::Instance),
        duration: took,
        upstream: context.upstream,
        request_bytes: u64::try_from(sent.request_bytes).unwrap_or(u64::MAX),
        response_bytes: caller.body_bytes_sent(),
        trace_id: context.trace_id(),
    };
    context.in_flight().count(&ended);
    let trace_id = ended.trace_id;
    context.end_span(caller.head(), clock, sent.status, sent.error.as_deref());
    if !context.plan.access_log || !access::is_on() {
        return;
    }
    let request = caller.head();
    access::write(Record {
        at: clock.wall(),
        listener: Arc::clone(&context.plan.listener.name),
        client: Arc::clone(&context.client.name),
        app: context.app().map(Arc::clone),
        request_id: context.id.clone().map(RequestId::Given),
        trace_id,
        method: request.method.clone(),
        uri: request.uri.clone(),
        status: sent.status,
        bytes: ended.response_bytes,
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: context
            .refusal
            .as_ref()
            .map(|refusal| refusal.reason().label()),
        error: sent.error,
    });
}
