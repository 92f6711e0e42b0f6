//! The record of a request that has ended: counted in the metrics, logged as one line, and its span
//! closed. Never a query, a body, or a header value but the caller's address as trusted proxies
//! tell it and, if that is wanted, its user agent. The line is formatted and written on a thread of
//! its own.

use std::sync::Arc;

use http::header::USER_AGENT;

use super::caller::Caller;
use super::context::Context;
use super::forwarded;
use super::peer::Peer;
use crate::clock::Clock;
use crate::telemetry::access::{self, Record, RequestId};
use crate::telemetry::{Cut, Ended, Label as _, Source};

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
    let ended = Ended {
        method: caller.method().into(),
        status: sent.status,
        cut: sent.cut,
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
    if !context.state.access_log || !access::is_on() {
        return;
    }
    let request = caller.head();
    let state = &context.state;
    let trusted = &state.listener.trusted_proxies;
    let by_proxies = peer.address.filter(|_| !trusted.is_empty());
    let user_agent = || request.headers.get(USER_AGENT).cloned();
    access::write(Record {
        at: clock.wall(),
        listener: Arc::clone(&state.listener.name),
        peer: peer.address,
        forwarded: by_proxies
            .and_then(|peer| forwarded::caller(&request.headers, peer.ip(), trusted)),
        client: Arc::clone(&context.client.name),
        app: context.app().map(Arc::clone),
        claimed_app: context.claimed_app.clone(),
        request_id: context.id.clone().map(RequestId::Given),
        trace_id,
        method: request.method.clone(),
        uri: request.uri.clone(),
        user_agent: state.log_user_agent.then(user_agent).flatten(),
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
        cut: sent.cut,
        error: sent.error,
    });
}
