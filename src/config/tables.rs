//! Every table and key of the configuration: its type, default, check and documentation. The order
//! is that of the reference, of `check --print` and of messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value as Json;
use toml::de::DeTable;

use super::context::LoadContext;
use super::declare::{
    Declared, Head, List, Named, Slot, WordOr, above_zero, any, first, only, settle, tables,
};
use super::fault::{Location, Origin, Spanned};
use super::nearest::{listed, nearest};
use super::table::{Key, Lines, Table};
use super::value::{ListenerMode, Mode, Wrong};
use crate::oauth::AuthMethod;
use crate::outgoing::addresses::Target;
use crate::proxy::config::Others;
use crate::proxy::policy::Sessions;
use crate::proxy::policy::pattern::Pattern;
use crate::secret::Secret;
use crate::socket::Address;

/// The address of the default listener.
pub(super) const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The default admin address.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9902);
/// The default path of the token endpoint.
pub(super) const TOKEN_PATH: &str = "/rest/oauth/v2/token";
/// The API that registers and deletes clients: a caller with the shared token could end the access
/// of every other app.
const DENY: &str = "/rest/auth/v1/**";

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

tables! {
    /// The configuration as written: every key has the right type, but values are not yet checked.
    Tables {
        /// One Collibra environment; the name after the dot is yours. At least one.
        instance: Named<Instance> [sample "acme"];
        /// One registered application, with one pool of tokens and one token. At least one.
        client: Named<Client> [sample "catalog"];
        /// An address that accepts the apps' connections. Without any there is one on
        /// 127.0.0.1:8080.
        listener: Named<Listener> [sample "local"];
        /// A program that may call. Once there is one, every caller must authenticate: by Basic
        /// with the app's name and key, by the key as Bearer, by a token that the proxy issued to
        /// the app at `token_path` or at a session login, by a client certificate, or by a listener
        /// of its own; at a forward listener by Basic with name and key in the proxy's URL.
        app: Named<App> [sample "lineage"];
        /// What is forwarded, whatever the app.
        policy: Policy;
        /// The process.
        server: Server;
        /// The address of health checks, metrics and the status page.
        admin: Admin;
        /// The log on standard error.
        log: Log;
        /// Where tokens are kept.
        store: Store;
        /// Traces: a span for each request and each token request, sent over OTLP. Off without an
        /// endpoint.
        trace: Trace;
        /// The local authority, which `collibra-auth-proxy ca` makes for `mode = "forward"` and
        /// `tls = "local"`.
        ca: Ca;
    }

    /// `[instance.NAME]`.
    Instance {
        /// Required: the scheme, the host and, if it is not the default, the port.
        url: String [sample "\"https://acme.collibra.com\""];
        /// Whether `http://` to another machine is accepted; to this machine it always is.
        allow_insecure: bool = false;
        /// Where to connect instead of what DNS says: a host and a port, or a list of them. Name,
        /// certificate and Host stay those of `url`. Not used for connections through a forward
        /// proxy.
        address: Vec<Target> [example "[\"10.1.2.3:443\", \"10.1.2.4:443\"]"];
        /// The path of the token endpoint. Requests for it are never forwarded.
        token_path: String = TOKEN_PATH.to_owned() => |path, _| token_path(path);
        /// Certificates (PEM) to accept besides the system's.
        ca_file: PathBuf [example "\"acme-ca.pem\""];
        /// A client certificate (PEM), shown to the API and the token endpoint if they request one.
        /// Give it and its key, or neither.
        client_cert_file: PathBuf [example "\"client.pem\""];
        /// The key of the client certificate (PEM).
        client_key_file: PathBuf [example "\"client.key\""];
        /// The forward proxy (CONNECT) for calls of the API, with credentials if it needs some;
        /// `direct` for none. Without this key the variables HTTPS_PROXY and ALL_PROXY apply,
        /// except for this machine and for what NO_PROXY matches; with it they do not.
        proxy: Secret [example "\"http://proxy.corp:3128\""];
        /// The same for the token endpoint.
        token_proxy: Secret [example "\"http://proxy.corp:3128\""];
        /// A file with `user:password` for those of the two that have no credentials in their URL.
        proxy_credentials_file: PathBuf [example "\"proxy_credentials\""];
        /// Whether the API is called by HTTP/2 if it offers that.
        http2: bool = true;
        /// The longest time for a connection, TLS included.
        connect_timeout: Duration = seconds(5) => above_zero;
        /// The longest silence inside a response; `0s` for no limit. The whole response has no
        /// limit.
        idle_timeout: Duration = Duration::ZERO;
        /// The longest time for the head of a response once it has begun.
        header_timeout: Duration = seconds(60) => above_zero;
        /// The longest time for which an address is used before the name is resolved again.
        resolve_ttl_max: Duration = seconds(30) => above_zero;
    }

    /// `[client.NAME]`.
    Client {
        /// The name of its instance; may be left out if there is only one.
        instance: String [sample "\"acme\""];
        /// Required: the id, here or in one of the three ways below.
        client_id: Secret [sample "\"urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn\""];
        /// A file with the id.
        client_id_file: PathBuf [example "\"client_id\""];
        /// The environment variable with the id.
        client_id_env: String [example "\"COLLIBRA_CLIENT_ID\""];
        /// Required: the secret, here or in one of the three ways below. Here it causes a warning.
        client_secret: Secret [example "\"…\""];
        /// A file with the secret.
        client_secret_file: PathBuf [example "\"client_secret\""];
        /// The environment variable with the secret.
        client_secret_env: String [sample "\"COLLIBRA_CLIENT_SECRET\""];
        /// A file with both: JSON with `client_id` and `client_secret`, the form in which a
        /// registration answers.
        credentials_file: PathBuf [example "\"credentials.json\""];
        /// How id and secret are sent: `client_secret_basic` or `client_secret_post`.
        auth_method: AuthMethod = AuthMethod::default();
        /// The scope of the token request; sent unless empty.
        scope: String = String::new();
        /// The longest time for a token request. The default is `10s`, or a sixth of `pool.refill`
        /// if that is less.
        token_timeout: Duration [sample "\"10s\""];
        /// The share of a token's life after which it is renewed; between 0 and 1. Where the pool
        /// would be full by then, the renewal is 3.5 % earlier.
        refresh_at: f64 = 0.5 => only(
            |&share| share > 0.0 && share < 1.0,
            "it is not between 0 and 1",
            "write the share of a token's life after which it is renewed, like 0.5",
        );
        /// The share of that time by which a renewal is brought forward at most, at random; 0 to 1.
        refresh_jitter: f64 = 0.05 => only(
            |share| (0.0..=1.0).contains(share),
            "it is not between 0 and 1",
            "write the share by which a renewal is brought forward at most, like 0.05",
        );
        /// The issuer's limit, mirrored here so that no token request exceeds it.
        pool: Pool;
        /// How long a request waits if there is no token; `0s` for not at all.
        wait_for_token: Duration = seconds(10);
    }

    /// `pool` of a client. The defaults are Collibra's.
    Pool {
        /// How many tokens a full pool holds.
        capacity: u32 = 5 => only(
            |&capacity| capacity >= 1,
            "a pool without tokens issues none",
            "write 1 or more; Collibra's pool has 5",
        );
        /// The time after which the pool gets one more token.
        refill: Duration = seconds(60) => above_zero;
    }

    /// `[listener.NAME]`.
    Listener {
        /// Required: an IP address and a port; or a unix socket, like
        /// `unix:/run/collibra-auth-proxy/local.sock`.
        address: Address [sample "\"127.0.0.1:8080\""];
        /// How it serves: `reverse`, or `forward` for a forward proxy, whose programs call
        /// Collibra's own address by HTTPS_PROXY. For a unix socket its permissions, as for chmod;
        /// the default is `0600`: only this user.
        mode: ListenerMode [example "\"forward\""];
        /// What a forward listener does about hosts that are no instance's: `refuse`, or `tunnel`
        /// to pass the bytes through.
        others: Others [example "\"refuse\""];
        /// Must be true for a forward listener beyond this machine, besides what follows for other
        /// listeners.
        allow_remote: bool [example "false"];
        /// The client whose token is attached; may be left out if there is only one.
        client: String [sample "\"catalog\""];
        /// Path prefixes with another client. `strip` removes the prefix from the forwarded path.
        route: List<Route> [example "[{ prefix = \"/dev\", client = \"catalog-dev\", strip = true }]"];
        /// The app of every caller of this listener; for an address that only this app reaches.
        app: String [example "\"lineage\""];
        /// Accepted values of Host, on any port: the names under which apps call. The default is
        /// `localhost`, `127.0.0.1`, `[::1]` and the address above, unless that is all interfaces.
        /// `["*"]` accepts any; it is for a listener whose callers all authenticate, and the
        /// default there beyond this machine.
        hosts: Vec<String> [sample "[\"localhost\", \"127.0.0.1\", \"[::1]\"]"];
        /// TLS, with HTTP/2 for callers that request it. Or `local`: certificates of the local
        /// authority for the instances' hosts, which `hosts` then has by default.
        tls: WordOr<Tls> [example "{ cert_file = \"proxy.pem\", key_file = \"proxy.key\", client_ca_file = \"apps-ca.pem\" }"];
        /// Must be true to listen beyond this machine without apps: every program that reaches the
        /// port then calls Collibra with the token.
        allow_unauthenticated: bool = false;
        /// Whether an app may open a WebSocket.
        upgrades: bool = false;
        /// The longest time for the head of a request, for the first byte of a connection and for a
        /// TLS handshake.
        header_timeout: Duration = seconds(10) => above_zero;
        /// The largest head of a request, in bytes; 1024 to 1048576.
        max_header_bytes: u32 = 65_536 => only(
            |bytes| (1024..=1_048_576).contains(bytes),
            "it is out of bounds",
            "write a number of bytes from 1024 to 1048576; the default is 65536",
        );
        /// The lowest rate, in bytes per second, at which a caller may send a body and read a
        /// response. Applies after 5 s (30 s for the first byte of a chunked body), and only to
        /// time in which the proxy waits for the caller. 0 for no limit.
        min_body_rate: u32 = 240;
        /// The most concurrent connections; further ones wait. Each takes two open files.
        max_connections: u32 = 10_000 => only(
            |&connections| connections >= 1,
            "the listener could accept no connection",
            "write 1 or more; the default is 10000",
        );
        /// Proxies and load balancers before this listener. The caller's address that they give in
        /// X-Forwarded-For or Forwarded is logged (`forwarded`); it never authenticates the caller.
        trusted_proxies: Vec<IpNet> [example "[\"10.0.0.0/8\"]"] = Vec::new();
    }

    /// `tls` of a listener.
    Tls {
        /// Required: the certificate (PEM) and, below it, those that lead to its authority.
        cert_file: PathBuf [example "\"proxy.pem\""];
        /// Required: the certificate's key (PEM).
        key_file: PathBuf [example "\"proxy.key\""];
        /// The authority (PEM) of callers' certificates, if callers may show some.
        client_ca_file: PathBuf [example "\"apps-ca.pem\""];
    }

    /// An item of `route` of a listener.
    Route {
        /// Required: the beginning of the paths, in whole segments.
        prefix: String [example "\"/dev\""];
        /// The client whose token is attached; may be left out if there is only one.
        client: String [example "\"catalog-dev\""];
        /// Whether the prefix is removed from the forwarded path.
        strip: bool = false;
    }

    /// `[app.NAME]`.
    App {
        /// A file with its key: one line of 16 bytes or more.
        key_file: PathBuf [example "\"lineage.key\""];
        /// The environment variable with its key.
        key_env: String [example "\"LINEAGE_KEY\""];
        /// A subject alternative name of its client certificate, or the common name of one without
        /// any. The default is the app's name.
        certificate: String [example "\"lineage.internal\""];
        /// Its client, in place of the one of its listener or route.
        client: String [example "\"catalog\""];
        /// What it may call: methods (all if left out) and a path, in which `*` stands for any
        /// characters within a segment and `**` for any number of segments. Without this key: all
        /// that `deny` allows.
        allow: Vec<Pattern> [example "[\"GET /rest/2.0/**\", \"POST /graphql/**\"]"];
        /// The most requests per second; those of one second may come at once. No limit if left
        /// out.
        requests_per_second: f64 [example "50"];
        /// The most requests in flight at once. No limit if left out.
        max_in_flight: u32 [example "32"];
    }

    /// `[policy]`.
    Policy {
        /// What is never forwarded, matched without regard to case. The default is the API that
        /// registers and deletes clients.
        deny: Vec<Pattern> = DENY.parse().into_iter().collect();
        /// Session logins: `local` answers them here, without a session at Collibra; `deny` refuses
        /// them; `pass` forwards them.
        sessions: Sessions = Sessions::default();
    }

    /// `[server]`.
    Server {
        /// Worker threads; 0 for one per core.
        threads: u32 [at_start] = 0 => only(
            |&threads| threads <= 1024,
            "these are too many",
            "write 0 for one per core, or at most 1024",
        );
        /// How long requests in flight may take after SIGTERM.
        drain: Duration = seconds(20);
    }

    /// `[admin]`.
    Admin {
        /// An IP address and a port, or a unix socket.
        address: Address [at_start] = ADMIN.into();
        /// The permissions of a unix socket, as for chmod; the default is `0600`.
        mode: Mode [at_start, example "\"0660\""];
        /// Accepted values of Host, besides localhost and any IP address: the names by which
        /// monitoring calls.
        hosts: Vec<String> [example "[\"collibra-auth-proxy.monitoring.svc\"]"];
    }

    /// `[log]`.
    Log {
        /// Whether each request is logged.
        access: bool = true;
        /// Whether that line has the caller's User-Agent.
        user_agent: bool = false;
    }

    /// `[store]`.
    Store {
        /// `memory`: in this process only. `file`: in the directory `path`, sealed with the
        /// client's secret, so that a restart and the other processes of this machine need no token
        /// of their own. `redis`: on a Redis (6 or later) or Valkey server, sealed as well, so that
        /// all proxies of a fleet share one. `kubernetes`: in a Secret of the cluster, for the
        /// same.
        kind: String = "memory".to_owned() => |name, _| kind(name);
        /// The directory; it is created if there is none, closed to other users.
        path: PathBuf [kind "file", example "\"/var/lib/collibra-auth-proxy\""];
        /// The server: `redis://` in the clear, `rediss://` by TLS, always verified, or `unix://`
        /// for a socket of this machine. The user comes before the host, the number of the database
        /// after it: `rediss://user@redis.example:6379/0`; with a socket,
        /// `unix:///run/redis.sock?user=user&db=0`.
        /// `rediss+sentinel://a.example:26379,b.example:26379/primary` follows the primary that the
        /// sentinels name, `rediss+cluster://a.example,b.example` is a cluster; in the clear they
        /// begin with `redis+`.
        url: Secret [kind "redis", example "\"rediss://redis.example:6379\""];
        /// A file with the server's password.
        password_file: PathBuf [kind "redis", example "\"/run/secrets/redis/password\""];
        /// The prefix of its keys. Proxies with the same prefix share their tokens.
        key_prefix: String [kind "redis", example "\"collibra-auth-proxy\""]
            = "collibra-auth-proxy".to_owned() => only(
                |prefix: &String| {
                    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}');
                    (1..=100).contains(&prefix.len()) && prefix.chars().all(plain)
                },
                "the prefix is invalid",
                "write up to 100 ASCII letters, digits and signs, without spaces and braces",
            );
        /// Certificates (PEM) to accept besides the system's.
        ca_file: PathBuf [kind "redis", example "\"/etc/ssl/redis-ca.pem\""];
        /// The namespace of the Secret and the Lease. Without it: the pod's own, or that of the
        /// kubeconfig file, or else `default`. A build without the feature `kubernetes` refuses
        /// this kind.
        namespace: String [kind "kubernetes", example "\"collibra\""];
        /// The Secret with the sealed tokens. It must exist and may be empty. The default is
        /// `collibra-auth-proxy-token`.
        secret: String [kind "kubernetes", example "\"collibra-auth-proxy-token\""];
        /// The Lease that decides which proxy requests a token, with the same default. It must
        /// exist and may be empty.
        lease: String [kind "kubernetes", example "\"collibra-auth-proxy-token\""];
        /// The access to the API server. Without it: the pod's service account, then the variable
        /// KUBECONFIG.
        kubeconfig: PathBuf [kind "kubernetes", example "\"/etc/collibra-auth-proxy/kubeconfig\""];
    }

    /// `[trace]`.
    Trace {
        /// The base URL of a collector's receiver for HTTP. If left out, that of the variables
        /// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT.
        endpoint: String [at_start, example "\"http://localhost:4318\""];
        /// The share of the traces beginning here that are recorded; for others the caller decides.
        sample: f64 [at_start] = 1.0 => only(
            |share| (0.0..=1.0).contains(share),
            "this is no share",
            "write a number from 0 (no trace) to 1 (every trace)",
        );
    }

    /// `[ca]`.
    Ca {
        /// The directory of `local-ca.pem` and `local-ca.key`. The default is this file's
        /// directory.
        dir: PathBuf [example "\"/var/lib/collibra-auth-proxy\""];
    }
}

/// Returns what is wrong with the path of a token endpoint.
fn token_path(path: &str) -> Option<Wrong> {
    let problem = if !path.starts_with('/') {
        "it does not begin with a slash"
    } else if path.starts_with("//") || path.len() == 1 {
        "this is not the path of a token endpoint"
    } else if !path.chars().all(|c| c.is_ascii_graphic()) || path.contains(['?', '#', '\\']) {
        "it has a character that a path cannot have"
    } else {
        return None;
    };
    let remedy = format!("write a path like \"{TOKEN_PATH}\", or leave the key out");
    Some((problem.to_owned(), remedy))
}

/// Returns what is wrong with the kind of a store.
fn kind(kind: &str) -> Option<Wrong> {
    const KINDS: [&str; 4] = ["memory", "file", "redis", "kubernetes"];
    let remedy = match nearest(kind, KINDS) {
        _ if KINDS.contains(&kind) => return None,
        Some(meant) => format!("write \"{meant}\""),
        None => format!("known are {}", listed(KINDS)),
    };
    Some(("there is no such store".to_owned(), remedy))
}

impl Tables {
    /// Reads a file's text. Reports unknown keys, wrong types and every syntax error; after a
    /// syntax error there is no result.
    pub(super) fn parse(text: &str, origin: &Origin, context: &LoadContext<'_>) -> Option<Tables> {
        let lines = Lines::of(text);
        let root = Location::of(origin.clone(), "");
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            // the message names what is expected, and quotes nothing
            let problem = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            let remedy = "fix the line; strings and durations need quotes";
            let location = Location {
                line: error.span().map(|span| lines.line(span.start)),
                ..root.clone()
            };
            context.fault(location.fault(problem, remedy));
        }
        errors.is_empty().then(|| {
            let keys = <Tables as Declared>::KEYS;
            let table = Table::new(document.get_ref(), &lines, root.clone(), keys, context);
            <Tables as Declared>::read("".into(), root, Some(&table))
        })
    }
}

impl Listener {
    /// The default listener.
    pub(super) fn local(location: Location, address: Address) -> Listener {
        Listener {
            address: Some(Spanned {
                value: address,
                location: location.child("address"),
            }),
            ..Declared::absent("local", location)
        }
    }
}
