//! `[instance.NAME]`: one Collibra environment.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use super::fault::{Fault, Report};
use super::parse::Surroundings;
use super::place::{Field, Place, Typed};
use super::raw;
use crate::proxy::config::Instance;
use crate::tls::CaFile;

/// An instance, and what its clients need of it.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) instance: Arc<Instance>,
    pub(super) token_url: Url,
}

const TOKEN_PATH: &str = "/rest/oauth/v2/token";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESOLVE_TTL_MAX: Duration = Duration::from_secs(30);
const URL_REMEDY: &str = "write the whole of it, like \"https://acme.collibra.com\"";

/// Settles an instance.
pub(super) fn parse(
    raw: raw::Instance,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Parsed> {
    let allow_insecure = raw.allow_insecure.or(false);
    let url = match raw.url {
        Field::Given(typed) => base(&typed, allow_insecure, report),
        Field::Faulty => None,
        Field::Absent => {
            let place = raw.place.child("url");
            let remedy = if place.in_file() {
                URL_REMEDY
            } else {
                "give --upstream with it, set COLLIBRA_URL, or name a file with --config"
            };
            report.fault(place.fault("the instance's address is missing", remedy));
            None
        }
    };
    let token_path = match raw.token_path.given() {
        Some(typed) => token_path(&typed, report),
        None => Some(TOKEN_PATH.to_owned()),
    };
    let ca_file = raw.ca_file.given();
    let ca_file = ca_file.and_then(|typed| self::ca_file(&typed, surroundings, report));
    let connect_timeout = raw.connect_timeout.above_zero_or(CONNECT_TIMEOUT, report);
    let idle_timeout = raw.idle_timeout.or(Duration::ZERO);
    let resolve_ttl_max = raw.resolve_ttl_max.above_zero_or(RESOLVE_TTL_MAX, report);

    let (url, token_path) = (url?, token_path?);
    let mut token_url = url.clone();
    token_url.set_path(&token_path);
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    Some(Parsed {
        instance: Arc::new(Instance {
            name: raw.name,
            tls: url.scheme() == "https",
            host,
            port: url.port_or_known_default()?,
            authority: authority(&url)?,
            token_path: token_url.path().to_owned(),
            ca_file,
            connect_timeout,
            idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
            resolve_ttl_max,
        }),
        token_url,
    })
}

/// The certificates that a file holds.
pub(super) fn ca_file(
    typed: &Typed<PathBuf>,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<CaFile> {
    let read = CaFile::read(&surroundings.to_read(&typed.value));
    if let Err(error) = &read {
        report.fault(typed.place.fault(
            error.reason.to_string(),
            surroundings.file_remedy("name a PEM file with your authority's certificate"),
        ));
    }
    read.ok()
}

/// The instance's address: a scheme, a host, perhaps a port, and nothing else.
fn base(typed: &Typed<String>, allow_insecure: bool, report: &mut Report) -> Option<Url> {
    match judge(&typed.value, allow_insecure, &typed.place) {
        Ok(url) => {
            if url.scheme() == "http" && !is_loopback(&url) {
                report.warning(typed.place.fault(
                    "the secret and the token travel to this host unencrypted",
                    "write https:// outside of tests",
                ));
            }
            Some(url)
        }
        Err(fault) => {
            report.fault(fault);
            None
        }
    }
}

fn judge(text: &str, allow_insecure: bool, place: &Place) -> Result<Url, Fault> {
    let url = Url::parse(text.trim())
        .map_err(|error| place.fault(format!("this is no URL: {error}"), URL_REMEDY))?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    if !matches!(url.scheme(), "https" | "http") || !has_host {
        return Err(place.fault(
            "this is no URL of a web server",
            format!("{URL_REMEDY}, https:// included"),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(place.fault(
            "it has a user's name or password in it",
            format!("{URL_REMEDY}; a client's id and secret belong in [client.NAME]"),
        ));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(place.fault(
            "it has more than a scheme, a host and a port",
            "cut what follows the host: requests bring their own paths",
        ));
    }
    if url.scheme() == "http" && !allow_insecure && !is_loopback(&url) {
        return Err(place.fault(
            "http:// would send the secret and the token unencrypted",
            format!(
                "write https://, or {} if that is meant",
                place.setting("allow_insecure", "true")
            ),
        ));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).to_canonical().is_loopback(),
        None => false,
    }
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn token_path(typed: &Typed<String>, report: &mut Report) -> Option<String> {
    let path = &typed.value;
    let problem = if !path.starts_with('/') {
        "it does not begin with a slash"
    } else if path.starts_with("//") || path.len() == 1 {
        "this is not the path of a token endpoint"
    } else if !path.chars().all(|c| c.is_ascii_graphic()) || path.contains(['?', '#', '\\']) {
        "it has a character that a path cannot have"
    } else {
        return Some(path.clone());
    };
    report.fault(typed.place.fault(
        problem,
        format!("write a path like \"{TOKEN_PATH}\", or leave the key out"),
    ));
    None
}
