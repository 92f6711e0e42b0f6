//! One line for each request: who asked for what, and how it went. Never a query, a body, or a header
//! value but the caller's address and, if that is wanted, its user agent. It is formatted and written
//! on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;

use super::caller::Caller;
use super::context::Context;
use super::forwarded;
use super::peer::Peer;
use crate::telemetry::access::{self, Record, RequestId};
use crate::telemetry::{Cut, Label as _};

/// How a request ended.
#[derive(Debug)]
pub(super) struct End {
    /// The wall-clock time at which it did.
    pub(super) at: SystemTime,
    /// The status that the caller was sent; 0: none.
    pub(super) status: u16,
    /// How long it took.
    pub(super) took: Duration,
    /// Which side ended it early.
    pub(super) cut: Option<Cut>,
    /// What went wrong.
    pub(super) error: Option<String>,
}

/// Writes the line of the request of `caller`, which came from `peer`.
pub(super) fn write(caller: &Caller, peer: &Peer, context: &Context, end: End) {
    let request = caller.head();
    let plan = &context.plan;
    let trusted = &plan.listener.trusted_proxies;
    let by_proxies = peer.address.filter(|_| !trusted.is_empty());
    let user_agent = || request.headers.get(USER_AGENT).cloned();
    access::write(Record {
        at: end.at,
        listener: Arc::clone(&plan.listener.name),
        peer: peer.address,
        forwarded: by_proxies
            .and_then(|peer| forwarded::caller(&request.headers, peer.ip(), trusted)),
        client: Arc::clone(&context.client.name),
        app: context.app().map(Arc::clone),
        claimed_app: context.claimed_app.clone(),
        request_id: context.id.clone().map(RequestId::Given),
        method: request.method.clone(),
        uri: request.uri.clone(),
        user_agent: plan.log_user_agent.then(user_agent).flatten(),
        status: end.status,
        bytes: caller.body_bytes_sent(),
        took: end.took,
        upstream: context.upstream,
        generation: context.generation,
        replayed: context.replayed,
        refused: context
            .refusal
            .as_ref()
            .map(|refusal| refusal.reason().label()),
        cut: end.cut,
        error: end.error,
    });
}
