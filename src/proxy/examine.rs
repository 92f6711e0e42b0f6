//! Examines a request's head: whether it is unambiguous, who sent it, which client it uses, and
//! whether it is allowed. The results go into its [`Context`], so that the log and the metrics have
//! them for a refused request too.

use std::sync::Arc;

use http::Method;
use pingora::http::RequestHeader;

use super::context::Context;
use super::forward;
use super::hop_by_hop;
use super::identify::{Caller, ConnectionIdentity, Known};
use super::listener_state::{Client, ListenerState, Route};
use super::local::Endpoint;
use super::peer::Peer;
use super::policy::{self, Denied, PathReadings};
use super::respond::Refusal;
use super::target::{self, Malformed};
use crate::browser;
use crate::clock::Clock;
use crate::outgoing::via;

/// How to handle an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// Forward it to the instance.
    Forward,
    /// Answer it here.
    Answer(Endpoint),
}

/// Examines a request from `peer`. Its target becomes the one to forward: without the authority of
/// an absolute target, and without a stripped prefix.
///
/// # Errors
/// [`Refusal`] says why it is not served.
pub(super) fn examine(
    context: &mut Context,
    request: &mut RequestHeader,
    peer: &Peer,
    clock: &dyn Clock,
) -> Result<Disposition, Refusal> {
    let state = Arc::clone(&context.state);
    let state = &*state;
    let forward = state.forward.as_ref();
    check_head(request)?;
    let named = match (forward, &peer.tunnel) {
        (None, None) => check_form(state, request)?,
        (Some(forward), _) => Some(forward.check_form(state, peer, request)?),
        // the listener was a forward proxy when the tunnel was opened
        (None, Some(tunnel)) => return Err(Refusal::OtherHost(tunnel.host.clone())),
    };
    match named {
        Some(client) => context.lead_to(client),
        None if state.routes.is_empty() => {}
        None => route(state, context, request)?,
    }
    let methods = policy::methods(&request.method, &request.headers, request.uri.query());
    let methods = methods.ok_or(Refusal::Method)?;
    if methods.iter().any(target::is_forbidden) {
        return Err(Refusal::Method);
    }
    let path = request.uri.path();
    let paths = PathReadings::of(path).map_err(Refusal::Malformed)?;

    let identity = ConnectionIdentity {
        app: state.app.as_ref(),
        certificate: &peer.certificate_names,
    };
    let client = Arc::clone(&context.client);
    let token_path = &client.upstream.instance().token_path;
    let known = Known {
        apps: &state.apps,
        client: &client,
        revoked: &state.revoked,
        now: clock.wall(),
    };
    let to_proxy = forward.and_then(|_| forward::authorization(peer, &request.headers));
    if let Some(endpoint) = Endpoint::of(&request.method, &paths, token_path, state.policy.sessions)
    {
        // a caller that is already identified need not send credentials
        let by_proxy = || known.by_authorization(to_proxy?.as_bytes());
        let by_connection = identity.app(&state.apps).map(Caller::App);
        if let Some(caller) = by_connection.or_else(by_proxy) {
            context.comes_from(caller);
        }
        return Ok(Disposition::Answer(endpoint));
    }
    let Some(caller) = known.identify(identity, to_proxy, &request.headers) else {
        context.claimed_app = known.claimed(&request.headers);
        return Err(match forward {
            Some(_) if peer.tunnel.is_none() => Refusal::ProxyAuthentication,
            _ => Refusal::UnknownApp,
        });
    };
    context.comes_from(caller);
    if let Some(forward) = forward {
        forward.check_client(state, &client, &context.client)?;
    }
    let token_path = &context.client.upstream.instance().token_path;
    if paths.any(|path| policy::is_at_or_below(path, token_path)) {
        return Err(Refusal::Denied(Denied::TokenEndpoint));
    }
    hop_by_hop::check(&request.headers).map_err(Refusal::Malformed)?;
    check_policy(context, &methods, &paths)?;
    if let Caller::App(app) = &context.caller {
        let admitted = app.admit(clock.now()).map_err(Refusal::AppLimit)?;
        context.admitted = Some(admitted);
    }
    Ok(Disposition::Forward)
}

/// Whether the request may go on although its body names `method` in place of its own.
///
/// # Errors
/// [`Refusal`], as for a method in a header.
pub(super) fn judge_method(
    context: &Context,
    request: &RequestHeader,
    method: Method,
) -> Result<(), Refusal> {
    if target::is_forbidden(&method) {
        return Err(Refusal::Method);
    }
    let paths = PathReadings::of(request.uri.path()).map_err(Refusal::Malformed)?;
    check_policy(context, &[method], &paths)
}

/// Whether the policy, and what the caller may do, let `methods` through.
fn check_policy(
    context: &Context,
    methods: &[Method],
    paths: &PathReadings<'_>,
) -> Result<(), Refusal> {
    if let Some(denied) = context.state.policy.denied(methods, paths) {
        return Err(Refusal::Denied(denied));
    }
    if let Caller::App(app) = &context.caller {
        let allowed = |allow| policy::allows(allow, methods, paths);
        if !app.allow().is_none_or(allowed) {
            let app = app.name().to_string();
            return Err(Refusal::Denied(Denied::NotAllowed { app }));
        }
    }
    Ok(())
}

/// Checks that the request has not passed here before, and that its method and framing are allowed.
fn check_head(request: &RequestHeader) -> Result<(), Refusal> {
    if via::is_loop(&request.headers) {
        return Err(Refusal::Loop);
    }
    if target::is_forbidden(&request.method) {
        return Err(Refusal::Method);
    }
    target::check_headers(request.version, &request.headers).map_err(Refusal::Malformed)
}

/// Checks that the target is unambiguous and the request sent by a program, not a page. An absolute
/// target becomes its path; if it names an instance, that instance's client is returned.
fn check_form<'a>(
    state: &'a ListenerState,
    request: &mut RequestHeader,
) -> Result<Option<&'a Arc<Client>>, Refusal> {
    let hosts = &state.listener.hosts;
    let host = target::host(&request.headers).map_err(Refusal::Malformed)?;
    let host_is_accepted = state.listener.accepts(&host);
    let mut named = None;
    let is_ours = |host: &str| {
        named = state.client_at(host);
        named.is_some() || browser::is_accepted(hosts, host)
    };
    let path = target::check_target(request.raw_path(), is_ours).map_err(Refusal::Malformed)?;
    // an absolute target's authority, checked above, replaces Host (RFC 9112, section 3.2.2)
    if path.is_none() && !host_is_accepted {
        return Err(Refusal::Host {
            host: host.into_owned(),
            listener: state.listener.name.to_string(),
            accepted: hosts.clone(),
        });
    }
    if browser::is_cross_site(|host| browser::is_accepted(hosts, host), &request.headers) {
        return Err(Refusal::CrossSite);
    }
    if let Some(path) = path {
        request.set_uri(path);
    }
    Ok(named)
}

/// Selects the client by the path, and strips the route's prefix. Every reading of the path must
/// lead to the same route, because the instance may use any of them.
fn route(
    state: &ListenerState,
    context: &mut Context,
    request: &mut RequestHeader,
) -> Result<(), Refusal> {
    let ambiguous = || Refusal::Malformed(Malformed::Route);
    let paths = PathReadings::of(request.uri.path()).map_err(Refusal::Malformed)?;
    let route = state.route(paths.likely());
    let client =
        |route: Option<&Route>| Arc::as_ptr(route.map_or(&state.client, |route| &route.client));
    if !paths.all(|path| client(state.route(path)) == client(route)) {
        return Err(ambiguous());
    }
    let Some(route) = route else {
        return Ok(());
    };
    context.lead_to(&route.client);
    if !route.strip {
        return Ok(());
    }
    // the prefix to strip must appear literally
    let rest = request.raw_path().strip_prefix(route.prefix.as_bytes());
    let rest = rest.filter(|rest| matches!(rest.first(), None | Some(b'/' | b'?')));
    let rest = rest.ok_or_else(ambiguous)?;
    let rest = [b"/".as_slice(), rest.strip_prefix(b"/").unwrap_or(rest)].concat();
    // the rest was not the start of a path before, so check it as one
    target::check_target(&rest, |_| false).map_err(Refusal::Malformed)?;
    let set = request.set_raw_path(&rest);
    set.map_err(|_| Refusal::Malformed(Malformed::TargetForm))?;
    context.stripped = Some(Arc::clone(&route.prefix));
    Ok(())
}
