//! `[store]` of the kind `redis`: the server and the login.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::context::LoadContext;
use super::credentials::{self, CA_REMEDY, Source};
use super::fault::Spanned;
use super::forward::is_loopback;
use super::tables;
use super::value::REDACTED;
use crate::secret::Secret;
use crate::store::redis::{Config, Server, Trust};

const PORT: u16 = 6379;

const SENTINEL_PORT: u16 = 26_379;

const URL_REMEDY: &str = "write one like \"rediss://redis.example:6379\", \"unix:///run/redis/redis.sock\", \"rediss+sentinel://a.example,b.example/primary\" or \"rediss+cluster://a.example,b.example\"";

const QUERY: &str = "it has a query, a part after `?`, which means nothing here";

/// Parses the store's settings. `None` only if a fault was reported.
pub(super) fn parse(raw: &tables::Store, context: &LoadContext<'_>) -> Option<Config> {
    let missing = "the server's address is missing";
    let url = raw.demand("url", &raw.url, missing, URL_REMEDY, context);
    let ca_file = raw.ca_file.as_ref();
    let trust = Trust {
        ca_file: ca_file.and_then(|file| credentials::ca_file(file, CA_REMEDY, context)),
    };
    let parsed = url.and_then(|url| {
        let text = url.value.expose().trim();
        let (config, shown) = context.sound(parse_url(text, trust), &url.location, URL_REMEDY)?;
        raw.show_as("url", shown);
        warn(url, &config, raw.password_file.is_some(), context);
        if let Some(file) = ca_file.filter(|_| !text.starts_with("rediss")) {
            context.fault(file.location.fault(
                "it applies only to a server with TLS",
                "write rediss:// in `url`, or leave this key out",
            ));
        }
        Some(config)
    });
    let from_file = raw.password_file.as_ref().map(|file| {
        let remedy = "write the password into it, on one line";
        Source::File(file).read(true, Secret::parse, remedy, context)
    });
    let key_prefix = raw.key_prefix(context);
    let config = parsed?;
    Some(Config {
        password: from_file.unwrap_or(config.password),
        key_prefix,
        ..config
    })
}

/// Parses the URL of a server, which has this `trust` if it speaks TLS, and returns the URL without
/// its password too. No error quotes a part of it.
fn parse_url(text: &str, trust: Trust) -> Result<(Config, String), &'static str> {
    if text.contains('#') {
        return Err("it has a fragment, a part after `#`; in a password write that as %23");
    }
    let (scheme, rest) = text.split_once("://").ok_or("this is no URL")?;
    if scheme == "unix" {
        return Ok((socket(rest)?, text.to_owned()));
    }
    let (transport, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    let tls = match transport {
        "redis" => None,
        "rediss" => Some(trust),
        _ => {
            return Err(
                "it begins with none of redis://, rediss://, unix://, and the first two with +sentinel or +cluster",
            );
        }
    };
    if rest.contains('?') {
        return Err(QUERY);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let nodes = |port| {
        let nodes = hosts.split(',').map(|text| node(text, port));
        nodes.collect::<Result<Vec<_>, _>>()
    };
    let (server, number) = match kind {
        "" => {
            let (host, port) = node(hosts, PORT)?;
            let server = match tls {
                None => Server::Tcp { host, port },
                Some(Trust { ca_file }) => Server::Tls {
                    host,
                    port,
                    ca_file,
                },
            };
            (server, path)
        }
        "sentinel" => {
            let nodes = nodes(SENTINEL_PORT)?;
            let (name, number) = path.split_once('/').unwrap_or((path, ""));
            let primary = decoded(name)?;
            if primary.is_empty() {
                return Err("after the sentinels stands no name of the primary, like /mymaster");
            }
            let server = Server::Sentinel {
                nodes,
                primary,
                tls,
            };
            (server, number)
        }
        "cluster" if path.is_empty() => {
            let nodes = nodes(PORT)?;
            (Server::Cluster { nodes, tls }, "")
        }
        "cluster" => return Err("a cluster has one database, so nothing follows its hosts"),
        _ => return Err("what follows the + is neither sentinel nor cluster"),
    };
    let shown = match password {
        Some(secret) => text.replacen(&format!(":{secret}@"), &format!(":{REDACTED}@"), 1),
        None => text.to_owned(),
    };
    let config = Config {
        server,
        user: (!user.is_empty()).then(|| decoded(user)).transpose()?,
        password: password.map(decoded).transpose()?.map(Secret::from),
        database: database(number)?,
        key_prefix: String::new(),
    };
    Ok((config, shown))
}

/// Parses a host and, if it is not the default, its port.
fn node(text: &str, port: u16) -> Result<(String, u16), &'static str> {
    const INVALID: &str = "it has no host, or one that is none";
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| INVALID)?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty() && !host.contains(','));
    let host = decoded(host.ok_or(INVALID)?.trim_matches(['[', ']']))?;
    Ok((host, url.port().unwrap_or(port)))
}

/// Parses a socket's path, with optional `?db=` and `?user=`.
fn socket(text: &str) -> Result<Config, &'static str> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if !path.starts_with('/') || path.len() < 2 {
        return Err("it names no socket: a path has three slashes before it");
    }
    let mut config = Config {
        server: Server::Unix {
            path: PathBuf::from(decoded(path)?),
        },
        user: None,
        password: None,
        database: 0,
        key_prefix: String::new(),
    };
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "db" => config.database = database(&value)?,
            "user" => config.user = Some(value.into_owned()),
            _ => return Err("its query, the part after `?`, has something other than db and user"),
        }
    }
    Ok(config)
}

fn database(text: &str) -> Result<u32, &'static str> {
    let number = if text.is_empty() { "0" } else { text };
    let problem = "its path is not the number of a database";
    number.parse().map_err(|_| problem)
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "it is not UTF-8 once its %-signs are read")?;
    Ok(decoded.into_owned())
}

/// Reports two passwords, and warns about settings that work but are unsafe.
fn warn(url: &Spanned<Secret>, config: &Config, has_file: bool, context: &LoadContext<'_>) {
    if config.password.is_some() && has_file {
        context.fault(url.location.fault(
            "it has a password in it, and there is a `password_file` too",
            "keep one of the two",
        ));
    } else if config.password.is_some() && url.location.in_file() {
        context.warning(url.location.fault(
            "a password is in the configuration, which is often copied and committed",
            "keep it in a file and name that with `password_file`",
        ));
    }
    let in_the_clear = match &config.server {
        Server::Tcp { host, .. } => !is_loopback(host),
        Server::Sentinel {
            nodes, tls: None, ..
        }
        | Server::Cluster { nodes, tls: None } => nodes.iter().any(|(host, _)| !is_loopback(host)),
        _ => false,
    };
    if in_the_clear {
        context.warning(url.location.fault(
            "the password and the keys travel to this host unencrypted; tokens are sealed",
            "write rediss:// where the server speaks TLS",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_left_out_of_a_url() {
        for (url, shown) in [
            ("redis://r:6379/1", "redis://r:6379/1"),
            ("rediss://me@r:6379", "rediss://me@r:6379"),
            (
                "rediss://me:p:w@r:6379/0",
                "rediss://me:<redacted>@r:6379/0",
            ),
            ("redis://:pw@r", "redis://:<redacted>@r"),
            (
                "redis+sentinel://u:p@q@a:1,b/primary",
                "redis+sentinel://u:<redacted>@a:1,b/primary",
            ),
            (
                "unix:///run/r.sock?user=me&db=1",
                "unix:///run/r.sock?user=me&db=1",
            ),
        ] {
            assert_eq!(parse_url(url, Trust::default()).unwrap().1, shown);
        }
    }
}
