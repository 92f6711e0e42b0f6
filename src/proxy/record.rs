//! The record of a request that has ended: counted in the metrics, logged as one line, and its span
//! closed. Never a query, a body, or a header value but the caller's address as trusted proxies
//! report it and, if it is configured, the user agent. The line is formatted and written on a
//! thread of its own.

use std::sync::Arc;

use http::header::USER_AGENT;

use super::caller::Caller;
use super::context::Context;
use crate::downstream::forwarded;
use crate::telemetry::access::{self, Record, RequestId};
use crate::telemetry::{Ended, Label as _, Source};
use crate::trace::EndedRequest;

/// Writes the record of the request of `caller`, which ended now. `request_bytes` of its body were
/// read.
pub(super) fn write(caller: &Caller, context: &mut Context<'_>, request_bytes: usize) {
    let took = context.clock().now().since(context.started);
    let (span, error) = (context.span.take(), context.error.take());
    let ended = Ended {
        method: caller.method().into(),
        status: context.status,
        cut: context.cut,
        source: context.upstream.map_or(Source::Proxy, |_| Source::Instance),
        duration: took,
        upstream: context.upstream,
        request_bytes: u64::try_from(request_bytes).unwrap_or(u64::MAX),
        response_bytes: caller.body_bytes_sent(),
        trace_id: span.as_ref().map(|span| span.trace_id()),
    };
    context.in_flight().count(&ended);
    let (state, request, app) = (&context.state, caller.head(), context.app());
    let refused = context.refused.map(|reason| reason.label());
    if let Some(span) = span {
        span.end(&EndedRequest {
            at: context.clock().wall(),
            path: request.uri.path(),
            status: context.status,
            instance: &context.client.upstream.instance().host,
            listener: &state.listener.name,
            client: &context.client.name,
            app: app.map(|app| &**app),
            refused,
            error: error.as_deref(),
        });
    }
    if !state.access_log || !access::is_on() {
        return;
    }
    let peer = context.connection.peer.address;
    let trusted = &state.listener.trusted_proxies;
    let by_proxies = peer.filter(|_| !trusted.is_empty());
    let user_agent = || request.headers.get(USER_AGENT).cloned();
    access::write(Record {
        at: context.clock().wall(),
        listener: Arc::clone(&state.listener.name),
        peer,
        forwarded: by_proxies
            .and_then(|peer| forwarded::caller(&request.headers, peer.ip(), trusted)),
        client: Arc::clone(&context.client.name),
        app: app.map(Arc::clone),
        claimed_app: context.claimed_app.clone(),
        request_id: context.id.clone().map(RequestId::Given),
        trace_id: ended.trace_id,
        method: request.method.clone(),
        uri: request.uri.clone(),
        user_agent: state.log_user_agent.then(user_agent).flatten(),
        status: context.status,
        bytes: ended.response_bytes,
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused,
        cut: context.cut,
        error,
    });
}
