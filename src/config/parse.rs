//! From what was typed to what each part of the program is told. Goes on after a fault, so that
//! every one is reported.

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
use super::names::Names;
use super::nearest::{listed, nearest};
use super::place::{Field, Place, Typed};
use super::raw::{Listener as RawListener, Raw};
use super::watch::Files;
use super::{Admin, Client, Config, Server, app, client, instance, listener, listener_address};
use super::{policy, store, trace};
use crate::proxy::config::{App, Listener};
use crate::socket::Address;

const ADMIN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9902);
const DRAIN: Duration = Duration::from_secs(20);
/// How long Kubernetes waits between SIGTERM and SIGKILL, if nobody says otherwise.
const KUBERNETES_GRACE: Duration = Duration::from_secs(30);
const MOST_THREADS: u32 = 1024;

/// What a configuration may refer to outside of itself.
pub(super) struct Surroundings<'a> {
    /// The directory from which relative paths count; empty: the working directory.
    pub(super) base: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// The files that were read.
    pub(super) files: RefCell<Files>,
}

/// Settles all of it. `None` only if something was reported.
pub(super) fn parse(
    raw: Raw,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Config> {
    let given = Given::of(&raw, surroundings);
    let root = raw.place;
    let instance_names: Names = raw.instances.iter().map(|raw| raw.name.clone()).collect();
    let client_names: Names = raw.clients.iter().map(|raw| raw.name.clone()).collect();
    let app_names: Names = raw.apps.iter().map(|raw| raw.name.clone()).collect();
    let targets = listener::Targets {
        clients: &client_names,
        apps: &app_names,
    };
    let places = Places {
        instances: places(raw.instances.iter().map(|raw| (&raw.name, &raw.place))),
        clients: places(raw.clients.iter().map(|raw| (&raw.name, &raw.place))),
    };
    demand(&instance_names, &client_names, &root, report);

    let mut instances = BTreeMap::new();
    for raw in raw.instances {
        if let Some(parsed) = instance::parse(raw, surroundings, report) {
            instances.insert(parsed.instance.name.clone(), parsed);
        }
    }
    let mut clients = BTreeMap::new();
    for raw in raw.clients {
        let client = client::parse(raw, &instance_names, &instances, surroundings, report);
        if let Some(client) = client {
            clients.insert(client.name.clone(), client);
        }
    }
    one_pool_each(&clients, &instances, &places, report);

    let admin_place = match &raw.admin {
        Field::Given(typed) => typed.place.clone(),
        _ => root.child("admin").child("address"),
    };
    let admin = raw.admin.or(ADMIN.into());
    let admin = Admin {
        address: listener_address::settle(admin, raw.admin_mode, surroundings, report),
        hosts: match raw.admin_hosts.given() {
            Some(typed) => listener::hosts(&typed.value, &typed.place, report),
            None => Vec::new(),
        },
    };
    let listeners = listeners(
        raw.listeners,
        &root,
        targets,
        &admin,
        &admin_place,
        surroundings,
        report,
    );
    refuse_loops(&instances, &listeners, &places, report);
    if !admin.address.is_local() {
        report.warning(admin_place.fault(
            "health, metrics and status can be seen beyond this machine; none shows a secret",
            "write a loopback address unless something outside scrapes it",
        ));
    }
    let apps = app::parse(raw.apps, &client_names, &listeners, surroundings, report);
    let policy = Arc::new(policy::parse(raw.deny, raw.sessions, report));
    warn_of_unused(&clients, &listeners, &apps, &places, report);
    let store = store::parse(raw.store, surroundings, report);
    let drain_place = match &raw.drain {
        Field::Given(typed) => Some(typed.place.clone()),
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
    if let Some(place) = drain_place
        && server.drain > KUBERNETES_GRACE
    {
        report.warning(place.fault(
            "Kubernetes kills after 30 s by default, before this is over",
            "write at most \"30s\", or raise terminationGracePeriodSeconds above it",
        ));
    }
    let access_log = raw.access_log.or(true);
    let log_user_agent = raw.log_user_agent.or(false);
    let trace = trace::parse(raw.trace_endpoint, raw.trace_sample, surroundings, report);
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
        trace,
        warnings: Vec::new(),
        files: Files::default(),
        text: None,
        given,
    })
}

/// The name that `field` refers to: one of `names`, or the only one there is if nothing is said.
/// `owner` is the place of the table that refers.
pub(super) fn reference(
    field: Field<String>,
    owner: &Place,
    kind: &'static str,
    names: &Names,
    report: &mut Report,
) -> Option<Arc<str>> {
    let all = || names.all().iter().map(AsRef::as_ref);
    match field {
        Field::Faulty => None,
        Field::Absent => match names.all() {
            [only] => Some(only.clone()),
            // that there is none at all is reported once, and not by each who misses it
            [] => None,
            _ => {
                report.fault(owner.child(kind).fault(
                    format!("there are several of [{kind}.NAME], and this does not say which"),
                    format!("write one of {}", listed(all())),
                ));
                None
            }
        },
        Field::Given(typed) => {
            if let Some(name) = names.find(&typed.value) {
                return Some(name.clone());
            }
            let remedy = match (nearest(&typed.value, all()), names.all()) {
                (Some(meant), _) => format!("write {meant:?}"),
                (None, []) => format!("add [{kind}.NAME] with this name"),
                (None, _) => format!("write one of {}", listed(all())),
            };
            let problem = format!("there is no [{kind}.NAME] of this name");
            report.fault(typed.place.fault(problem, remedy));
            None
        }
    }
}

impl<'a> Surroundings<'a> {
    /// Surroundings of which nothing has been read yet.
    pub(super) fn of(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Surroundings<'a> {
        let files = RefCell::default();
        Surroundings { base, env, files }
    }

    /// A path as it counts for this process.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The path of a file that is about to be read: the configuration changes with its content.
    ///
    /// # Errors
    /// [`Unfit`] says why it must not be read.
    pub(super) fn to_read(&self, path: &Path) -> Result<PathBuf, Unfit> {
        let path = self.path(path);
        self.note(&path)?;
        Ok(path)
    }

    /// As [`Surroundings::to_read`] for the file that `typed` names; reports it, with `remedy`, if it
    /// must not be read.
    pub(super) fn readable(
        &self,
        typed: &Typed<PathBuf>,
        remedy: &str,
        report: &mut Report,
    ) -> Option<PathBuf> {
        let path = self.to_read(&typed.value);
        path.map_err(|unfit| {
            let remedy = self.file_remedy(remedy);
            report.fault(typed.place.fault(unfit.to_string(), remedy));
        })
        .ok()
    }

    /// Takes note of a file that is about to be read.
    ///
    /// # Errors
    /// [`Unfit`] says why it must not be read.
    pub(super) fn note(&self, path: &Path) -> Result<(), Unfit> {
        self.files.borrow_mut().note(path)
    }

    /// `remedy`, and from where relative paths count.
    pub(super) fn file_remedy(&self, remedy: &str) -> String {
        let base = if self.base.as_os_str().is_empty() {
            "the working directory".to_owned()
        } else {
            self.base.display().to_string()
        };
        format!("{remedy} (a relative path counts from {base})")
    }
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Where each named table stands.
struct Places {
    instances: BTreeMap<Arc<str>, Place>,
    clients: BTreeMap<Arc<str>, Place>,
}

fn places<'a>(
    tables: impl Iterator<Item = (&'a Arc<str>, &'a Place)>,
) -> BTreeMap<Arc<str>, Place> {
    tables
        .map(|(name, place)| (name.clone(), place.clone()))
        .collect()
}

/// There must be an instance and a client.
fn demand(instances: &Names, clients: &Names, root: &Place, report: &mut Report) {
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

/// Two clients with one id would drink from one pool, each counting for itself.
fn one_pool_each(
    clients: &BTreeMap<Arc<str>, Client>,
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    places: &Places,
    report: &mut Report,
) {
    let mut in_order: Vec<&Client> = clients.values().collect();
    in_order.sort_by_key(|client| places.clients[&client.name].line);
    let mut owners: BTreeMap<_, &Client> = BTreeMap::new();
    for client in in_order {
        let authority = &instances[&client.instance].instance.authority;
        let pool = (authority, &client.oauth.client_id);
        if let Some(first) = owners.get(&pool) {
            report.fault(places.clients[&client.name].fault(
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
    root: &Place,
    targets: listener::Targets<'_>,
    admin: &Admin,
    admin_place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Vec<Listener> {
    if raw.is_empty() && !report.blames("listener") {
        let place = root.child("listener").child("local");
        raw.push(RawListener::local(place, listener::DEFAULT_ADDRESS.into()));
    }
    let mut taken: Vec<(String, Address)> = Vec::new();
    let mut listeners = Vec::new();
    for mut raw in raw {
        if let Field::Given(typed) = &mut raw.address {
            let (address, mode) = (typed.value.clone(), std::mem::take(&mut raw.mode));
            typed.value = listener_address::settle(address, mode, surroundings, report);
        }
        if let Field::Given(typed) = &raw.address {
            let clash = taken
                .iter()
                .find(|(_, address)| listener_address::clash(address, &typed.value));
            if let Some((other, _)) = clash {
                report.fault(typed.place.fault(
                    format!("[listener.{}] already listens there", other.escape_debug()),
                    another(&typed.value),
                ));
            }
            if listener_address::clash(&admin.address, &typed.value) {
                report.fault(admin_place.fault(
                    format!(
                        "[listener.{}] already listens there",
                        raw.name.escape_debug()
                    ),
                    format!("{}; the default is \"{ADMIN}\"", another(&typed.value)),
                ));
            }
            taken.push((raw.name.to_string(), typed.value.clone()));
        }
        listeners.extend(listener::parse(raw, targets, surroundings, report));
    }
    listeners
}

/// An instance must not be one of the listeners. A name that leads to one is not looked up here.
fn refuse_loops(
    instances: &BTreeMap<Arc<str>, instance::Parsed>,
    listeners: &[Listener],
    places: &Places,
    report: &mut Report,
) {
    let direct = instances
        .values()
        .map(|parsed| &parsed.instance)
        .filter(|instance| instance.proxy.is_none());
    for instance in direct {
        let ips: Vec<IpAddr> = match (instance.host.parse(), instance.host.as_str()) {
            (Ok(ip), _) => vec![ip],
            (Err(_), "localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            (Err(_), _) => continue,
        };
        let is_at = |listener: &&Listener| {
            let mut ips = ips.iter();
            ips.any(|ip| listener.address.receives((*ip, instance.port).into()))
        };
        if let Some(listener) = listeners.iter().find(is_at) {
            let place = places.instances[&instance.name].child("url");
            report.fault(place.fault(
                format!(
                    "[listener.{}] listens there: requests would come back to this proxy",
                    listener.name.escape_debug()
                ),
                "write Collibra's own address, like \"https://acme.collibra.com\"",
            ));
        }
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
    places: &Places,
    report: &mut Report,
) {
    let used: HashSet<_> = clients.values().map(|client| &client.instance).collect();
    for (name, place) in &places.instances {
        if !used.contains(name) {
            report.warning(place.fault("no client uses it", "remove it, or name it in a client"));
        }
    }
    let by_listeners = listeners.iter().flat_map(|listener| {
        let by_routes = listener.routes.iter().map(|route| &route.client);
        by_routes.chain([&listener.client])
    });
    let by_apps = apps.values().filter_map(|app| app.client.as_ref());
    let used: HashSet<_> = by_listeners.chain(by_apps).collect();
    for (name, place) in &places.clients {
        if !used.contains(name) {
            report.warning(place.fault(
                "no listener, route or app uses it, and yet it will hold a token",
                "remove it, or name it in a listener",
            ));
        }
    }
}
