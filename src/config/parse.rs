//! Turns the configuration as written into settings. Continues after a fault, so that all faults
//! are reported.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::declare::{Declared, repeated};
use super::fault::{Faults, Location};
use super::listener_forward::Targets;
use super::names::Names;
use super::settings::{Admin, Client, Config, Server, Text};
use super::tables::{self, ADMIN, Tables};
use super::value::ListenerMode;
use super::{app, authority, client, instance, listener, listener_address, store, trace};
use crate::proxy::config::{App, Listener};
use crate::proxy::policy::Policy;
use crate::socket::Address;

/// Kubernetes' default time between SIGTERM and SIGKILL.
const KUBERNETES_GRACE: Duration = Duration::from_secs(30);

/// Parses all tables, which are those of `text` if there is a file.
///
/// # Errors
/// All faults.
pub(super) fn parse(
    mut raw: Tables,
    text: Option<Text>,
    context: &LoadContext<'_>,
) -> Result<Config, Faults> {
    let instance_names = names("instance", &raw.instance);
    let client_names = names("client", &raw.client);
    let app_names = names("app", &raw.app);
    demand(&raw, context);
    if raw.listener.is_empty() && !context.blames("listener") {
        let location = raw.at("listener").child("local");
        let local = tables::Listener::local(location, tables::LISTENER.into());
        raw.listener.push(local);
    }
    let raw = raw;

    let mut instances = BTreeMap::new();
    for raw in &raw.instance {
        if let Some(parsed) = instance::parse(raw, context) {
            instances.insert(parsed.instance.name.clone(), parsed);
        }
    }
    let mut clients = BTreeMap::new();
    for raw in &raw.client {
        let client = client::parse(raw, &instance_names, &instances, context);
        if let Some(client) = client {
            clients.insert(client.name.clone(), client);
        }
    }
    one_pool_each(&raw, &clients, &instances, context);

    let (admin, admin_place) = admin(&raw.admin, context);
    let uses_authority = raw.listener.iter().any(listener::uses_authority);
    let ca = authority::parse(&raw.ca, uses_authority, &instances, context);
    let targets = Targets {
        clients: &client_names,
        apps: &app_names,
        parsed: &clients,
        instances: &instances,
        authority: ca.authority.as_ref(),
    };
    let listeners = listeners(&raw, targets, &admin, &admin_place, context);
    refuse_loops(&raw, &instances, &listeners, context);
    // a variable is how the image says it, and there publishing the port decides
    if !admin.address.is_local() && !admin_place.in_environment() {
        context.warning(admin_place.fault(
            "health, metrics and status can be seen beyond this machine; none shows a secret",
            "write a loopback address unless something outside scrapes it",
        ));
    }
    let apps = app::parse(&raw.app, &client_names, &listeners, context);
    warn_of_unused(&raw, &clients, &listeners, &apps, context);
    let store = store::parse(&raw.store, context);
    let server = Server {
        threads: usize::try_from(raw.server.threads(context)).unwrap_or_default(),
        drain: raw.server.drain(context),
    };
    if let Some(spanned) = &raw.server.drain
        && server.drain > KUBERNETES_GRACE
    {
        context.warning(spanned.location.fault(
            "Kubernetes kills after 30 s by default, before this is over",
            "write at most \"30s\", or raise terminationGracePeriodSeconds above it",
        ));
    }
    let policy = Policy {
        deny: raw.policy.deny(context),
        sessions: raw.policy.sessions(context),
    };
    let (access_log, log_user_agent) = (raw.log.access(context), raw.log.user_agent(context));
    let trace = trace::parse(&raw.trace, context);
    let shown = raw.show(context);
    let (files, warnings) = context.conclude()?;
    let instances = instances.into_iter();
    Ok(Config {
        instances: instances
            .map(|(name, parsed)| (name, parsed.instance))
            .collect(),
        clients,
        apps,
        policy: Arc::new(policy),
        listeners,
        server,
        admin,
        store,
        access_log,
        log_user_agent,
        ca,
        trace,
        warnings,
        files,
        text,
        shown,
    })
}

/// The names of `tables`, which are those of `kind`.
fn names<T: Declared>(kind: &'static str, tables: &[T]) -> Names {
    let names = tables.iter().map(|table| Arc::clone(&table.name)).collect();
    Names { kind, names }
}

/// Reports a missing instance or client.
fn demand(raw: &Tables, context: &LoadContext<'_>) {
    if raw.instance.is_empty() && !context.blames("instance") {
        context.fault(raw.at("instance").fault(
            "no instance is configured, so requests have no destination",
            "write `instance.acme = { url = \"https://acme.collibra.com\" }`",
        ));
    }
    if raw.client.is_empty() && !context.blames("client") {
        context.fault(raw.at("client").fault(
            "no client is configured, so the proxy cannot request a token",
            "write `client.catalog = { client_id = \"…\", client_secret_file = \"…\" }`",
        ));
    }
}

/// Reports two clients with the same id: they share a pool, but each counts only its own requests.
fn one_pool_each(
    raw: &Tables,
    clients: &BTreeMap<Arc<str>, Client>,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    context: &LoadContext<'_>,
) {
    let pools = raw.client.iter().filter_map(|raw| {
        let client = clients.get(&raw.name)?;
        let authority = &instances[&client.instance].instance.authority;
        Some((&raw.head, (authority, client.oauth.client_id.as_str())))
    });
    for (raw, first) in repeated(pools) {
        context.fault(raw.location.fault(
            format!(
                "it has the same instance and id as [client.{}], and so the same pool of tokens",
                first.name.escape_debug()
            ),
            "keep one of the two; any number of listeners can name it",
        ));
    }
}

/// Returns the settings of the admin address, and its location.
fn admin(raw: &tables::Admin, context: &LoadContext<'_>) -> (Admin, Location) {
    let address = raw.address(context);
    let hosts = raw.hosts.as_ref();
    let hosts = hosts.map(|spanned| listener::hosts(&spanned.value, &spanned.location, context));
    let hosts = hosts.unwrap_or_default();
    raw.show_as("hosts", &*hosts);
    let mode = raw.mode.as_ref();
    let mode = mode.map(|spanned| (spanned.value, &spanned.location));
    let admin = Admin {
        address: listener_address::resolve(address, mode, raw, context),
        hosts,
    };
    let given = raw.address.as_ref().map(|spanned| spanned.location.clone());
    (admin, given.unwrap_or_else(|| raw.at("address")))
}

fn listeners(
    raw: &Tables,
    targets: Targets<'_>,
    admin: &Admin,
    admin_place: &Location,
    context: &LoadContext<'_>,
) -> Vec<Listener> {
    let mut taken: Vec<(&str, Address)> = Vec::new();
    let mut listeners = Vec::new();
    for raw in &raw.listener {
        let address = raw.address.as_ref().map(|spanned| {
            let address = spanned.value.clone();
            let mode = raw.mode.as_ref().and_then(|mode| match mode.value {
                ListenerMode::Socket(permissions) => Some((permissions, &mode.location)),
                _ => None,
            });
            let address = listener_address::resolve(address, mode, raw, context);
            let clash = |other: &str, location: &Location, remedy: String| {
                let problem = format!("[listener.{}] already listens there", other.escape_debug());
                context.fault(location.fault(problem, remedy));
            };
            let another = match address {
                Address::Tcp(_) => "write another port",
                Address::Unix { .. } => "write another path",
            };
            let clashes = |taken: &Address| listener_address::clash(taken, &address);
            if let Some((other, _)) = taken.iter().find(|(_, taken)| clashes(taken)) {
                clash(other, &spanned.location, another.to_owned());
            }
            if clashes(&admin.address) {
                let remedy = format!("{another}; the default is \"{ADMIN}\"");
                clash(&raw.name, admin_place, remedy);
            }
            taken.push((&*raw.name, address.clone()));
            address
        });
        listeners.extend(listener::parse(raw, address, targets, context));
    }
    listeners
}

/// Reports an instance whose address or forward proxy is one of the listeners. The forward proxy is
/// one where the variables that are meant for programs are set for this one too. A name is not
/// resolved here.
fn refuse_loops(
    raw: &Tables,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    context: &LoadContext<'_>,
) {
    const INSTANCE: [&str; 2] = [
        "requests would come back to this proxy",
        "write Collibra's own address, like \"https://acme.collibra.com\"",
    ];
    const PROXY: [&str; 2] = [
        "this proxy would call Collibra through itself",
        "write \"direct\", or the proxy of your network; without this key HTTPS_PROXY in the environment counts",
    ];
    for raw in &raw.instance {
        let Some(parsed) = instances.get(&raw.name) else {
            continue;
        };
        let (instance, api) = (&parsed.instance, &parsed.instance.proxy);
        let direct = ("url", &*instance.host, instance.port, INSTANCE);
        let direct = api.is_none().then_some(direct);
        let api = api
            .as_ref()
            .map(|p| ("proxy", &*p.target.host, p.target.port, PROXY));
        let token = parsed.token_proxy.as_ref();
        let token = token.map(|p| ("token_proxy", &*p.target.host, p.target.port, PROXY));
        for (key, host, port, [problem, remedy]) in direct.into_iter().chain(api).chain(token) {
            let ips = ips_of(host);
            let mut ways = listeners.iter().filter(|listener| {
                let mut ips = ips.iter();
                ips.any(|ip| listener.address.receives((*ip, port).into()))
            });
            if let Some(listener) = ways.next() {
                let name = listener.name.escape_debug();
                let problem = format!("[listener.{name}] listens there: {problem}");
                context.fault(raw.at(key).fault(problem, remedy));
            }
        }
    }
}

/// The addresses that `host` stands for, if it is one or this machine.
fn ips_of(host: &str) -> Vec<IpAddr> {
    match (host.parse(), host) {
        (Ok(ip), _) => vec![ip],
        (Err(_), "localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        (Err(_), _) => Vec::new(),
    }
}

fn warn_of_unused(
    raw: &Tables,
    clients: &BTreeMap<Arc<str>, Client>,
    listeners: &[Listener],
    apps: &BTreeMap<Arc<str>, Arc<App>>,
    context: &LoadContext<'_>,
) {
    let used: HashSet<_> = clients.values().map(|client| &client.instance).collect();
    for raw in raw.instance.iter().filter(|raw| !used.contains(&raw.name)) {
        let remedy = "remove it, or name it in a client";
        context.warning(raw.location.fault("no client uses it", remedy));
    }
    let by_listeners = listeners.iter().flat_map(|listener| {
        let by_routes = listener.routes.iter().map(|route| &route.client);
        let by_host = listener.forward.iter().flat_map(|forward| &forward.clients);
        by_routes.chain(by_host).chain([&listener.client])
    });
    let by_apps = apps.values().filter_map(|app| app.client.as_ref());
    let used: HashSet<_> = by_listeners.chain(by_apps).collect();
    for raw in raw.client.iter().filter(|raw| !used.contains(&raw.name)) {
        let problem = "no listener, route or app uses it, and yet it will hold a token";
        let remedy = "remove it, or name it in a listener";
        context.warning(raw.location.fault(problem, remedy));
    }
}
