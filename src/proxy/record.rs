//! Records a request that has ended: counts it, logs it and ends its span. Records no query, no
//! body and no header value, except the caller's address as reported by trusted proxies and, if
//! configured, its user agent. The log's thread formats and writes the line.

use http::header::USER_AGENT;

use super::caller::Caller;
use super::context::Context;
use super::forwarded;
use super::peer::Peer;
use crate::clock::Clock;
use crate::telemetry::{Cut, Ended, Label as _, access};

/// How a request ended.
#[derive(Debug)]
pub(super) struct Sent {
    /// The status sent to the caller; 0 if none.
    pub(super) status: u16,
    /// Which side ended the exchange early.
    pub(super) cut: Option<Cut>,
    /// How much of the request's body was read.
    pub(super) request_bytes: usize,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// Writes the record of the request of `caller`, which came from `peer` and ended now.
pub(super) fn write(
    caller: &Caller,
    peer: &Peer,
    context: &mut Context,
    clock: &dyn Clock,
    sent: Sent,
) {
    let took = clock.now().since(context.started);
    let (in_flight, span) = (context.take_in_flight(), context.span.take());
    let (request, state) = (caller.head(), &context.state);
    let is_logged = state.access_log && access::is_on();
    let trusted = &state.listener.trusted_proxies;
    let by_proxies = peer.address.filter(|_| is_logged && !trusted.is_empty());
    let user_agent = || request.headers.get(USER_AGENT);
    let refusal = context.refusal.as_ref();
    let ended = Ended {
        listener: &state.listener.name,
        peer: peer.address,
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
        status: sent.status,
        request_bytes: u64::try_from(sent.request_bytes).unwrap_or(u64::MAX),
        response_bytes: caller.body_bytes_sent(),
        took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: refusal.map(|refusal| refusal.reason().label()),
        cut: sent.cut,
        error: sent.error.as_deref(),
    };
    in_flight.count(&ended);
    if let Some(span) = span {
        span.end(&ended, clock.wall());
    }
    if is_logged {
        access::write(&ended, clock.wall());
    }
}
