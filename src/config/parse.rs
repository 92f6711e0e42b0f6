//! Turns the raw configuration into settings. Continues after a fault, so that all faults are
//! reported.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::effective::Given;
use super::fault::Report;
use super::file::Unfit;
use super::location::{Field, Location, Spanned};
use super::names::Names;
use super::nearest::{listed, nearest};
use super::raw::{Listener as RawListener, Raw};
use super::watch::Files;
use super::{Admin, Client, Config, Server, app, authority, client, instance, listener};
use super::{listener_address, listener_forward, policy, store, trace};
use crate::outgoing::tunnel::Proxy;
use crate::proxy::config::{App, Listener};
use crate::socket::Address;

const ADMIN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9902);
const DRAIN: Duration = Duration::from_secs(20);
/// Kubernetes' default time between SIGTERM and SIGKILL.
const KUBERNETES_GRACE: Duration = Duration::from_secs(30);
const MOST_THREADS: u32 = 1024;

/// The context in which a configuration is read: its directory, the environment and the files read.
pub(super) struct LoadContext<'a> {
    /// The directory from which relative paths start; empty for the working directory.
    pub(super) base: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// The files read so far.
    pub(super) files: RefCell<Files>,
}

/// Parses all tables. `None` only if a fault was reported.
pub(super) fn parse(raw: Raw, context: &LoadContext<'_>, report: &mut Report) -> Option<Config> {
    let given = Given::of(&raw, context);
    let root = raw.location;
    let instance_names: Names = raw.instances.iter().map(|raw| raw.name.clone()).collect();
    let client_names: Names = raw.clients.iter().map(|raw| raw.name.clone()).collect();
    let app_names: Names = raw.apps.iter().map(|raw| raw.name.clone()).collect();
    let locations = Locations {
        instances: locations(raw.instances.iter().map(|raw| (&raw.name, &raw.location))),
        clients: locations(raw.clients.iter().map(|raw| (&raw.name, &raw.location))),
    };
    demand(&instance_names, &client_names, &root, report);

    let mut instances = BTreeMap::new();
    for raw in raw.instances {
        if let Some(parsed) = instance::parse(raw, context, report) {
            instances.insert(parsed.instance.name.clone(), parsed);
        }
    }
    let mut clients = BTreeMap::new();
    for raw in raw.clients {
        let client = client::parse(raw, &instance_names, &instances, context, report);
        if let Some(client) = client {
            clients.insert(client.name.clone(), client);
        }
    }
    one_pool_each(&clients, &instances, &locations, report);

    let admin_place = match &raw.admin {
        Field::Given(spanned) => spanned.location.clone(),
        _ => root.child("admin").child("address"),
    };
    let admin = raw.admin.or(ADMIN.into());
    let admin = Admin {
        address: listener_address::parse(admin, raw.admin_mode, context, report),
        hosts: match raw.admin_hosts.given() {
            Some(spanned) => listener::hosts(&spanned.value, &spanned.location, report),
            None => Vec::new(),
        },
    };
    let uses_authority = raw.listeners.iter().any(listener::uses_authority);
    let ca = authority::parse(
        raw.ca_dir,
        &root,
        uses_authority,
        &instances,
        context,
        report,
    );
    let targets = listener::Targets {
        clients: &client_names,
        apps: &app_names,
        parsed: &clients,
        instances: &instances,
        authority: ca.authority.as_ref(),
    };
    let listeners = listeners(
        raw.listeners,
        &root,
        targets,
        &admin,
        &admin_place,
        context,
        report,
    );
    refuse_loops(&instances, &listeners, &locations, report);
    refuse_own_proxy(&instances, &listeners, &locations, report);
    // a variable is how the image says it, and there publishing the port decides
    if !admin.address.is_local() && !admin_place.in_environment() {
        report.warning(admin_place.fault(
            "health, metrics and status can be seen beyond this machine; none shows a secret",
            "write a loopback address unless something outside scrapes it",
        ));
    }
    let apps = app::parse(raw.apps, &client_names, &listeners, context, report);
    let policy = Arc::new(policy::parse(raw.deny, raw.sessions, report));
    warn_of_unused(&clients, &listeners, &apps, &locations, report);
    let store = store::parse(raw.store, context, report);
    let drain_place = match &raw.drain {
        Field::Given(spanned) => Some(spanned.location.clone()),
        _ => None,
    };
    let server = Server {
        threads: usize::try_from(raw.threads.sound_or(
            0,
            |&threads| threads <= MOST_THREADS,
            "these are too many",
            "write 0 for one per core, or at most 1024",
            report,
        ))
        .ok()?,
        drain: raw.drain.or(DRAIN),
    };
    if let Some(location) = drain_place
        && server.drain > KUBERNETES_GRACE
    {
        report.warning(location.fault(
            "Kubernetes kills after 30 s by default, before this is over",
            "write at most \"30s\", or raise terminationGracePeriodSeconds above it",
        ));
    }
    let access_log = raw.access_log.or(true);
    let log_user_agent = raw.log_user_agent.or(false);
    let trace = trace::parse(raw.trace_endpoint, raw.trace_sample, context, report);
    let instances = instances
        .into_iter()
        .map(|(name, parsed)| (name, parsed.instance));
    Some(Config {
        instances: instances.collect(),
        clients,
        apps,
        policy,
        listeners,
        server,
        admin,
        store,
        access_log,
        log_user_agent,
        ca,
        trace,
        warnings: Vec::new(),
        files: Files::default(),
        text: None,
        given,
    })
}

/// Resolves `field` to one of `names`; if it is absent, to the only one there is. `owner` is the
/// location of the referring table.
pub(super) fn reference(
    field: Field<String>,
    owner: &Location,
    kind: &'static str,
    names: &Names,
    report: &mut Report,
) -> Option<Arc<str>> {
    let all = || names.all().iter().map(AsRef::as_ref);
    match field {
        Field::Faulty => None,
        Field::Absent => match names.all() {
            [only] => Some(only.clone()),
            // a missing table is reported once, not by each reference
            [] => None,
            _ => {
                report.fault(owner.child(kind).fault(
                    format!("there are several of [{kind}.NAME], and this does not say which"),
                    format!("write one of {}", listed(all())),
                ));
                None
            }
        },
        Field::Given(spanned) => {
            if let Some(name) = names.find(&spanned.value) {
                return Some(name.clone());
            }
            let remedy = match (nearest(&spanned.value, all()), names.all()) {
                (Some(meant), _) => format!("write {meant:?}"),
                (None, []) => format!("add [{kind}.NAME] with this name"),
                (None, _) => format!("write one of {}", listed(all())),
            };
            let problem = format!("there is no [{kind}.NAME] of this name");
            report.fault(spanned.location.fault(problem, remedy));
            None
        }
    }
}

impl<'a> LoadContext<'a> {
    /// Returns a context without any files read.
    pub(super) fn of(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> LoadContext<'a> {
        let files = RefCell::default();
        LoadContext { base, env, files }
    }

    /// Resolves a path.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// Resolves the path of a file to be read, and watches it: a change of the file changes the
    /// configuration.
    ///
    /// # Errors
    /// [`Unfit`] if the file must not be read.
    pub(super) fn to_read(&self, path: &Path) -> Result<PathBuf, Unfit> {
        let path = self.path(path);
        self.note(&path)?;
        Ok(path)
    }

    /// As [`LoadContext::to_read`] for the file in `spanned`; reports a fault with `remedy` if the
    /// file must not be read.
    pub(super) fn readable(
        &self,
        spanned: &Spanned<PathBuf>,
        remedy: &str,
        report: &mut Report,
    ) -> Option<PathBuf> {
        let path = self.to_read(&spanned.value);
        path.map_err(|unfit| {
            let remedy = self.file_remedy(remedy);
            report.fault(spanned.location.fault(unfit.to_string(), remedy));
        })
        .ok()
    }

    /// Watches a file that is about to be read.
    ///
    /// # Errors
    /// [`Unfit`] if the file must not be read.
    pub(super) fn note(&self, path: &Path) -> Result<(), Unfit> {
        self.files.borrow_mut().note(path)
    }

    /// Extends `remedy` by the directory from which relative paths start.
    pub(super) fn file_remedy(&self, remedy: &str) -> String {
        let base = if self.base.as_os_str().is_empty() {
            "the working directory".to_owned()
        } else {
            self.base.display().to_string()
        };
        format!("{remedy} (a relative path counts from {base})")
    }
}

impl fmt::Debug for LoadContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadContext")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Returns the location of each named table.
struct Locations {
    instances: BTreeMap<Arc<str>, Location>,
    clients: BTreeMap<Arc<str>, Location>,
}

fn locations<'a>(
    tables: impl Iterator<Item = (&'a Arc<str>, &'a Location)>,
) -> BTreeMap<Arc<str>, Location> {
    tables
        .map(|(name, location)| (name.clone(), location.clone()))
        .collect()
}

/// Reports a missing instance or client.
fn demand(instances: &Names, clients: &Names, root: &Location, report: &mut Report) {
    if instances.all().is_empty() && !report.blames("instance") {
        report.fault(root.child("instance").fault(
            "there is none, so there is nowhere to send to",
            "write `instance.acme = { url = \"https://acme.collibra.com\" }`",
        ));
    }
    if clients.all().is_empty() && !report.blames("client") {
        report.fault(root.child("client").fault(
            "there is none, so there is nobody to ask for a token",
            "write `client.catalog = { client_id = \"…\", client_secret_file = \"…\" }`",
        ));
    }
}

/// Reports two clients with the same id: they share a pool, but each counts only its own requests.
fn one_pool_each(
    clients: &BTreeMap<Arc<str>, Client>,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    locations: &Locations,
    report: &mut Report,
) {
    let mut in_order: Vec<&Client> = clients.values().collect();
    in_order.sort_by_key(|client| locations.clients[&client.name].line);
    let mut owners: BTreeMap<_, &Client> = BTreeMap::new();
    for client in in_order {
        let authority = &instances[&client.instance].instance.authority;
        let pool = (authority, &client.oauth.client_id);
        if let Some(first) = owners.get(&pool) {
            report.fault(locations.clients[&client.name].fault(
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

fn listeners(
    mut raw: Vec<RawListener>,
    root: &Location,
    targets: listener::Targets<'_>,
    admin: &Admin,
    admin_place: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Vec<Listener> {
    if raw.is_empty() && !report.blames("listener") {
        let location = root.child("listener").child("local");
        raw.push(RawListener::local(
            location,
            listener::DEFAULT_ADDRESS.into(),
        ));
    }
    let mut taken: Vec<(String, Address)> = Vec::new();
    let mut listeners = Vec::new();
    for mut raw in raw {
        let forward = listener_forward::take_mode(&mut raw.mode);
        if let Field::Given(spanned) = &mut raw.address {
            let (address, mode) = (spanned.value.clone(), std::mem::take(&mut raw.mode));
            spanned.value = listener_address::parse(address, mode, context, report);
        }
        if let Field::Given(spanned) = &raw.address {
            let clash = taken
                .iter()
                .find(|(_, address)| listener_address::clash(address, &spanned.value));
            if let Some((other, _)) = clash {
                report.fault(spanned.location.fault(
                    format!("[listener.{}] already listens there", other.escape_debug()),
                    another(&spanned.value),
                ));
            }
            if listener_address::clash(&admin.address, &spanned.value) {
                report.fault(admin_place.fault(
                    format!(
                        "[listener.{}] already listens there",
                        raw.name.escape_debug()
                    ),
                    format!("{}; the default is \"{ADMIN}\"", another(&spanned.value)),
                ));
            }
            taken.push((raw.name.to_string(), spanned.value.clone()));
        }
        listeners.extend(listener::parse(raw, forward, targets, context, report));
    }
    listeners
}

/// Reports an instance whose address is one of the listeners. A name is not resolved here.
fn refuse_loops(
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    locations: &Locations,
    report: &mut Report,
) {
    let direct = instances
        .values()
        .map(|parsed| &parsed.instance)
        .filter(|instance| instance.proxy.is_none());
    for instance in direct {
        let ips = ips_of(&instance.host);
        let is_at = |listener: &&Listener| {
            let mut ips = ips.iter();
            ips.any(|ip| listener.address.receives((*ip, instance.port).into()))
        };
        if let Some(listener) = listeners.iter().find(is_at) {
            let location = locations.instances[&instance.name].child("url");
            report.fault(location.fault(
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
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    locations: &Locations,
    report: &mut Report,
) {
    for parsed in instances.values() {
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
                let location = locations.instances[&parsed.instance.name].child(key);
                report.fault(location.fault(
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
    clients: &BTreeMap<Arc<str>, Client>,
    listeners: &[Listener],
    apps: &BTreeMap<Arc<str>, Arc<App>>,
    locations: &Locations,
    report: &mut Report,
) {
    let used: HashSet<_> = clients.values().map(|client| &client.instance).collect();
    for (name, location) in &locations.instances {
        if !used.contains(name) {
            report
                .warning(location.fault("no client uses it", "remove it, or name it in a client"));
        }
    }
    let by_listeners = listeners.iter().flat_map(|listener| {
        let by_routes = listener.routes.iter().map(|route| &route.client);
        let by_host = listener.forward.iter().flat_map(|forward| &forward.clients);
        by_routes.chain(by_host).chain([&listener.client])
    });
    let by_apps = apps.values().filter_map(|app| app.client.as_ref());
    let used: HashSet<_> = by_listeners.chain(by_apps).collect();
    for (name, location) in &locations.clients {
        if !used.contains(name) {
            report.warning(location.fault(
                "no listener, route or app uses it, and yet it will hold a token",
                "remove it, or name it in a listener",
            ));
        }
    }
}
