//! The forward proxies of an instance: from its keys, or else from the environment, by the
//! conventions of other programs.
//!
//! A key overrides the environment. Without one the variables `https_proxy` and `HTTPS_PROXY` apply
//! (`http_proxy`, `HTTP_PROXY` for an `http://` instance), then `all_proxy` and `ALL_PROXY`, unless
//! `no_proxy` or `NO_PROXY` matches the host. The environment's proxy is never used for this
//! machine itself. An empty variable counts as unset.

use std::net::IpAddr;

use url::Url;

use super::context::LoadContext;
use super::fault::{Field, Location, Spanned};
use super::value::{REDACTED, network};
use super::{credentials, tables};
use crate::outgoing::tunnel::{InvalidProxy, Proxy};
use crate::secret::Secret;

/// The value for no proxy.
const DIRECT: &str = "direct";
const REMEDY: &str = "write one like \"http://proxy.corp:3128\", or \"direct\" for none";

/// Parses the forward proxies of an instance: for the API, and for the token endpoint.
pub(super) fn parse(
    raw: &tables::Instance,
    url: Option<&Url>,
    context: &LoadContext<'_>,
) -> [Option<Proxy>; 2] {
    let file = raw.proxy_credentials_file.as_ref();
    let credentials = file.and_then(|file| {
        let text = credentials::file(file, context);
        credentials::warn_if_readable_by_all(&file.value, &file.location, context);
        Some((text?, &file.location))
    });
    let environment = url.and_then(|url| from_environment(url, context));
    let mut used = false;
    let mut one = |name: &str, key: &Field<Secret>| {
        let spanned = match key {
            None => {
                used |= raw.has(name);
                return show(raw, name, environment.clone());
            }
            Some(spanned) if spanned.value.expose().trim() == DIRECT => {
                return show(raw, name, None);
            }
            Some(spanned) => spanned,
        };
        let named = named(spanned, context);
        used |= !named.as_ref().is_some_and(Proxy::has_credentials);
        let proxy = show(raw, name, Some(named?))?;
        match &credentials {
            Some((text, location)) if !proxy.has_credentials() => {
                let remedy = "the file should hold one line, user:password";
                context.sound(proxy.with_credentials(text.expose()), location, remedy)
            }
            _ => Some(proxy),
        }
    };
    let api = one("proxy", &raw.proxy);
    let token = one("token_proxy", &raw.token_proxy);
    if let Some((_, location)) = credentials.filter(|_| !used) {
        context.fault(location.fault(
            "neither proxy nor token_proxy names a proxy that lacks credentials",
            "name one without credentials in its URL, or leave this key out",
        ));
    }
    [api, token]
}

/// The proxy that a key names.
fn named(spanned: &Spanned<Secret>, context: &LoadContext<'_>) -> Option<Proxy> {
    let proxy = Proxy::parse(spanned.value.expose());
    let proxy = context.sound(proxy, &spanned.location, REMEDY)?;
    if proxy.has_credentials() {
        context.warning(spanned.location.fault(
            "the proxy's password is in the configuration, which is often copied and committed",
            "keep user:password in a file and name that with `proxy_credentials_file`",
        ));
    }
    Some(proxy)
}

/// Shows `proxy` without its credentials, as the value of `key`.
fn show(raw: &tables::Instance, key: &str, proxy: Option<Proxy>) -> Option<Proxy> {
    let shown = match &proxy {
        None => DIRECT.to_owned(),
        Some(proxy) if proxy.has_credentials() => format!("http://{REDACTED}@{proxy}"),
        Some(proxy) => format!("http://{proxy}"),
    };
    raw.show_as(key, shown);
    proxy
}

/// Returns whether the host, a name or an address, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The environment's proxy for `url`.
fn from_environment(url: &Url, context: &LoadContext<'_>) -> Option<Proxy> {
    let set = |name: &str| (context.env)(name).filter(|value| !value.trim().is_empty());
    let own = if url.scheme() == "https" {
        ["https_proxy", "HTTPS_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY"]
    };
    let mut names = own.into_iter().chain(["all_proxy", "ALL_PROXY"]);
    let (name, value) = names.find_map(|name| Some((name, set(name)?)))?;
    let spared = ["no_proxy", "NO_PROXY"].into_iter().find_map(set);
    if url.host_str().is_some_and(is_loopback) || spared.is_some_and(|list| is_spared(url, &list)) {
        return None;
    }
    // other programs accept a URL without a scheme
    let value = Secret::from(value);
    let text = value.expose();
    let parsed = match Proxy::parse(text) {
        Err(InvalidProxy::NotAUrl | InvalidProxy::Scheme) if !text.contains("://") => {
            Proxy::parse(&format!("http://{text}"))
        }
        parsed => parsed,
    };
    match parsed {
        Ok(proxy) => Some(proxy),
        Err(problem) => {
            context.warning(Location::variable(name).fault(
                format!("{problem}; it is not used"),
                "name an http:// proxy, or write `proxy = \"direct\"` in [instance.NAME]",
            ));
            None
        }
    }
}

/// Returns whether `list` matches the host of `url`. An entry is a host, a parent domain (with or
/// without a leading dot), an address, a range of addresses, or `*` for all; each may have a port.
fn is_spared(url: &Url, list: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let port = url.port_or_known_default();
    list.split([',', ' ']).any(|entry| {
        let entry = entry.trim().to_ascii_lowercase();
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                (name, digits.parse::<u16>().ok())
            }
            _ => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']);
        if wanted.is_some_and(|wanted| Some(wanted) != port) {
            return false;
        }
        name == "*" || covers(name, &host)
    })
}

fn covers(name: &str, host: &str) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return network(name).is_some_and(|network| network.contains(&ip));
    }
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let above = host.strip_suffix(name);
    !name.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::tests::{read, read_with};

    fn with(keys: &str) -> String {
        format!(
            "[instance.acme]\nurl = \"https://acme.example\"\n{keys}\n[client.catalog]\nclient_id = \"id\"\nclient_secret = \"s\"\n"
        )
    }

    /// Returns the proxies for the API and for tokens, and how many warnings mention a proxy.
    fn parsed(keys: &str, env: &[(&str, &str)]) -> (String, String, usize) {
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let config = read_with(&with(keys), Path::new(""), &env).unwrap();
        let shown = |proxy: &Option<Proxy>| {
            let proxy = proxy.as_ref();
            proxy.map_or_else(|| "direct".to_owned(), ToString::to_string)
        };
        let warnings = config.warnings.iter();
        let told = warnings.filter(|w| w.problem.contains("proxy")).count();
        (
            shown(&config.instances["acme"].proxy),
            shown(&config.clients["catalog"].oauth.proxy),
            told,
        )
    }

    fn both(api: &str, token: &str, told: usize) -> (String, String, usize) {
        (api.to_owned(), token.to_owned(), told)
    }

    #[test]
    fn each_key_counts_for_itself() {
        let none = parsed("", &[]);
        assert_eq!(none, both("direct", "direct", 0));
        let api = parsed("proxy = \"http://p:1\"", &[]);
        assert_eq!(api, both("p:1", "direct", 0));
        let token = parsed("token_proxy = \"http://me:pw@p:1\"", &[]);
        assert_eq!(token, both("direct", "p:1", 1));
    }

    #[test]
    fn the_environment_counts_where_no_key_does() {
        let https = ("HTTPS_PROXY", "http://env:1");
        assert_eq!(parsed("", &[https]), both("env:1", "env:1", 0));
        assert_eq!(
            parsed("proxy = \"direct\"", &[https]),
            both("direct", "env:1", 0)
        );
        let spared = ("no_proxy", "other.example, .example");
        assert_eq!(parsed("", &[https, spared]), both("direct", "direct", 0));
        assert_eq!(
            parsed("proxy = \"http://own:2\"", &[https, spared]),
            both("own:2", "direct", 0)
        );
        assert_eq!(
            parsed("", &[("all_proxy", "bare:3")]),
            both("bare:3", "bare:3", 0)
        );
        let socks = ("ALL_PROXY", "socks5://env:1");
        assert_eq!(parsed("", &[socks]), both("direct", "direct", 1));
        let http = ("http_proxy", "http://env:1");
        assert_eq!(parsed("", &[http]), both("direct", "direct", 0));
    }

    #[test]
    fn hosts_are_spared_by_name_domain_address_and_range() {
        for (url, list, expected) in [
            ("https://acme.example", "acme.example", true),
            ("https://acme.example", "example", true),
            ("https://acme.example", "*.example", true),
            ("https://acme.example", "*", true),
            ("https://acme.example", "me.example", false),
            ("https://acme.example", "", false),
            ("https://acme.example", "acme.example:443", true),
            ("https://acme.example", "acme.example:8443", false),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://10.1.2.3", "10.1.2.4, 11.0.0.0/8", false),
            ("https://[fd00::1]", "fd00::/16", true),
            ("https://[fd00::1]", "[fd00::1]:443", true),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(is_spared(&url, list), expected, "{url} {list}");
        }
    }

    #[test]
    fn this_machine_is_reached_directly_unless_a_key_says_otherwise() {
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| "http://env:1".to_owned());
        for (keys, expected) in [("", None), ("proxy = \"http://p:1\"", Some("p:1"))] {
            let text = with(keys).replace("acme.example", "localhost");
            let config = read_with(&text, Path::new(""), &env).unwrap();
            let proxy = config.instances["acme"].proxy.as_ref();
            assert_eq!(proxy.map(ToString::to_string).as_deref(), expected);
        }
    }

    #[test]
    fn faults_name_the_key_and_quote_nothing() {
        for (keys, key) in [
            (
                "proxy = \"https://canary:canary@p:1\"",
                "instance.acme.proxy",
            ),
            ("token_proxy = \"canary\"", "instance.acme.token_proxy"),
            (
                "proxy_credentials_file = \"canary\"",
                "instance.acme.proxy_credentials_file",
            ),
        ] {
            let said = read(&with(keys)).unwrap_err().to_string();
            let (location, told) = said.split_once(": ").unwrap_or_default();
            assert!(said.contains(key), "{location} {said}");
            assert!(!told.contains("canary"), "{said}");
        }
    }

    #[test]
    fn a_file_with_credentials_is_for_the_proxy_that_lacks_them() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pw"), "me:canary\n").unwrap();
        let file = "proxy_credentials_file = \"pw\"";
        let text = with(&format!("proxy = \"http://p:1\"\n{file}"));
        let config = read_with(&text, directory.path(), &|_| None).unwrap();
        let proxy = config.instances["acme"].proxy.clone().unwrap();
        assert_eq!(proxy.credentials(), Some(("me", "canary")));
        assert!(!format!("{config:?}").contains("canary"));
        let text = with(file);
        assert!(read_with(&text, directory.path(), &|_| None).is_err());
    }
}
