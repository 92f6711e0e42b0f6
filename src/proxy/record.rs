//! Records a request that has ended: counts it, logs it and ends its span. Records no query, no
//! body and no header value, except the caller's address as reported by trusted proxies and, if
//! configured, its user agent. The log's thread formats and writes the line.

use http::header::USER_AGENT;

use super::caller::Caller;
use super::context::Context;
use crate::downstream::forwarded;
use crate::telemetry::{Ended, Label as _, access};

/// Writes the record of the request of `caller`, which ended now. `request_bytes` of its body were
/// read.
pub(super) fn write(caller: &Caller, context: &mut Context<'_>, request_bytes: usize) {
    let took = context.clock().now().since(context.started);
    let (in_flight, span) = (context.take_in_flight(), context.span.take());
    let (request, state) = (caller.head(), &context.state);
    let is_logged = state.access_log && access::is_on();
    let trusted = &state.listener.trusted_proxies;
    let peer = context.connection.peer.address;
    let by_proxies = peer.filter(|_| is_logged && !trusted.is_empty());
    let user_agent = || request.headers.get(USER_AGENT);
    let ended = Ended {
        listener: &state.listener.name,
        peer,
        forwarded: by_proxies
            .and_then(|peer| forwarded::caller(&request.headers, peer.ip(), trusted)),
        client: &context.client.name,
        instance: &context.client.upstream.instance().host,
        app: context.app().map(|app| &**app),
        claimed_app: context.claimed_app.as_deref(),
        request_id: context.id.as_ref(),
        trace_id: span.as_ref().map(|span| span.trace_id()),
        method: caller.method(),
        path: request.uri.path(),
        user_agent: state.log_user_agent.then(user_agent).flatten(),
        status: context.status,
        request_bytes: u64::try_from(request_bytes).unwrap_or(u64::MAX),
        response_bytes: caller.body_bytes_sent(),
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: context.refused.map(|reason| reason.label()),
        cut: context.cut,
        error: context.error.as_deref(),
    };
    in_flight.count(&ended);
    if let Some(span) = span {
        span.end(&ended, context.clock().wall());
    }
    if is_logged {
        access::write(&ended, context.clock().wall());
    }
}
