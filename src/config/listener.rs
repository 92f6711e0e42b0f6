//! `[listener.NAME]`: an address that accepts apps' connections.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Report;
use super::location::{Field, Location, Spanned};
use super::names::Names;
use super::parse::{LoadContext, reference};
use super::{Client, authority, instance, listener_forward, listener_tls, raw};
use crate::local_authority::Authority;
use crate::proxy::config::{ANY_HOST, Listener, Route};
use crate::socket::Address;

/// The address of the default listener.
pub(super) const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: u32 = 65_536;
const MIN_BODY_RATE: u32 = 240;
const MAX_CONNECTIONS: u32 = 10_000;

/// The names that a listener may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets<'a> {
    /// The names of all clients.
    pub(super) clients: &'a Names,
    /// The names of all apps.
    pub(super) apps: &'a Names,
    /// The clients that were parsed.
    pub(super) parsed: &'a BTreeMap<Arc<str>, Client>,
    /// The instances that were parsed.
    pub(super) instances: &'a BTreeMap<Arc<str>, instance::Parsed>,
    /// The local authority, if there is one.
    pub(super) authority: Option<&'a Authority>,
}

/// Returns whether a listener needs the local authority.
pub(super) fn uses_authority(raw: &raw::Listener) -> bool {
    let is_forward = matches!(&raw.mode, Field::Given(spanned) if spanned.value == "forward");
    is_forward || matches!(&raw.tls, Some(raw::ListenerTls::Word(_)))
}

/// Parses a listener whose address is already parsed; `forward` is where it says that it is a
/// forward proxy, if it does.
pub(super) fn parse(
    raw: raw::Listener,
    forward: Option<Location>,
    targets: Targets<'_>,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Listener> {
    if let Some(mode) = &forward {
        listener_forward::check(&raw, mode, report);
    }
    // a forward listener's clients are those of the instances
    let is_by_host = forward.is_some() && matches!(raw.client, Field::Absent);
    let client = if is_by_host {
        None
    } else {
        reference(raw.client, &raw.location, "client", targets.clients, report)
    };
    let routes = routes(raw.routes, targets.clients, report);
    let app = match raw.app {
        Field::Absent => None,
        given => reference(given, &raw.location, "app", targets.apps, report),
    };
    let is_a_socket =
        matches!(&raw.address, Field::Given(spanned) if spanned.value.tcp().is_none());
    if app.is_some() && !is_a_socket {
        report.warning(raw.location.child("app").fault(
            "whoever reaches this port is taken for this app",
            "listen on a unix socket that only the app may open, like \"unix:/run/app.sock\"",
        ));
    }
    let has_apps = !targets.apps.all().is_empty();
    let mut reach = None;
    let address = match raw.address {
        Field::Given(spanned) => {
            let is_local = spanned.value.is_local();
            let is_allowed = raw.allow_unauthenticated.or(false);
            if !is_local && !has_apps && is_allowed && spanned.location.in_environment() {
                report.warning(spanned.location.fault(
                    "every program that reaches this port calls Collibra with the token",
                    "publish it to this machine only, like docker run --publish \
                     127.0.0.1:8080:8080, or use a configuration file with [app.NAME]",
                ));
            }
            if !is_local && !has_apps && !is_allowed {
                let apps = if spanned.location.in_file() {
                    ", add [app.NAME] so that callers must say who they are"
                } else {
                    ""
                };
                report.fault(spanned.location.fault(
                    "whoever reaches this port calls Collibra with the token, and it is open \
                     beyond this machine",
                    format!(
                        "listen on 127.0.0.1{apps}, or write {} if the network keeps others away",
                        spanned.location.setting("allow_unauthenticated", "true")
                    ),
                ));
            }
            reach = Some((is_local, spanned.location));
            Some(spanned.value)
        }
        Field::Faulty => None,
        Field::Absent => {
            report.fault(raw.location.child("address").fault(
                "the address to listen on is missing",
                format!("write `address = \"{DEFAULT_ADDRESS}\"`"),
            ));
            None
        }
    };
    // a caller's key is what keeps web pages away then, so a foreign name gains them nothing
    let callers_authenticate = has_apps && app.is_none();
    let hosts = match raw.hosts {
        Field::Given(spanned) if spanned.value == [ANY_HOST] && callers_authenticate => {
            spanned.value
        }
        Field::Given(spanned) => {
            if spanned.value.is_empty() {
                report.fault(spanned.location.fault(
                    "without an accepted host every request is refused",
                    "write the names under which apps reach this listener, like [\"localhost\"]",
                ));
            }
            hosts(&spanned.value, &spanned.location, report)
        }
        Field::Absent | Field::Faulty if forward.is_some() => Vec::new(),
        Field::Absent | Field::Faulty => match &address {
            Some(address) if !address.is_local() && callers_authenticate => {
                vec![ANY_HOST.to_owned()]
            }
            address => {
                let mut hosts = default_hosts(address.as_ref());
                // apps call it by the names on its certificate
                if matches!(raw.tls, Some(raw::ListenerTls::Word(_))) {
                    hosts.extend(instance_hosts(client.as_ref(), &routes, targets));
                }
                hosts
            }
        },
    };
    let keys = listener_forward::Keys {
        others: raw.others,
        allow_remote: raw.allow_remote,
    };
    let is_forward = forward.is_some();
    let forward = match forward {
        Some(_) => {
            let known = listener_forward::Known {
                client: client.clone(),
                address: reach,
                has_tls: raw.tls.is_some(),
            };
            listener_forward::parse(keys, known, &raw.location, targets, report)
        }
        None => {
            listener_forward::refuse(keys, report);
            None
        }
    };
    let tls = match raw.tls {
        Some(raw::ListenerTls::Files(tls)) => {
            let tls = listener_tls::parse(*tls, context, report)?;
            // a forward proxy's callers use HTTP/2 inside their tunnels
            Some(if is_forward { tls.without_http2() } else { tls })
        }
        Some(raw::ListenerTls::Word(word)) => {
            let hosts = instance_hosts(client.as_ref(), &routes, targets);
            Some(listener_tls::local(
                &word,
                is_forward,
                hosts,
                targets.authority,
                report,
            )?)
        }
        None => None,
    };
    let by_host = forward.as_ref().and_then(|forward| forward.clients.first());
    let client = client.or_else(|| by_host.cloned());
    let header_timeout = raw.header_timeout.above_zero_or(HEADER_TIMEOUT, report);
    let max_header_bytes = raw.max_header_bytes.sound_or(
        MAX_HEADER_BYTES,
        |bytes| (1024..=1_048_576).contains(bytes),
        "it is out of bounds",
        "write a number of bytes from 1024 to 1048576; the default is 65536",
        report,
    );
    let max_connections = raw.max_connections.sound_or(
        MAX_CONNECTIONS,
        |&connections| connections >= 1,
        "no connection could be served",
        "write 1 or more; the default is 10000",
        report,
    );
    let trusted_proxies = raw.trusted_proxies.given();
    let trusted_proxies = trusted_proxies.map(|spanned| networks(&spanned, report));
    if is_forward && forward.is_none() {
        return None;
    }
    Some(Listener {
        name: raw.name,
        address: address?,
        client: client?,
        routes,
        forward,
        app,
        hosts,
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        tls,
        upgrades: raw.upgrades.or(false),
        header_timeout,
        max_header_bytes: usize::try_from(max_header_bytes).ok()?,
        min_body_rate: NonZeroU32::new(raw.min_body_rate.or(MIN_BODY_RATE)),
        max_connections: usize::try_from(max_connections).ok()?,
    })
}

/// The hosts of the instances of `client` and of the clients of `routes`, for the local authority.
fn instance_hosts(
    client: Option<&Arc<str>>,
    routes: &[Route],
    targets: Targets<'_>,
) -> Vec<String> {
    let clients = client
        .into_iter()
        .chain(routes.iter().map(|route| &route.client));
    let instances = clients.filter_map(|client| {
        let instance = &targets.parsed.get(client)?.instance;
        Some(&*targets.instances.get(instance)?.instance)
    });
    let mut hosts: Vec<String> = Vec::new();
    for host in authority::hosts(instances) {
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

fn routes(raw: Vec<raw::Route>, clients: &Names, report: &mut Report) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for raw in raw {
        let client = reference(raw.client, &raw.location, "client", clients, report);
        let prefix = match raw.prefix {
            Field::Faulty => None,
            Field::Absent => {
                report.fault(raw.location.child("prefix").fault(
                    "it does not say which paths it is for",
                    "write what they begin with, like `prefix = \"/dev\"`",
                ));
                None
            }
            Field::Given(spanned) => {
                let sound = prefix(&spanned.value);
                if let Err((problem, remedy)) = sound {
                    report.fault(spanned.location.fault(problem, remedy));
                }
                let sound = sound.ok();
                if sound.is_some_and(|prefix| routes.iter().any(|r| *r.prefix == *prefix)) {
                    report.fault(spanned.location.fault(
                        "another route of this listener has the same prefix",
                        "keep one of them",
                    ));
                }
                sound.map(Arc::from)
            }
        };
        if let (Some(prefix), Some(client)) = (prefix, client) {
            routes.push(Route {
                prefix,
                client,
                strip: raw.strip.or(false),
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
pub(super) fn hosts(given: &[String], location: &Location, report: &mut Report) -> Vec<String> {
    let mut hosts = Vec::new();
    for (index, text) in given.iter().enumerate() {
        match host(text) {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(remedy) => {
                let nth = index + 1;
                report.fault(location.fault(format!("item {nth} is no host name"), remedy));
            }
        }
    }
    hosts
}

/// Parses networks or single addresses.
fn networks(spanned: &Spanned<Vec<String>>, report: &mut Report) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in spanned.value.iter().enumerate() {
        let one = || text.parse().map(|ip: IpAddr| IpNet::from(ip));
        match text.parse().or_else(|_| one()) {
            Ok(network) => networks.push(network),
            Err(_) => report.fault(spanned.location.fault(
                format!("item {} is no network", index + 1),
                "write an address and how many of its bits count, like \"10.0.0.0/8\" or \"fd00::/8\"",
            )),
        }
    }
    networks
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
             listener whose callers all say who they are, by [app.NAME]",
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
