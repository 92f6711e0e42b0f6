//! Turns the configuration as written into settings. Continues after a fault, so that all faults
//! are reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::declare::Declared;
use super::listener_forward::Targets;
use super::location::{Field, Location};
use super::names::Names;
use super::settings::{Admin, Client, Config, Server};
use super::tables::{self, ADMIN, Tables};
use super::value::ListenerMode;
use super::watch::Files;
use super::{app, authority, client, instance, listener, listener_address, store, trace};
use crate::outgoing::tunnel::Proxy;
use crate::policy::rules::Policy;
use crate::proxy::config::{App, Listener};
use crate::socket::Address;

/// Kubernetes' default time between SIGTERM and SIGKILL.
const KUBERNETES_GRACE: Duration = Duration::from_secs(30);

/// Parses all tables. `None` only if a fault was reported.
pub(super) fn parse(mut raw: Tables, context: &LoadContext<'_>) -> Option<Config> {
    let instance_names = Names::of("instance", raw.instance.iter().map(|raw| &raw.name));
    let client_names = Names::of("client", raw.client.iter().map(|raw| &raw.name));
    let app_names = Names::of("app", raw.app.iter().map(|raw| &raw.name));
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
    refuse_own_proxy(&raw, &instances, &listeners, context);
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
        threads: usize::try_from(raw.server.threads(context)).ok()?,
        drain: raw.server.drain(context),
    };
    if let Field::Given(spanned) = &raw.server.drain
        && server.drain > KUBERNETES_GRACE
    {
        context.warning(spanned.location.fault(
            "Kubernetes kills after 30 s by default, before this is over",
            "write at most \"30s\", or raise terminationGracePeriodSeconds above it",
        ));
    }
    let instances = instances
        .into_iter()
        .map(|(name, parsed)| (name, parsed.instance));
    Some(Config {
        instances: instances.collect(),
        clients,
        apps,
        policy: Arc::new(Policy {
            deny: raw.policy.deny(context),
            sessions: raw.policy.sessions(context),
        }),
        listeners,
        server,
        admin,
        store,
        access_log: raw.log.access(context),
        log_user_agent: raw.log.user_agent(context),
        ca,
        trace: trace::parse(&raw.trace, context),
        warnings: Vec::new(),
        files: Files::default(),
        text: None,
        shown: raw.show(context),
        at_start: context.at_start.take(),
    })
}

/// Reports a missing instance or client.
fn demand(raw: &Tables, context: &LoadContext<'_>) {
    if raw.instance.is_empty() && !context.blames("instance") {
        context.fault(raw.at("instance").fault(
            "there is none, so there is nowhere to send to",
            "write `instance.acme = { url = \"https://acme.collibra.com\" }`",
        ));
    }
    if raw.client.is_empty() && !context.blames("client") {
        context.fault(raw.at("client").fault(
            "there is none, so there is nobody to ask for a token",
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
    let mut owners: HashMap<_, &Client> = HashMap::new();
    for raw in &raw.client {
        let Some(client) = clients.get(&raw.name) else {
            continue;
        };
        let authority = &instances[&client.instance].instance.authority;
        let pool = (authority, client.oauth.client_id.as_str());
        if let Some(first) = owners.get(&pool) {
            context.fault(raw.location.fault(
                format!(
                    "it has the same instance and id as [client.{}], and so the same pool of tokens",
                    first.name.escape_debug()
                ),
                "keep one of the two; any number of listeners can name it",
            ));
        } else {
            owners.insert(pool, client);
        }
    }
}

/// Returns the settings of the admin address, and its location.
fn admin(raw: &tables::Admin, context: &LoadContext<'_>) -> (Admin, Location) {
    let address = raw.address(context);
    let hosts = raw.hosts.given();
    let hosts = hosts.map(|spanned| listener::hosts(&spanned.value, &spanned.location, context));
    let hosts = hosts.unwrap_or_default();
    raw.show_as("hosts", &*hosts);
    let mode = raw.mode.given();
    let mode = mode.map(|spanned| (spanned.value, &spanned.location));
    let admin = Admin {
        address: listener_address::resolve(address, mode, raw, context),
        hosts,
    };
    let location = match &raw.address {
        Field::Given(spanned) => spanned.location.clone(),
        _ => raw.at("address"),
    };
    (admin, location)
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
        let address = raw.address.given().map(|spanned| {
            let address = spanned.value.clone();
            let mode = raw.mode.given().and_then(|mode| match mode.value {
                ListenerMode::Socket(permissions) => Some((permissions, &mode.location)),
                _ => None,
            });
            let address = listener_address::resolve(address, mode, raw, context);
            let clash = taken
                .iter()
                .find(|(_, taken)| listener_address::clash(taken, &address));
            if let Some((other, _)) = clash {
                context.fault(spanned.location.fault(
                    format!("[listener.{}] already listens there", other.escape_debug()),
                    another(&address),
                ));
            }
            if listener_address::clash(&admin.address, &address) {
                let name = raw.name.escape_debug();
                context.fault(admin_place.fault(
                    format!("[listener.{name}] already listens there"),
                    format!("{}; the default is \"{ADMIN}\"", another(&address)),
                ));
            }
            taken.push((&*raw.name, address.clone()));
            address
        });
        listeners.extend(listener::parse(raw, address, targets, context));
    }
    listeners
}

/// Reports an instance whose address is one of the listeners. A name is not resolved here.
fn refuse_loops(
    raw: &Tables,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    context: &LoadContext<'_>,
) {
    for raw in &raw.instance {
        let parsed = instances.get(&raw.name).map(|parsed| &parsed.instance);
        let Some(instance) = parsed.filter(|instance| instance.proxy.is_none()) else {
            continue;
        };
        let ips = ips_of(&instance.host);
        let is_at = |listener: &&Listener| {
            let mut ips = ips.iter();
            ips.any(|ip| listener.address.receives((*ip, instance.port).into()))
        };
        if let Some(listener) = listeners.iter().find(is_at) {
            context.fault(raw.at("url").fault(
                format!(
                    "[listener.{}] listens there: requests would come back to this proxy",
                    listener.name.escape_debug()
                ),
                "write Collibra's own address, like \"https://acme.collibra.com\"",
            ));
        }
    }
}

/// Reports an instance whose forward proxy is one of the listeners, as happens where the variables
/// that are meant for programs are set for this one too. A name is not resolved here.
fn refuse_own_proxy(
    raw: &Tables,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    context: &LoadContext<'_>,
) {
    for raw in &raw.instance {
        let Some(parsed) = instances.get(&raw.name) else {
            continue;
        };
        let of = |key, proxy| Option::<&Proxy>::map(proxy, |proxy| (key, proxy));
        let proxies = [
            of("proxy", parsed.instance.proxy.as_ref()),
            of("token_proxy", parsed.token_proxy.as_ref()),
        ];
        for (key, proxy) in proxies.into_iter().flatten() {
            let ips = ips_of(proxy.host());
            let is_at = |listener: &&Listener| {
                let mut ips = ips.iter();
                ips.any(|ip| listener.address.receives((*ip, proxy.port()).into()))
            };
            if let Some(listener) = listeners.iter().find(is_at) {
                context.fault(raw.at(key).fault(
                    format!(
                        "[listener.{}] listens there: this proxy would call Collibra through itself",
                        listener.name.escape_debug()
                    ),
                    "write \"direct\", or the proxy of your network; without this key HTTPS_PROXY in the environment counts",
                ));
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

fn another(taken: &Address) -> &'static str {
    match taken {
        Address::Tcp(_) => "write another port",
        Address::Unix { .. } => "write another path",
    }
}

fn warn_of_unused(
    raw: &Tables,
    clients: &BTreeMap<Arc<str>, Client>,
    listeners: &[Listener],
    apps: &BTreeMap<Arc<str>, Arc<App>>,
    context: &LoadContext<'_>,
) {
    let warn = |location: &Location, problem, remedy| {
        context.warning(location.fault(problem, remedy));
    };
    let used: HashSet<_> = clients.values().map(|client| &client.instance).collect();
    for raw in raw.instance.iter().filter(|raw| !used.contains(&raw.name)) {
        let remedy = "remove it, or name it in a client";
        warn(&raw.location, "no client uses it", remedy);
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
        warn(&raw.location, problem, remedy);
    }
}
