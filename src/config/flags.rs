//! The configuration without a file: one instance, one client, one listener.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{Origin, Report};
use super::location::{Field, Location, Spanned};
use super::raw::{Client, Instance, Listener, Raw, Source, Sources, Store};
use super::value;
use crate::secret::Secret;
use crate::socket::Address;

const URL: &str = "COLLIBRA_URL";
const CLIENT_ID: &str = "COLLIBRA_CLIENT_ID";
const CLIENT_SECRET: &str = "COLLIBRA_CLIENT_SECRET";
// set by the container image, where a published port does not lead to the loopback
const LISTEN: &str = "COLLIBRA_AUTH_PROXY_LISTEN";
// COLLIBRA_AUTH_PROXY_ADMIN says where the other commands find a running proxy
const LISTEN_ADMIN: &str = "COLLIBRA_AUTH_PROXY_LISTEN_ADMIN";
const ALLOW_UNAUTHENTICATED: &str = "COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED";

/// What can be given on the command line in place of a file. The secret itself cannot: every
/// user of a machine sees every command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration without a file")]
pub struct Flags {
    /// The Collibra instance's URL.
    #[arg(
        long,
        value_name = "URL",
        help = "The Collibra instance, like https://acme.collibra.com [env: COLLIBRA_URL]"
    )]
    pub upstream: Option<String>,
    /// The registered application's id [env: COLLIBRA_CLIENT_ID]
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// A file that holds the id
    #[arg(long, value_name = "FILE")]
    pub client_id_file: Option<PathBuf>,
    /// A file that holds the secret [or the secret itself in env: COLLIBRA_CLIENT_SECRET]
    #[arg(long, value_name = "FILE")]
    pub client_secret_file: Option<PathBuf>,
    /// Where apps are served [default: 127.0.0.1:8080] [env: COLLIBRA_AUTH_PROXY_LISTEN]
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    pub listen: Option<Address>,
    /// Where health, metrics and status are served [default: 127.0.0.1:9902] [env:
    /// COLLIBRA_AUTH_PROXY_LISTEN_ADMIN]
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    pub admin: Option<Address>,
    /// How id and secret are sent [default: client_secret_basic]
    #[arg(long, value_name = "METHOD", value_parser = ["client_secret_basic", "client_secret_post"])]
    pub auth_method: Option<String>,
    /// Certificates (PEM) to accept besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Accept http:// to another machine: secret and token travel unencrypted
    #[arg(long)]
    pub allow_insecure: bool,
    /// Values of `Host` to accept in place of the listener's own.
    #[arg(
        long = "host",
        value_name = "HOST",
        help = "A value of Host to accept, in place of localhost, 127.0.0.1, [::1] and the address listened on; any port; repeatable"
    )]
    pub hosts: Vec<String>,
    /// Listen beyond this machine although whoever reaches the port then has the token [env:
    /// COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED]
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// How many tokens the issuer's pool holds [default: 5]
    #[arg(long, value_name = "N")]
    pub pool_capacity: Option<u32>,
    /// How long it takes for one more to come [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub pool_refill: Option<Duration>,
    /// The longest time for a token request [default: 10s, at most a sixth of --pool-refill]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub token_timeout: Option<Duration>,
    /// How long a request waits when there is no token [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub wait_for_token: Option<Duration>,
    /// A directory to keep tokens in, over restarts and for all processes of this machine
    #[arg(long, value_name = "DIR")]
    pub store_path: Option<PathBuf>,
    /// How long requests in flight may take to finish after SIGTERM [default: 20s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub drain: Option<Duration>,
    /// Worker threads; 0: one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

impl Flags {
    /// The names of the flags that were given.
    #[must_use]
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("--upstream", self.upstream.is_some()),
            ("--client-id", self.client_id.is_some()),
            ("--client-id-file", self.client_id_file.is_some()),
            ("--client-secret-file", self.client_secret_file.is_some()),
            ("--listen", self.listen.is_some()),
            ("--admin", self.admin.is_some()),
            ("--auth-method", self.auth_method.is_some()),
            ("--ca-file", self.ca_file.is_some()),
            ("--allow-insecure", self.allow_insecure),
            ("--host", !self.hosts.is_empty()),
            ("--allow-unauthenticated", self.allow_unauthenticated),
            ("--pool-capacity", self.pool_capacity.is_some()),
            ("--pool-refill", self.pool_refill.is_some()),
            ("--token-timeout", self.token_timeout.is_some()),
            ("--wait-for-token", self.wait_for_token.is_some()),
            ("--store-path", self.store_path.is_some()),
            ("--drain", self.drain.is_some()),
            ("--threads", self.threads.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    /// Converts the flags to the raw configuration that an equivalent file would have. An empty
    /// variable counts as unset, and a flag overrides a variable. A variable that cannot be read is
    /// a fault.
    pub(super) fn into_raw(self, env: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Raw {
        let root = Location {
            origin: Origin::CommandLine,
            key: String::new(),
            line: None,
        };
        let flag = |key: &str| root.child(key);
        let from_env = |name: &str| {
            let value = env(name).filter(|value| !value.is_empty())?;
            let location = Location {
                origin: Origin::Environment,
                key: name.to_owned(),
                line: None,
            };
            Some(Spanned { value, location })
        };
        let or_env = |field: Field<String>, name| match field {
            Field::Absent => from_env(name).map_or(Field::Absent, Field::Given),
            field => field,
        };
        let mut address_or_env = |field: Field<Address>, name| match (field, from_env(name)) {
            (Field::Absent, Some(typed)) => match value::address(&typed.value) {
                Ok(value) => Field::Given(Spanned {
                    value,
                    location: typed.location,
                }),
                Err(remedy) => {
                    let problem = "this is no address to listen on";
                    report.fault(typed.location.fault(problem, remedy));
                    Field::Faulty
                }
            },
            (field, _) => field,
        };
        let listen = address_or_env(
            Field::from(self.listen, flag("listen").child("address")),
            LISTEN,
        );
        let admin = address_or_env(Field::from(self.admin, flag("admin")), LISTEN_ADMIN);
        let allow = match from_env(ALLOW_UNAUTHENTICATED) {
            Some(typed) if !self.allow_unauthenticated => match &*typed.value {
                "true" => true,
                "false" => false,
                _ => {
                    let problem = "it is neither true nor false";
                    report.fault(typed.location.fault(problem, "write true, or unset it"));
                    false
                }
            },
            _ => self.allow_unauthenticated,
        };

        let mut id = Sources::default();
        id.add(Field::from(self.client_id, flag("client_id")), inline);
        id.add(
            Field::from(self.client_id_file, flag("client_id_file")),
            Source::File,
        );
        if id.given.is_empty() {
            id.add(or_env(Field::Absent, CLIENT_ID), inline);
        }
        let mut secret = Sources::default();
        let file = Field::from(self.client_secret_file, flag("client_secret_file"));
        secret.add(file, Source::File);
        if secret.given.is_empty() {
            secret.add(or_env(Field::Absent, CLIENT_SECRET), inline);
        }

        let instance = Instance {
            name: "default".into(),
            location: root.clone(),
            url: or_env(Field::from(self.upstream, flag("url")), URL),
            allow_insecure: Field::from(Some(self.allow_insecure), flag("allow_insecure")),
            address: Field::Absent,
            token_path: Field::Absent,
            ca_file: Field::from(self.ca_file, flag("ca_file")),
            client_cert_file: Field::Absent,
            client_key_file: Field::Absent,
            proxy: Field::Absent,
            token_proxy: Field::Absent,
            proxy_credentials_file: Field::Absent,
            http2: Field::Absent,
            connect_timeout: Field::Absent,
            idle_timeout: Field::Absent,
            header_timeout: Field::Absent,
            resolve_ttl_max: Field::Absent,
        };
        let client = Client {
            name: "default".into(),
            location: root.clone(),
            instance: Field::Absent,
            id,
            secret,
            auth_method: Field::from(self.auth_method, flag("auth_method")),
            scope: Field::Absent,
            token_timeout: Field::from(self.token_timeout, flag("token_timeout")),
            refresh_at: Field::Absent,
            refresh_jitter: Field::Absent,
            pool_capacity: Field::from(self.pool_capacity, flag("pool_capacity")),
            pool_refill: Field::from(self.pool_refill, flag("pool_refill")),
            wait_for_token: Field::from(self.wait_for_token, flag("wait_for_token")),
        };
        let listener = Listener {
            hosts: Field::from((!self.hosts.is_empty()).then_some(self.hosts), flag("host")),
            allow_unauthenticated: Field::from(Some(allow), flag("allow_unauthenticated")),
            ..Listener::local(flag("listen"), super::listener::DEFAULT_ADDRESS.into())
        };
        let listener = match listen {
            Field::Absent => listener,
            address => Listener {
                address,
                ..listener
            },
        };
        let store = Store {
            location: flag("store"),
            kind: Field::from(
                self.store_path.as_ref().map(|_| "file".to_owned()),
                flag("store_path"),
            ),
            path: Field::from(self.store_path, flag("store_path")),
            url: Field::Absent,
            password_file: Field::Absent,
            key_prefix: Field::Absent,
            ca_file: Field::Absent,
            namespace: Field::Absent,
            secret: Field::Absent,
            lease: Field::Absent,
            kubeconfig: Field::Absent,
        };
        Raw {
            instances: vec![instance],
            clients: vec![client],
            apps: Vec::new(),
            deny: Field::Absent,
            sessions: Field::Absent,
            listeners: vec![listener],
            threads: Field::from(self.threads, flag("threads")),
            drain: Field::from(self.drain, flag("drain")),
            admin,
            admin_mode: Field::Absent,
            admin_hosts: Field::Absent,
            access_log: Field::Absent,
            log_user_agent: Field::Absent,
            trace_endpoint: Field::Absent,
            trace_sample: Field::Absent,
            ca_dir: Field::Absent,
            store,
            location: root,
        }
    }
}

/// An instance given by the flags `--url`, `--allow-insecure` and `--ca-file`.
pub(super) fn instance(url: &str, allow_insecure: bool, ca_file: Option<&Path>) -> Instance {
    let root = Location {
        origin: Origin::CommandLine,
        key: String::new(),
        line: None,
    };
    Instance {
        name: "default".into(),
        url: Field::from(Some(url.to_owned()), root.child("instance").child("url")),
        allow_insecure: Field::from(Some(allow_insecure), root.child("allow_insecure")),
        address: Field::Absent,
        token_path: Field::Absent,
        ca_file: Field::from(ca_file.map(Path::to_owned), root.child("ca_file")),
        client_cert_file: Field::Absent,
        client_key_file: Field::Absent,
        proxy: Field::Absent,
        token_proxy: Field::Absent,
        proxy_credentials_file: Field::Absent,
        http2: Field::Absent,
        connect_timeout: Field::Absent,
        idle_timeout: Field::Absent,
        header_timeout: Field::Absent,
        resolve_ttl_max: Field::Absent,
        location: root,
    }
}

fn inline(text: String) -> Source {
    Source::Inline(Secret::from(text))
}

/// The flag for `key` of any table: `pool_refill` is `--pool-refill`.
pub(super) fn name(key: &str) -> String {
    match key {
        "url" => "--upstream".to_owned(),
        "instance.url" => "--url".to_owned(),
        "admin.address" => "--admin".to_owned(),
        "listen.address" => "--listen".to_owned(),
        key => format!("--{}", key.replace('_', "-")),
    }
}

/// Warns about a variable that is ignored because a configuration file is used.
pub(super) fn warn_of_ignored(
    raw: &Raw,
    env: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) {
    let sources = raw
        .clients
        .iter()
        .flat_map(|c| c.id.given.iter().chain(&c.secret.given));
    let named: Vec<&str> = sources
        .filter_map(|source| match &source.value {
            Source::Variable(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    for name in [URL, CLIENT_ID, CLIENT_SECRET] {
        if !named.contains(&name) && env(name).is_some_and(|value| !value.is_empty()) {
            let location = Location {
                origin: Origin::Environment,
                key: name.to_owned(),
                line: None,
            };
            let remedy = match name {
                CLIENT_ID => "unset it, or name it in the file with `client_id_env`",
                CLIENT_SECRET => "unset it, or name it in the file with `client_secret_env`",
                _ => "unset it, or write its value in the file, as an instance's `url`",
            };
            let problem = "it is set and does not count, for there is a configuration file";
            report.warning(location.fault(problem, remedy));
        }
    }
}
