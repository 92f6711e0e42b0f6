//! `[listener.NAME]`: an address that accepts apps' connections.

use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use super::context::LoadContext;
use super::fault::{Location, Spanned};
use super::listener_forward::{self, Targets};
use super::names::Names;
use super::value::ListenerMode;
use super::{authority, listener_tls, tables};
use crate::proxy::config::{ANY_HOST, Listener, Route};
use crate::socket::Address;

const DEFAULT_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Returns whether a listener needs the local authority.
pub(super) fn uses_authority(raw: &tables::Listener) -> bool {
    is_forward(raw) || raw.tls.word.is_some()
}

fn is_forward(raw: &tables::Listener) -> bool {
    let mode = raw.mode.as_ref();
    mode.is_some_and(|spanned| spanned.value == ListenerMode::Forward)
}

/// Parses a listener. `address` is its resolved address.
pub(super) fn parse(
    raw: &tables::Listener,
    address: Option<Address>,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Listener> {
    let is_forward = is_forward(raw);
    match is_forward {
        true => listener_forward::check(raw, context),
        false => listener_forward::refuse(raw, context),
    }
    // a forward listener's clients are those of the instances
    let has_client = !is_forward || raw.client.is_some();
    let clients = Some(targets.clients).filter(|_| has_client);
    let client = clients.and_then(|names| names.find(&raw.client, raw, context));
    let routes = routes(&raw.route, targets.clients, context);
    let app = raw.app.as_ref();
    let app = app.and_then(|_| targets.apps.find(&raw.app, raw, context));
    let is_open = address.as_ref().is_none_or(|at| at.tcp().is_some());
    if app.is_some() && is_open {
        context.warning(raw.at("app").fault(
            "every caller of this port is treated as this app",
            "listen on a unix socket that only the app may open, like \"unix:/run/app.sock\"",
        ));
    }
    let has_apps = !targets.apps.names.is_empty();
    let is_local = address.as_ref().is_none_or(Address::is_local);
    let is_allowed = raw.allow_unauthenticated(context);
    let remedy = format!("write `address = \"{}\"`", tables::LISTENER);
    let missing = "the address to listen on is missing";
    let given = raw.demand("address", &raw.address, missing, remedy, context);
    if let Some(Spanned { location, .. }) = given.filter(|_| !is_local && !has_apps) {
        if !is_allowed {
            let apps = match location.in_file() {
                true => ", add [app.NAME] so that callers must authenticate",
                false => "",
            };
            context.fault(location.fault(
                "every program that reaches this port calls Collibra with the token, and \
                 other machines can reach it",
                format!(
                    "listen on 127.0.0.1{apps}, or write {} if the network keeps others away",
                    location.setting("allow_unauthenticated")
                ),
            ));
        } else if location.in_environment() {
            context.warning(location.fault(
                "every program that reaches this port calls Collibra with the token",
                "publish it to this machine only, like docker run --publish \
                 127.0.0.1:8080:8080, or use a configuration file with [app.NAME]",
            ));
        }
    }
    // a caller's key is what keeps web pages away then, so a foreign name gains them nothing
    let callers_authenticate = has_apps && app.is_none();
    let is_certified = raw.tls.word.is_some();
    let certified = || {
        let routes = routes.iter().map(|route| &route.client);
        let instances = targets.instances_of(client.iter().chain(routes));
        authority::hosts(instances)
    };
    let hosts = match &raw.hosts {
        Some(spanned) if spanned.value == [ANY_HOST] && callers_authenticate => {
            spanned.value.clone()
        }
        Some(spanned) => {
            if spanned.value.is_empty() {
                context.fault(spanned.location.fault(
                    "without an accepted host every request is refused",
                    "write the names under which apps reach this listener, like [\"localhost\"]",
                ));
            }
            hosts(&spanned.value, &spanned.location, context)
        }
        None if is_forward => Vec::new(),
        None if !is_local && callers_authenticate => vec![ANY_HOST.to_owned()],
        None => {
            let mut hosts = default_hosts(address.as_ref());
            // apps call it by the names on its certificate
            if is_certified {
                hosts.extend(certified());
            }
            hosts
        }
    };
    raw.show_as("hosts", &*hosts);
    let has_files = raw.tls.table.is_given;
    let has_tls = is_certified || has_files;
    let forward = is_forward.then(|| {
        listener_forward::parse(raw, client.as_ref(), is_local, has_tls, targets, context)
    });
    let tls = match &raw.tls.word {
        Some(word) => {
            let authority = targets.authority;
            let tls = listener_tls::local(word, is_forward, certified(), authority, context);
            Some(tls?)
        }
        None if has_files => {
            let tls = listener_tls::parse(&raw.tls.table, context)?;
            // a forward proxy's callers use HTTP/2 inside their tunnels
            Some(if is_forward { tls.without_http2() } else { tls })
        }
        None => None,
    };
    let forward = forward.map_or(Some(None), |forward| forward.map(Some))?;
    let by_host = forward.as_ref().and_then(|forward| forward.clients.first());
    let client = client.or_else(|| by_host.cloned());
    raw.show_as("client", client.as_deref());
    Some(Listener {
        name: raw.name.clone(),
        routes,
        forward,
        app,
        hosts,
        trusted_proxies: raw.trusted_proxies(context),
        tls,
        upgrades: raw.upgrades(context),
        header_timeout: raw.header_timeout(context),
        max_header_bytes: usize::try_from(raw.max_header_bytes(context)).ok()?,
        min_body_rate: NonZeroU32::new(raw.min_body_rate(context)),
        max_connections: usize::try_from(raw.max_connections(context)).ok()?,
        // last, since each value above may be at fault too
        client: client?,
        address: address?,
    })
}

fn routes(raw: &[tables::Route], clients: &Names, context: &LoadContext<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for raw in raw {
        let client = clients.find(&raw.client, raw, context);
        let missing = "the route has no prefix";
        let remedy = "write the beginning of its paths, like `prefix = \"/dev\"`";
        let given = raw.demand("prefix", &raw.prefix, missing, remedy, context);
        let prefix = given.and_then(|spanned| {
            let sound = prefix(&spanned.value).and_then(|prefix| {
                let is_new = !routes.iter().any(|route| *route.prefix == *prefix);
                let twice = "another route of this listener has the same prefix";
                is_new.then_some(prefix).ok_or((twice, "keep one of them"))
            });
            let report = |(problem, remedy)| context.fault(spanned.location.fault(problem, remedy));
            sound.map_err(report).ok()
        });
        if let (Some(prefix), Some(client)) = (prefix, client) {
            raw.show_as("prefix", prefix);
            raw.show_as("client", &*client);
            routes.push(Route {
                prefix: prefix.into(),
                client,
                strip: raw.strip(context),
            });
        }
    }
    routes
}

/// Parses a path prefix: whole segments, without a trailing slash.
fn prefix(text: &str) -> Result<&str, (&'static str, &'static str)> {
    let in_a_prefix = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    let prefix = text.trim_end_matches('/');
    let mut segments = prefix.split('/').skip(1);
    let odd = segments.any(|segment| matches!(segment, "" | "." | ".."));
    if !text.starts_with('/') {
        Err(("it does not begin with a slash", "write it like \"/dev\""))
    } else if prefix.is_empty() {
        Err((
            "it is the beginning of every path",
            "write it like \"/dev\"; what has no route has the listener's own client",
        ))
    } else if odd || !text.chars().all(in_a_prefix) {
        Err((
            "a prefix cannot contain this",
            "write whole segments of letters, digits, `-`, `.`, `_` and `~`, like \"/dev\"",
        ))
    } else {
        Ok(prefix)
    }
}

fn default_hosts(address: Option<&Address>) -> Vec<String> {
    let mut hosts: Vec<String> = DEFAULT_HOSTS.map(str::to_owned).into();
    let tcp = address.and_then(Address::tcp);
    if let Some(tcp) = tcp.filter(|tcp| !tcp.ip().is_unspecified()) {
        // an IPv6 address is written in brackets
        let written = tcp.to_string();
        let (host, _port) = written.rsplit_once(':').unwrap_or_default();
        if !DEFAULT_HOSTS.contains(&host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

/// Parses values of `Host`, each normalized for comparison.
pub(super) fn hosts(
    given: &[String],
    location: &Location,
    context: &LoadContext<'_>,
) -> Vec<String> {
    let mut hosts = Vec::new();
    for (index, text) in given.iter().enumerate() {
        match host(text) {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(remedy) => {
                let nth = index + 1;
                context.fault(location.fault(format!("item {nth} is no host name"), remedy));
            }
        }
    }
    hosts
}

/// Normalizes a value of `Host` for comparison.
fn host(text: &str) -> Result<String, &'static str> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<Ipv6Addr>() {
        return Ok(format!("[{ip}]"));
    }
    if text.contains("://") || text.contains('/') {
        return Err("write the host alone, without scheme and path, like \"proxy.internal\"");
    }
    if text.contains('*') {
        return Err(
            "write each name in full: a wildcard would let any website in; [\"*\"] alone is for a \
             listener whose callers all authenticate, by [app.NAME]",
        );
    }
    if text.contains(':') {
        return Err("write it without its port: any port is accepted");
    }
    let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > 253 || !text.chars().all(in_a_name) {
        return Err("write a host name or an IP address, like \"proxy.internal\"");
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_kept_in_the_form_in_which_it_is_compared() {
        for (spanned, kept) in [
            ("LocalHost", "localhost"),
            ("proxy.default.svc", "proxy.default.svc"),
            ("10.0.0.7", "10.0.0.7"),
            ("0:0::1", "[::1]"),
            ("[0:0::1]", "[::1]"),
        ] {
            assert_eq!(host(spanned).as_deref(), Ok(kept));
        }
        for spanned in ["", "*", "a b", "http://a", "a/b", "a:80", "[::1]:80", "[a]"] {
            assert!(host(spanned).is_err(), "{spanned:?}");
        }
    }
}
