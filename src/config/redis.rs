//! `[store]` of the kind `redis`: the server and the login.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::context::LoadContext;
use super::location::Spanned;
use super::value::REDACTED;
use super::{credentials, tables};
use crate::secret::Secret;
use crate::store::redis::{Config, Server, Trust};

const PORT: u16 = 6379;

const SENTINEL_PORT: u16 = 26_379;

const URL_REMEDY: &str = "write one like \"rediss://redis.example:6379\", \"unix:///run/redis/redis.sock\", \"rediss+sentinel://a.example,b.example/primary\" or \"rediss+cluster://a.example,b.example\"";

/// The parts of a URL.
struct Address {
    server: Server,
    user: Option<String>,
    password: Option<Secret>,
    database: u32,
}

/// Parses the store's settings. `None` only if a fault was reported.
pub(super) fn parse(raw: &tables::Store, context: &LoadContext<'_>) -> Option<Config> {
    if raw.url.is_absent() {
        let location = raw.at("url");
        context.fault(location.fault("the server's address is missing", URL_REMEDY));
    }
    let url = raw.url.given();
    let address = url.and_then(|spanned| {
        let address = parse_address(spanned.value.expose());
        context.sound(address.map_err(|problem| spanned.location.fault(problem, URL_REMEDY)))
    });
    let password_file = raw.password_file.given();
    if let (Some(url), Some(address)) = (url, &address) {
        warn(url, address, password_file.is_some(), context);
        raw.show_as("url", without_password(url.value.expose()));
    }
    let from_file = password_file.map(|spanned| {
        let read = credentials::secret_file(spanned, context)?;
        let remedy = "write the password into it, on one line";
        let password = Secret::parse(read.expose());
        context.sound(password.map_err(|e| spanned.location.fault(e.to_string(), remedy)))
    });
    let key_prefix = raw.key_prefix(context);
    let Address {
        mut server,
        user,
        password,
        database,
    } = address?;
    if let Some(spanned) = raw.ca_file.given() {
        let read = credentials::ca_file(spanned, credentials::CA_REMEDY, context);
        match &mut server {
            Server::Tls { ca_file, .. }
            | Server::Sentinel {
                tls: Some(Trust { ca_file }),
                ..
            }
            | Server::Cluster {
                tls: Some(Trust { ca_file }),
                ..
            } => *ca_file = read,
            _ => context.fault(spanned.location.fault(
                "it counts only for a server that is spoken to by TLS",
                "write rediss:// in `url`, or leave this key out",
            )),
        }
    }
    Some(Config {
        server,
        user,
        password: from_file.unwrap_or(password),
        database,
        key_prefix,
    })
}

/// Parses the URL. It may contain a password, so no part of it is ever quoted.
fn parse_address(text: &str) -> Result<Address, &'static str> {
    let text = text.trim();
    if let Some((scheme, rest)) = text.split_once("://")
        && scheme.contains('+')
    {
        return several(scheme, rest);
    }
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if url.fragment().is_some() {
        return Err("it has a fragment, a part after `#`; in a password write that as %23");
    }
    match url.scheme() {
        "unix" => return socket(&url),
        "redis" | "rediss" => {}
        _ => {
            return Err(
                "it begins with none of redis://, rediss://, unix://, and the first two with +sentinel or +cluster",
            );
        }
    }
    let host = match url.host() {
        // for non-web schemes the library returns an IPv4 address as a domain
        Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        _ => return Err("it has no host"),
    };
    if url.query().is_some() {
        return Err("it has a query, a part after `?`, which means nothing here");
    }
    let port = url.port().unwrap_or(PORT);
    let server = if url.scheme() == "rediss" {
        let ca_file = None;
        Server::Tls {
            host,
            port,
            ca_file,
        }
    } else {
        Server::Tcp { host, port }
    };
    let user = Some(url.username()).filter(|user| !user.is_empty());
    let password = url.password().map(decoded).transpose()?;
    Ok(Address {
        server,
        user: user.map(decoded).transpose()?,
        password: password.map(Secret::from),
        database: database(url.path().trim_start_matches('/'))?,
    })
}

/// Parses sentinels and their name for the primary, or the nodes of a cluster.
fn several(scheme: &str, rest: &str) -> Result<Address, &'static str> {
    let (tls, port) = match scheme {
        "redis+sentinel" => (None, SENTINEL_PORT),
        "rediss+sentinel" => (Some(Trust::default()), SENTINEL_PORT),
        "redis+cluster" => (None, PORT),
        "rediss+cluster" => (Some(Trust::default()), PORT),
        _ => return Err("what follows the + is neither sentinel nor cluster"),
    };
    if rest.contains(['?', '#']) {
        return Err(
            "it has a query or a fragment, a part after `?` or `#`, which means nothing here",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let node = |text: &str| {
        let url = Url::parse(&format!("redis://{text}")).map_err(|_| "one of its hosts is none")?;
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err("one of its hosts is none"),
        };
        Ok((host, url.port().unwrap_or(port)))
    };
    let nodes = hosts.split(',').map(node).collect::<Result<Vec<_>, _>>()?;
    let (server, database) = if scheme.ends_with("cluster") {
        if !path.is_empty() {
            return Err("a cluster has one database, so nothing follows its hosts");
        }
        (Server::Cluster { nodes, tls }, 0)
    } else {
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
        (server, database(number)?)
    };
    Ok(Address {
        server,
        user: Some(user)
            .filter(|user| !user.is_empty())
            .map(decoded)
            .transpose()?,
        password: password.map(decoded).transpose()?.map(Secret::from),
        database,
    })
}

/// Parses a socket's path, with optional `?db=` and `?user=`.
fn socket(url: &Url) -> Result<Address, &'static str> {
    if url.host().is_some() || url.path().len() < 2 {
        return Err("it names no socket: a path has three slashes before it");
    }
    let mut address = Address {
        server: Server::Unix {
            path: PathBuf::from(decoded(url.path())?),
        },
        user: None,
        password: None,
        database: 0,
    };
    for (key, value) in url.query_pairs() {
        match &*key {
            "db" => address.database = database(&value)?,
            "user" => address.user = Some(value.into_owned()),
            _ => return Err("its query, the part after `?`, has something other than db and user"),
        }
    }
    Ok(address)
}

fn database(text: &str) -> Result<u32, &'static str> {
    match text {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| "its path is not the number of a database"),
    }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "it is not UTF-8 once its %-signs are read")
}

/// Reports two passwords, and warns about settings that work but are unsafe.
fn warn(url: &Spanned<Secret>, address: &Address, has_file: bool, context: &LoadContext<'_>) {
    if address.password.is_some() && has_file {
        context.fault(url.location.fault(
            "it has a password in it, and there is a `password_file` too",
            "keep one of the two",
        ));
    } else if address.password.is_some() && url.location.in_file() {
        context.warning(url.location.fault(
            "a password stands in the configuration, which is often copied and committed",
            "keep it in a file and name that with `password_file`",
        ));
    }
    let in_the_clear = match &address.server {
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

fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Returns a server's URL without its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return REDACTED.to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let login = match login.split_once(':') {
                Some((user, _password)) => format!("{user}:{REDACTED}"),
                None => login.to_owned(),
            };
            format!("{scheme}://{login}@{hosts}{path}")
        }
        None => url.to_owned(),
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
            ("pw", "<redacted>"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
