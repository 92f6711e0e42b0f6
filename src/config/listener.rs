//! `[listener.NAME]`: an address that accepts apps' connections.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use super::context::LoadContext;
use super::location::{Field, Location};
use super::names::Names;
use super::{listener_tls, tables};
use crate::proxy::config::{Listener, Route};
use crate::socket::Address;

const DEFAULT_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The names that a listener may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets<'a> {
    /// The names of all clients.
    pub(super) clients: &'a Names,
    /// The names of all apps.
    pub(super) apps: &'a Names,
}

/// Parses a listener. `address` is its resolved address.
pub(super) fn parse(
    raw: &tables::Listener,
    address: Option<Address>,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
) -> Option<Listener> {
    let client = targets
        .clients
        .find_one(&raw.client, &raw.location, context);
    let routes = routes(&raw.route, targets.clients, context);
    let app = targets.apps.find(&raw.app, context);
    let is_a_socket = address
        .as_ref()
        .is_some_and(|address| address.tcp().is_none());
    if app.is_some() && !is_a_socket {
        context.warning(raw.at("app").fault(
            "whoever reaches this port is taken for this app",
            "listen on a unix socket that only the app may open, like \"unix:/run/app.sock\"",
        ));
    }
    let is_guarded = !targets.apps.all().is_empty() || raw.allow_unauthenticated(context);
    match (&raw.address, &address) {
        (Field::Given(spanned), Some(address)) if !address.is_local() && !is_guarded => {
            let apps = if spanned.location.in_file() {
                ", add [app.NAME] so that callers must say who they are"
            } else {
                ""
            };
            context.fault(spanned.location.fault(
                "whoever reaches this port calls Collibra with the token, and it is open \
                 beyond this machine",
                format!(
                    "listen on 127.0.0.1{apps}, or write {} if the network keeps others away",
                    spanned.location.setting("allow_unauthenticated", "true")
                ),
            ));
        }
        (Field::Absent, _) => context.fault(raw.at("address").fault(
            "the address to listen on is missing",
            format!("write `address = \"{}\"`", tables::LISTENER),
        )),
        _ => {}
    }
    let hosts = match &raw.hosts {
        Field::Given(spanned) => {
            if spanned.value.is_empty() {
                context.fault(spanned.location.fault(
                    "without an accepted host every request is refused",
                    "write the names under which apps reach this listener, like [\"localhost\"]",
                ));
            }
            hosts(&spanned.value, &spanned.location, context)
        }
        Field::Absent | Field::Faulty => default_hosts(address.as_ref()),
    };
    raw.show_as("hosts", &*hosts);
    let tls = match raw.tls.is_given {
        true => Some(listener_tls::parse(&raw.tls, context)?),
        false => None,
    };
    let header_timeout = raw.header_timeout(context);
    let max_header_bytes = raw.max_header_bytes(context);
    let max_connections = raw.max_connections(context);
    let client = client?;
    raw.show_as("client", &*client);
    Some(Listener {
        name: raw.name.clone(),
        address: address?,
        client,
        routes,
        app,
        hosts,
        trusted_proxies: raw.trusted_proxies(context),
        tls,
        upgrades: raw.upgrades(context),
        header_timeout,
        max_header_bytes: usize::try_from(max_header_bytes).ok()?,
        min_body_rate: NonZeroU32::new(raw.min_body_rate(context)),
        max_connections: usize::try_from(max_connections).ok()?,
    })
}

fn routes(raw: &[tables::Route], clients: &Names, context: &LoadContext<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for raw in raw {
        let client = clients.find_one(&raw.client, &raw.location, context);
        if raw.prefix.is_absent() {
            context.fault(raw.at("prefix").fault(
                "it does not say which paths it is for",
                "write what they begin with, like `prefix = \"/dev\"`",
            ));
        }
        let prefix = raw.prefix.given().and_then(|spanned| {
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
            "it has what a prefix cannot have",
            "write whole segments of letters, digits, `-`, `.`, `_` and `~`, like \"/dev\"",
        ))
    } else {
        Ok(prefix)
    }
}

fn default_hosts(address: Option<&Address>) -> Vec<String> {
    let mut hosts: Vec<String> = DEFAULT_HOSTS.map(str::to_owned).into();
    if let Some(ip) = address.and_then(Address::tcp).map(|tcp| tcp.ip()) {
        let written = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        if !ip.is_unspecified() && !hosts.contains(&written) {
            hosts.push(written);
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
        return Err("write each name in full: a wildcard would let any website in");
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
