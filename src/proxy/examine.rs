//! Examines a request's head: whether it is unambiguous, who sent it, which client it uses, and
//! whether it is allowed. The results go into its [`Context`], so that the log and the metrics have
//! them for a refused request too.

use std::sync::Arc;

use http::Method;
use pingora::http::RequestHeader;

use super::client::Client;
use super::context::Context;
use super::hop_by_hop;
use super::listener_state::{ListenerState, Route};
use super::local::Endpoint;
use super::respond::Refusal;
use crate::browser;
use crate::outgoing::via;
use crate::policy::method::methods;
use crate::policy::reading::PathReadings;
use crate::policy::rules::{self, Denied};
use crate::policy::target::{self, Malformed};

/// Examines a request. Its target becomes the one to forward: without the authority of an absolute
/// target, and without a stripped prefix. Returns the endpoint that answers it, unless it is
/// forwarded.
///
/// # Errors
/// [`Refusal`] says why it is not served.
pub(super) fn examine(
    context: &mut Context<'_>,
    request: &mut RequestHeader,
) -> Result<Option<Endpoint>, Refusal> {
    let state = Arc::clone(&context.state);
    let state = &*state;
    let peer = &context.connection.peer;
    if via::is_loop(&request.headers) {
        return Err(Refusal::Loop);
    }
    if target::is_forbidden(&request.method) {
        return Err(Refusal::Method);
    }
    target::check_headers(request.version, &request.headers)?;
    let named = match (&state.forward, &peer.tunnel) {
        (None, None) => check_form(state, request)?,
        (Some(forward), _) => Some(forward.check_form(peer, request)?),
        // the listener was a forward proxy when the tunnel was opened
        (None, Some(tunnel)) => return Err(Refusal::OtherHost(tunnel.host.clone())),
    };
    match named {
        Some(client) => context.client = Arc::clone(client),
        None if state.routes.is_empty() => {}
        None => route(state, context, request)?,
    }
    let methods = methods(&request.method, &request.headers, request.uri.query());
    let methods = methods.ok_or(Refusal::Method)?;
    if methods.iter().any(target::is_forbidden) {
        return Err(Refusal::Method);
    }
    let paths = PathReadings::of(request.uri.path())?;

    let client = Arc::clone(&context.client);
    let token_path = &client.upstream.instance().token_path;
    let callers = context.callers();
    if let Some(endpoint) = Endpoint::of(&request.method, &paths, token_path, state.policy.sessions)
    {
        // a caller that is already identified need not send credentials
        let by_proxy = || callers.by_proxy_authorization(peer, &request.headers);
        if let Some(identity) = callers.by_connection(peer).or_else(by_proxy) {
            context.identified(identity);
        }
        return Ok(Some(endpoint));
    }
    let Some(identity) = callers.identify(peer, &request.headers) else {
        context.claimed_app = callers.claimed(&request.headers);
        return Err(match &state.forward {
            Some(_) if peer.tunnel.is_none() => Refusal::ProxyAuthentication,
            _ => Refusal::UnknownApp,
        });
    };
    context.identified(identity);
    if let Some(forward) = &state.forward {
        forward.check_client(&client, &context.client)?;
    }
    let token_path = &context.client.upstream.instance().token_path;
    if paths.any(|path| rules::is_at_or_below(path, token_path)) {
        return Err(Refusal::Denied(Denied::TokenEndpoint));
    }
    hop_by_hop::check(&request.headers)?;
    check_policy(context, &methods, &paths)?;
    if let Some(app) = context.identity.app() {
        let admitted = app.limiter.admit(context.clock().now());
        context.admitted = Some(admitted.map_err(Refusal::AppLimit)?);
    }
    Ok(None)
}

/// Checks the request with the `method` that its body names in place of its own.
///
/// # Errors
/// [`Refusal`], as for a method in a header.
pub(super) fn judge_method(
    context: &Context<'_>,
    request: &RequestHeader,
    method: Method,
) -> Result<(), Refusal> {
    if target::is_forbidden(&method) {
        return Err(Refusal::Method);
    }
    let paths = PathReadings::of(request.uri.path())?;
    check_policy(context, &[method], &paths)
}

/// Checks that neither the policy nor the app's own `allow` denies one of `methods`.
fn check_policy(
    context: &Context<'_>,
    methods: &[Method],
    paths: &PathReadings<'_>,
) -> Result<(), Refusal> {
    if let Some(denied) = context.state.policy.denied(methods, paths) {
        return Err(Refusal::Denied(denied));
    }
    if let Some(app) = context.identity.app()
        && let Some(allow) = &app.config.allow
        && !rules::allows(allow, methods, paths)
    {
        let app = app.name().to_string();
        return Err(Refusal::Denied(Denied::NotAllowed { app }));
    }
    Ok(())
}

/// Checks that the target is unambiguous and the request sent by a program, not a page. An absolute
/// target becomes its path; if it names an instance, that instance's client is returned.
fn check_form<'a>(
    state: &'a ListenerState,
    request: &mut RequestHeader,
) -> Result<Option<&'a Arc<Client>>, Refusal> {
    let hosts = &state.listener.hosts;
    let host = target::host(&request.headers)?;
    let host_is_accepted = state.listener.accepts(&host);
    let mut named = None;
    let is_ours = |host: &str| {
        named = state.client_at(host);
        named.is_some() || browser::is_accepted(hosts, host)
    };
    let path = target::check_target(request.raw_path(), is_ours)?;
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
    context: &mut Context<'_>,
    request: &mut RequestHeader,
) -> Result<(), Refusal> {
    let paths = PathReadings::of(request.uri.path())?;
    let route = state.route(paths.likely());
    let client =
        |route: Option<&Route>| Arc::as_ptr(route.map_or(&state.client, |route| &route.client));
    if !paths.all(|path| client(state.route(path)) == client(route)) {
        return Err(Malformed::Route.into());
    }
    let Some(route) = route else {
        return Ok(());
    };
    context.client = Arc::clone(&route.client);
    if !route.strip {
        return Ok(());
    }
    // the prefix to strip must appear literally
    let rest = request.raw_path().strip_prefix(route.prefix.as_bytes());
    let rest = rest.filter(|rest| matches!(rest.first(), None | Some(b'/' | b'?')));
    let rest = rest.ok_or(Malformed::Route)?;
    let rest = [b"/".as_slice(), rest.strip_prefix(b"/").unwrap_or(rest)].concat();
    // the rest was not the start of a path before, so check it as one
    target::check_target(&rest, |_| false)?;
    let set = request.set_raw_path(&rest);
    set.map_err(|_| Malformed::TargetForm)?;
    context.stripped = Some(Arc::clone(&route.prefix));
    Ok(())
}
