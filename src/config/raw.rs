//! The raw configuration: every key has the right type, but no value is checked yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::fault::{Origin, Report};
use super::location::{Field, Location, Spanned};
use super::table::{Lines, Table};
use crate::outgoing::addresses::Target;
use crate::secret::Secret;
use crate::socket::Address;

/// The tables of the file.
pub(super) const TABLES: &[&str] = &[
    "instance", "client", "listener", "app", "policy", "server", "admin", "log", "store", "trace",
    "ca",
];
/// The keys of `[instance.NAME]`.
pub(super) const INSTANCE: &[&str] = &[
    "url",
    "allow_insecure",
    "address",
    "token_path",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "proxy",
    "token_proxy",
    "proxy_credentials_file",
    "http2",
    "connect_timeout",
    "idle_timeout",
    "header_timeout",
    "resolve_ttl_max",
];
/// The keys of `[client.NAME]`.
pub(super) const CLIENT: &[&str] = &[
    "instance",
    "client_id",
    "client_id_file",
    "client_id_env",
    "client_secret",
    "client_secret_file",
    "client_secret_env",
    "credentials_file",
    "auth_method",
    "scope",
    "token_timeout",
    "refresh_at",
    "refresh_jitter",
    "pool",
    "wait_for_token",
];
/// The keys of `pool`.
pub(super) const POOL: &[&str] = &["capacity", "refill"];
/// The keys of `[listener.NAME]`.
pub(super) const LISTENER: &[&str] = &[
    "address",
    "mode",
    "others",
    "allow_remote",
    "client",
    "route",
    "app",
    "hosts",
    "tls",
    "allow_unauthenticated",
    "upgrades",
    "header_timeout",
    "max_header_bytes",
    "min_body_rate",
    "max_connections",
    "trusted_proxies",
];
/// The keys of `tls`.
pub(super) const TLS: &[&str] = &["cert_file", "key_file", "client_ca_file"];
/// The keys of an item of `route`.
pub(super) const ROUTE: &[&str] = &["prefix", "client", "strip"];
/// The keys of `[app.NAME]`.
pub(super) const APP: &[&str] = &[
    "key_file",
    "key_env",
    "certificate",
    "client",
    "allow",
    "requests_per_second",
    "max_in_flight",
];
/// The keys of `[policy]`.
pub(super) const POLICY: &[&str] = &["deny", "sessions"];
/// The keys of `[server]`.
pub(super) const SERVER: &[&str] = &["threads", "drain"];
/// The keys of `[admin]`.
pub(super) const ADMIN: &[&str] = &["address", "mode", "hosts"];
/// The keys of `[log]`.
pub(super) const LOG: &[&str] = &["access", "user_agent"];
/// The keys of `[ca]`.
pub(super) const CA: &[&str] = &["dir"];
/// The keys of `[trace]`.
pub(super) const TRACE: &[&str] = &["endpoint", "sample"];
/// The keys of `[store]`.
pub(super) const STORE: &[&str] = &[
    "kind",
    "path",
    "url",
    "password_file",
    "key_prefix",
    "ca_file",
    "namespace",
    "secret",
    "lease",
    "kubeconfig",
];

/// The raw configuration.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) location: Location,
    pub(super) instances: Vec<Instance>,
    pub(super) clients: Vec<Client>,
    pub(super) listeners: Vec<Listener>,
    pub(super) apps: Vec<App>,
    pub(super) deny: Field<Vec<String>>,
    pub(super) sessions: Field<String>,
    pub(super) threads: Field<u32>,
    pub(super) drain: Field<Duration>,
    pub(super) admin: Field<Address>,
    pub(super) admin_mode: Field<String>,
    pub(super) admin_hosts: Field<Vec<String>>,
    pub(super) access_log: Field<bool>,
    pub(super) log_user_agent: Field<bool>,
    pub(super) trace_endpoint: Field<String>,
    pub(super) trace_sample: Field<f64>,
    pub(super) ca_dir: Field<PathBuf>,
    pub(super) store: Store,
}

/// `[instance.NAME]`.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    pub(super) url: Field<String>,
    pub(super) allow_insecure: Field<bool>,
    pub(super) address: Field<Vec<Target>>,
    pub(super) token_path: Field<String>,
    pub(super) ca_file: Field<PathBuf>,
    pub(super) client_cert_file: Field<PathBuf>,
    pub(super) client_key_file: Field<PathBuf>,
    pub(super) proxy: Field<Secret>,
    pub(super) token_proxy: Field<Secret>,
    pub(super) proxy_credentials_file: Field<PathBuf>,
    pub(super) http2: Field<bool>,
    pub(super) connect_timeout: Field<Duration>,
    pub(super) idle_timeout: Field<Duration>,
    pub(super) header_timeout: Field<Duration>,
    pub(super) resolve_ttl_max: Field<Duration>,
}

/// `[client.NAME]`.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    pub(super) instance: Field<String>,
    pub(super) id: Sources,
    pub(super) secret: Sources,
    pub(super) auth_method: Field<String>,
    pub(super) scope: Field<String>,
    pub(super) token_timeout: Field<Duration>,
    pub(super) refresh_at: Field<f64>,
    pub(super) refresh_jitter: Field<f64>,
    pub(super) pool_capacity: Field<u32>,
    pub(super) pool_refill: Field<Duration>,
    pub(super) wait_for_token: Field<Duration>,
}

/// `[store]`.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) location: Location,
    pub(super) kind: Field<String>,
    pub(super) path: Field<PathBuf>,
    /// May contain a password.
    pub(super) url: Field<Secret>,
    pub(super) password_file: Field<PathBuf>,
    pub(super) key_prefix: Field<String>,
    pub(super) ca_file: Field<PathBuf>,
    pub(super) namespace: Field<String>,
    pub(super) secret: Field<String>,
    pub(super) lease: Field<String>,
    pub(super) kubeconfig: Field<PathBuf>,
}

/// The sources given for an id or a secret; exactly one is valid.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) given: Vec<Spanned<Source>>,
    /// A further source is faulty and already reported.
    pub(super) faulty: bool,
}

/// A source of an id or a secret.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The value itself. An id is also treated as a secret until it is validated.
    Inline(Secret),
    /// The content of a file.
    File(PathBuf),
    /// The value of a variable.
    Variable(String),
    /// A member of a JSON file that has both.
    Json(PathBuf),
}

/// `[listener.NAME]`.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    pub(super) address: Field<Address>,
    /// How it serves, or the permissions of a unix socket.
    pub(super) mode: Field<String>,
    pub(super) others: Field<String>,
    pub(super) allow_remote: Field<bool>,
    pub(super) client: Field<String>,
    pub(super) routes: Vec<Route>,
    pub(super) app: Field<String>,
    pub(super) hosts: Field<Vec<String>>,
    pub(super) tls: Option<ListenerTls>,
    pub(super) allow_unauthenticated: Field<bool>,
    pub(super) upgrades: Field<bool>,
    pub(super) header_timeout: Field<Duration>,
    pub(super) max_header_bytes: Field<u32>,
    pub(super) min_body_rate: Field<u32>,
    pub(super) max_connections: Field<u32>,
    pub(super) trusted_proxies: Field<Vec<String>>,
}

/// `tls` of a listener.
#[derive(Debug)]
pub(super) enum ListenerTls {
    /// A word in place of a table.
    Word(Spanned<String>),
    /// A certificate's files.
    Files(Box<Tls>),
}

/// The table `tls` of a listener.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) location: Location,
    pub(super) cert_file: Field<PathBuf>,
    pub(super) key_file: Field<PathBuf>,
    pub(super) client_ca_file: Field<PathBuf>,
}

/// An item of `route`.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) location: Location,
    pub(super) prefix: Field<String>,
    pub(super) client: Field<String>,
    pub(super) strip: Field<bool>,
}

/// `[app.NAME]`.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    pub(super) key: Sources,
    pub(super) certificate: Field<String>,
    pub(super) client: Field<String>,
    pub(super) allow: Field<Vec<String>>,
    pub(super) requests_per_second: Field<f64>,
    pub(super) max_in_flight: Field<u32>,
}

/// Reads a file's text. Reports unknown keys, wrong types and every syntax error; after a syntax
/// error there is no result.
pub(super) fn read(text: &str, origin: &Origin, report: &mut Report) -> Option<Raw> {
    let lines = Lines::of(origin, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // the message names what is expected, and quotes nothing
        let mut location = lines.location();
        location.line = error.span().map(|span| lines.line(span.start));
        let problem = format!("this is not TOML: {}", error.message().replace('\n', ", "));
        report.fault(location.fault(problem, "mend the line; text and durations stand in quotes"));
    }
    if !errors.is_empty() {
        return None;
    }
    let file = Table::new(document.get_ref(), &lines, lines.location(), TABLES, report);
    let instances = file.named("instance", INSTANCE, report);
    let clients = file.named("client", CLIENT, report);
    let listeners = file.named("listener", LISTENER, report);
    let apps = file.named("app", APP, report);
    let policy = file.table("policy", POLICY, report);
    let server = file.table("server", SERVER, report);
    let admin = file.table("admin", ADMIN, report);
    let log = file.table("log", LOG, report);
    let trace = file.table("trace", TRACE, report);
    let ca = file.table("ca", CA, report);
    let store = file.table("store", STORE, report);
    let store_place = match &store {
        Some(table) => table.location.clone(),
        None => file.location.child("store"),
    };
    Some(Raw {
        location: file.location,
        instances: each(instances, report, instance),
        clients: each(clients, report, client),
        listeners: each(listeners, report, listener),
        apps: each(apps, report, app),
        deny: key(&policy, "deny", report),
        sessions: key(&policy, "sessions", report),
        threads: key(&server, "threads", report),
        drain: key(&server, "drain", report),
        admin: key(&admin, "address", report),
        admin_mode: key(&admin, "mode", report),
        admin_hosts: key(&admin, "hosts", report),
        access_log: key(&log, "access", report),
        log_user_agent: key(&log, "user_agent", report),
        trace_endpoint: key(&trace, "endpoint", report),
        trace_sample: key(&trace, "sample", report),
        ca_dir: key(&ca, "dir", report),
        store: Store {
            location: store_place,
            kind: key(&store, "kind", report),
            path: key(&store, "path", report),
            url: key(&store, "url", report),
            password_file: key(&store, "password_file", report),
            key_prefix: key(&store, "key_prefix", report),
            ca_file: key(&store, "ca_file", report),
            namespace: key(&store, "namespace", report),
            secret: key(&store, "secret", report),
            lease: key(&store, "lease", report),
            kubeconfig: key(&store, "kubeconfig", report),
        },
    })
}

fn each<T>(
    tables: Vec<(Arc<str>, Table<'_>)>,
    report: &mut Report,
    read: fn(Arc<str>, &Table<'_>, &mut Report) -> T,
) -> Vec<T> {
    tables
        .into_iter()
        .map(|(name, table)| read(name, &table, report))
        .collect()
}

fn key<T: super::value::Value>(
    table: &Option<Table<'_>>,
    key: &'static str,
    report: &mut Report,
) -> Field<T> {
    match table {
        Some(table) => table.get(key, report),
        None => Field::Absent,
    }
}

fn instance(name: Arc<str>, table: &Table<'_>, report: &mut Report) -> Instance {
    Instance {
        name,
        location: table.location.clone(),
        url: table.get("url", report),
        allow_insecure: table.get("allow_insecure", report),
        address: table.get("address", report),
        token_path: table.get("token_path", report),
        ca_file: table.get("ca_file", report),
        client_cert_file: table.get("client_cert_file", report),
        client_key_file: table.get("client_key_file", report),
        proxy: table.get("proxy", report),
        token_proxy: table.get("token_proxy", report),
        proxy_credentials_file: table.get("proxy_credentials_file", report),
        http2: table.get("http2", report),
        connect_timeout: table.get("connect_timeout", report),
        idle_timeout: table.get("idle_timeout", report),
        header_timeout: table.get("header_timeout", report),
        resolve_ttl_max: table.get("resolve_ttl_max", report),
    }
}

fn client(name: Arc<str>, table: &Table<'_>, report: &mut Report) -> Client {
    let mut id = Sources::default();
    id.add(table.get("client_id", report), Source::Inline);
    id.add(table.get("client_id_file", report), Source::File);
    id.add(table.get("client_id_env", report), Source::Variable);
    let mut secret = Sources::default();
    secret.add(table.get("client_secret", report), Source::Inline);
    secret.add(table.get("client_secret_file", report), Source::File);
    secret.add(table.get("client_secret_env", report), Source::Variable);
    let both: Field<PathBuf> = table.get("credentials_file", report);
    id.add(both.clone(), Source::Json);
    secret.add(both, Source::Json);
    let pool = table.table("pool", POOL, report);
    Client {
        name,
        location: table.location.clone(),
        instance: table.get("instance", report),
        id,
        secret,
        auth_method: table.get("auth_method", report),
        scope: table.get("scope", report),
        token_timeout: table.get("token_timeout", report),
        refresh_at: table.get("refresh_at", report),
        refresh_jitter: table.get("refresh_jitter", report),
        pool_capacity: key(&pool, "capacity", report),
        pool_refill: key(&pool, "refill", report),
        wait_for_token: table.get("wait_for_token", report),
    }
}

fn listener(name: Arc<str>, table: &Table<'_>, report: &mut Report) -> Listener {
    Listener {
        name,
        location: table.location.clone(),
        address: table.get("address", report),
        mode: table.get("mode", report),
        others: table.get("others", report),
        allow_remote: table.get("allow_remote", report),
        client: table.get("client", report),
        routes: table
            .tables("route", ROUTE, report)
            .iter()
            .map(|t| route(t, report))
            .collect(),
        app: table.get("app", report),
        hosts: table.get("hosts", report),
        tls: tls(table, report),
        allow_unauthenticated: table.get("allow_unauthenticated", report),
        upgrades: table.get("upgrades", report),
        header_timeout: table.get("header_timeout", report),
        max_header_bytes: table.get("max_header_bytes", report),
        min_body_rate: table.get("min_body_rate", report),
        max_connections: table.get("max_connections", report),
        trusted_proxies: table.get("trusted_proxies", report),
    }
}

fn tls(table: &Table<'_>, report: &mut Report) -> Option<ListenerTls> {
    if table.is_text("tls") {
        return table.get("tls", report).given().map(ListenerTls::Word);
    }
    let table = table.table("tls", TLS, report)?;
    Some(ListenerTls::Files(Box::new(Tls {
        cert_file: table.get("cert_file", report),
        key_file: table.get("key_file", report),
        client_ca_file: table.get("client_ca_file", report),
        location: table.location,
    })))
}

fn route(table: &Table<'_>, report: &mut Report) -> Route {
    Route {
        location: table.location.clone(),
        prefix: table.get("prefix", report),
        client: table.get("client", report),
        strip: table.get("strip", report),
    }
}

fn app(name: Arc<str>, table: &Table<'_>, report: &mut Report) -> App {
    let mut key = Sources::default();
    key.add(table.get("key_file", report), Source::File);
    key.add(table.get("key_env", report), Source::Variable);
    App {
        name,
        location: table.location.clone(),
        key,
        certificate: table.get("certificate", report),
        client: table.get("client", report),
        allow: table.get("allow", report),
        requests_per_second: table.get("requests_per_second", report),
        max_in_flight: table.get("max_in_flight", report),
    }
}

impl Listener {
    /// The default listener.
    pub(super) fn local(location: Location, address: Address) -> Listener {
        Listener {
            name: "local".into(),
            address: Field::from(Some(address), location.child("address")),
            mode: Field::Absent,
            others: Field::Absent,
            allow_remote: Field::Absent,
            client: Field::Absent,
            routes: Vec::new(),
            app: Field::Absent,
            hosts: Field::Absent,
            tls: None,
            allow_unauthenticated: Field::Absent,
            upgrades: Field::Absent,
            header_timeout: Field::Absent,
            max_header_bytes: Field::Absent,
            min_body_rate: Field::Absent,
            max_connections: Field::Absent,
            trusted_proxies: Field::Absent,
            location,
        }
    }
}

impl Sources {
    /// Adds a source if it is given.
    pub(super) fn add<T>(&mut self, field: Field<T>, source: impl FnOnce(T) -> Source) {
        match field {
            Field::Absent => {}
            Field::Faulty => self.faulty = true,
            Field::Given(spanned) => self.given.push(Spanned {
                value: source(spanned.value),
                location: spanned.location,
            }),
        }
    }
}
