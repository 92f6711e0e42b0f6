//! The effective configuration for display: every key with its value, whether from the file, a
//! flag, the environment or the default. A secret is shown as its source: a file or a variable.

mod given;
mod text;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Client, Config};
use crate::oauth::AuthMethod;
use crate::outgoing::tunnel::Proxy;
use crate::proxy::config::{App, Listener, Others, Route};
use crate::proxy::policy::pattern::Pattern;
use crate::proxy::policy::{Policy, Sessions};
use crate::socket::Address;
use crate::store;
use crate::trace;
use crate::upstream::Instance;

pub(super) use given::Given;

/// The replacement for a secret that is written in the configuration itself.
pub const REDACTED: &str = "<redacted>";

/// Returns the configuration as a tree: one JSON object per table.
#[must_use]
pub fn tree(config: &Config) -> Value {
    let mut root = json!({
        "instance": named(&config.instances, |instance| self::instance(instance, config)),
        "client": named(&config.clients, client),
        "listener": listeners(&config.listeners),
        "policy": policy(&config.policy),
        "server": {
            "threads": config.server.threads,
            "drain": duration(config.server.drain),
        },
        "admin": address(&config.admin.address),
        "log": { "access": config.access_log, "user_agent": config.log_user_agent },
        "store": store(&config.store),
    });
    root["admin"]["hosts"] = json!(config.admin.hosts);
    if let Some(trace) = &config.trace {
        root["trace"] = self::trace(trace);
    }
    if !config.apps.is_empty() {
        root["app"] = named(&config.apps, |app| self::app(app));
    }
    config.given.add_to(&mut root);
    root
}

/// Returns the configuration as a configuration file.
#[must_use]
pub fn toml(config: &Config) -> String {
    text::toml(&tree(config))
}

fn named<'a, T: 'a>(
    tables: impl IntoIterator<Item = (&'a Arc<str>, &'a T)>,
    table: impl Fn(&T) -> Value,
) -> Value {
    let tables = tables.into_iter();
    let tables = tables.map(|(name, value)| (name.to_string(), table(value)));
    Value::Object(tables.collect())
}

fn instance(instance: &Instance, config: &Config) -> Value {
    // all of its clients share it
    let mut clients = config.clients.values();
    let of_token = clients.find(|client| client.instance == instance.name);
    let token_proxy = of_token.and_then(|client| client.oauth.proxy.as_ref());
    let is_loopback = match instance.host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => instance.host == "localhost",
    };
    let mut table = json!({
        "url": instance.origin(),
        "allow_insecure": !instance.tls && !is_loopback,
        "token_path": instance.token_path,
        "proxy": proxy(instance.proxy.as_ref()),
        "token_proxy": proxy(token_proxy),
        "http2": instance.http2,
        "connect_timeout": duration(instance.connect_timeout),
        "idle_timeout": duration(instance.idle_timeout.unwrap_or_default()),
        "header_timeout": duration(instance.header_timeout),
        "resolve_ttl_max": duration(instance.resolve_ttl_max),
    });
    if !instance.address.is_empty() {
        table["address"] = instance.address.iter().map(ToString::to_string).collect();
    }
    table
}

fn client(client: &Client) -> Value {
    let schedule = client.schedule;
    json!({
        "instance": &*client.instance,
        "auth_method": match client.oauth.auth_method {
            AuthMethod::ClientSecretBasic => "client_secret_basic",
            AuthMethod::ClientSecretPost => "client_secret_post",
        },
        "scope": client.oauth.scope.as_deref().unwrap_or_default(),
        "token_timeout": duration(client.oauth.timeout),
        "refresh_at": schedule.refresh_at,
        "refresh_jitter": schedule.refresh_jitter,
        "pool": {
            "capacity": schedule.pool.capacity,
            "refill": duration(schedule.pool.refill),
        },
        "wait_for_token": duration(client.wait_for_token),
    })
}

fn listeners(listeners: &[Listener]) -> Value {
    let tables = listeners.iter();
    let tables = tables.map(|one| (one.name.to_string(), listener(one)));
    Value::Object(tables.collect())
}

fn listener(listener: &Listener) -> Value {
    let mut table = address(&listener.address);
    let route = |route: &Route| {
        json!({
            "prefix": &*route.prefix,
            "client": &*route.client,
            "strip": route.strip,
        })
    };
    let more = json!({
        "client": &*listener.client,
        "hosts": listener.hosts,
        "trusted_proxies": listener.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "upgrades": listener.upgrades,
        "header_timeout": duration(listener.header_timeout),
        "max_header_bytes": listener.max_header_bytes,
        "min_body_rate": listener.min_body_rate.map_or(0, |rate| rate.get()),
        "max_connections": listener.max_connections,
    });
    add(&mut table, more);
    if let Some(forward) = &listener.forward {
        table["mode"] = json!("forward");
        table["others"] = json!(match forward.others {
            Others::Refuse => "refuse",
            Others::Tunnel => "tunnel",
        });
        // these are the instances'
        remove(&mut table, "hosts");
    }
    if !listener.routes.is_empty() {
        table["route"] = listener.routes.iter().map(route).collect();
    }
    if let Some(app) = &listener.app {
        table["app"] = json!(&**app);
    }
    table
}

fn app(app: &App) -> Value {
    let mut table = json!({ "certificate": app.certificate });
    if let Some(client) = &app.client {
        table["client"] = json!(&**client);
    }
    if let Some(allow) = &app.allow {
        table["allow"] = patterns(allow);
    }
    if let Some(rate) = app.limits.requests_per_second {
        table["requests_per_second"] = json!(rate);
    }
    if let Some(most) = app.limits.max_in_flight {
        table["max_in_flight"] = json!(most);
    }
    table
}

fn policy(policy: &Policy) -> Value {
    json!({
        "deny": patterns(&policy.deny),
        "sessions": match policy.sessions {
            Sessions::Local => "local",
            Sessions::Deny => "deny",
            Sessions::Pass => "pass",
        },
    })
}

fn store(config: &store::Config) -> Value {
    let mut table = json!({ "kind": config.kind() });
    match config {
        store::Config::Memory => {}
        store::Config::File { directory } => table["path"] = json!(directory),
        store::Config::Redis(redis) => table["key_prefix"] = json!(redis.key_prefix),
        #[cfg(feature = "kubernetes")]
        store::Config::Kubernetes(kubernetes) => {
            let more = json!({
                "namespace": kubernetes.namespace,
                "secret": kubernetes.secret,
                "lease": kubernetes.lease,
            });
            add(&mut table, more);
        }
    }
    table
}

/// The trace settings, if traces are sent. The collector URL's query may contain a key.
fn trace(config: &trace::Config) -> Value {
    let mut endpoint = config.endpoint.clone();
    endpoint.set_query(None);
    // a URL without a host would fail, but this one has a host
    let _ = endpoint.set_password(None);
    json!({ "endpoint": endpoint.as_str(), "sample": config.sample })
}

fn patterns(patterns: &[Pattern]) -> Value {
    patterns.iter().map(ToString::to_string).collect()
}

/// `address`, and the `mode` of a unix socket.
fn address(address: &Address) -> Value {
    let mut table = json!({ "address": address.to_string() });
    if let Address::Unix { mode, .. } = address {
        table["mode"] = json!(format!("{mode:04o}"));
    }
    table
}

/// Returns a forward proxy without its credentials.
fn proxy(proxy: Option<&Proxy>) -> Value {
    match proxy {
        None => json!("direct"),
        Some(proxy) if proxy.has_credentials() => json!(format!("http://{REDACTED}@{proxy}")),
        Some(proxy) => json!(format!("http://{proxy}")),
    }
}

fn duration(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

fn remove(table: &mut Value, key: &str) {
    if let Some(table) = table.as_object_mut() {
        table.remove(key);
    }
}

/// Adds the entries of `more` to `table`.
fn add(table: &mut Value, more: Value) {
    if let (Some(table), Value::Object(more)) = (table.as_object_mut(), more) {
        table.extend::<Map<_, _>>(more);
    }
}
