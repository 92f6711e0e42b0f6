//! `[instance.NAME]`: one Collibra environment.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::context::LoadContext;
use super::credentials::{self, CA_REMEDY, ca_file, warn_if_readable_by_all, warn_of_expiry};
use super::fault::Spanned;
use super::forward::{self, is_loopback};
use super::tables;
use crate::outgoing::addresses::Target;
use crate::outgoing::tunnel;
use crate::tls::Identity;
use crate::upstream::Instance;

/// An instance, and its settings for the token requests of its clients.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) instance: Arc<Instance>,
    pub(super) token_url: Url,
    pub(super) token_proxy: Option<tunnel::Proxy>,
}

const URL_REMEDY: &str = "write the whole of it, like \"https://acme.collibra.com\"";

/// Parses an instance.
pub(super) fn parse(raw: &tables::Instance, context: &LoadContext<'_>) -> Option<Parsed> {
    let allow_insecure = raw.allow_insecure(context);
    let remedy = match raw.location.in_file() {
        true => URL_REMEDY,
        false => "give --upstream with it, set COLLIBRA_URL, or name a file with --config",
    };
    let missing = "the instance's address is missing";
    let url = raw.demand("url", &raw.url, missing, remedy, context);
    let url = url.and_then(|spanned| base(spanned, allow_insecure, context));
    let token_path = raw.token_path(context);
    let authorities = raw.ca_file.as_ref();
    let authorities = authorities.and_then(|spanned| ca_file(spanned, CA_REMEDY, context));
    let identity = identity(raw, context);
    let address = raw.address.as_ref();
    // with `address` there is no forward proxy, so the environment's is ignored
    let by_environment = url.as_ref().filter(|_| address.is_none());
    let [proxy, token_proxy] = forward::parse(raw, by_environment, context);
    if let Some(spanned) = address {
        let is_used = proxy.is_none() || token_proxy.is_none();
        check_address(spanned, url.as_ref(), allow_insecure, is_used, context);
    }
    let connect_timeout = raw.connect_timeout(context);
    let idle_timeout = raw.idle_timeout(context);
    let header_timeout = raw.header_timeout(context);
    let resolve_ttl_max = raw.resolve_ttl_max(context);

    let url = url?;
    let mut token_url = url.clone();
    token_url.set_path(&token_path);
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let instance = Instance {
        name: raw.name.clone(),
        tls: url.scheme() == "https",
        host,
        port: url.port_or_known_default()?,
        authority: url.authority().to_owned(),
        token_path: token_url.path().to_owned(),
        ca_file: authorities,
        identity,
        proxy,
        address: address.map_or_else(Vec::new, |spanned| spanned.value.clone()),
        http2: raw.http2(context),
        connect_timeout,
        idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
        header_timeout,
        resolve_ttl_max,
    };
    raw.show_as("url", instance.origin());
    raw.show_as("token_path", &*instance.token_path);
    Some(Parsed {
        instance: Arc::new(instance),
        token_url,
        token_proxy,
    })
}

/// Reports that `address` is unsafe or unused.
fn check_address(
    spanned: &Spanned<Vec<Target>>,
    url: Option<&Url>,
    allow_insecure: bool,
    is_used: bool,
    context: &LoadContext<'_>,
) {
    let is_plain = url.is_some_and(|url| url.scheme() == "http");
    let is_remote = !spanned.value.iter().all(Target::is_loopback);
    if is_plain && is_remote && !allow_insecure {
        context.fault(spanned.location.fault(
            "http:// would send the secret and the token unencrypted to another machine",
            "write https:// in url, or `allow_insecure = true` if that is meant",
        ));
    } else if !is_used {
        context.fault(spanned.location.fault(
            "no connection uses it: a forward proxy is told the instance's name",
            "leave it out, or write \"direct\" for proxy or token_proxy",
        ));
    }
}

/// Reads the client certificate, if one is configured.
fn identity(raw: &tables::Instance, context: &LoadContext<'_>) -> Option<Identity> {
    let (cert, key) = match (&raw.client_cert_file, &raw.client_key_file) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (Some(lone), None) | (None, Some(lone)) => {
            let both = ["client_cert_file", "client_key_file"];
            if let Some(other) = both.iter().find(|key| !raw.has(key)) {
                context.fault(lone.location.fault(
                    "a certificate needs its key, and a key its certificate",
                    format!("name the other in {other}, or leave both out"),
                ));
            }
            return None;
        }
    };
    warn_if_readable_by_all(&key.value, &key.location, context);
    let identity = credentials::identity(cert, key, context)?;
    let text = [
        "the certificate",
        "the instance will not accept it",
        "renew it; the new one is taken over as soon as the file has it",
    ];
    warn_of_expiry(
        identity.expires(),
        Duration::ZERO,
        text,
        &cert.location,
        context,
    );
    Some(identity)
}

/// Parses the instance's URL: a scheme, a host and an optional port, nothing else.
fn base(spanned: &Spanned<String>, allow_insecure: bool, context: &LoadContext<'_>) -> Option<Url> {
    let location = &spanned.location;
    let url = Url::parse(spanned.value.trim()).map_err(|error| format!("this is no URL: {error}"));
    let url = context.sound(url, location, URL_REMEDY)?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    let is_in_the_clear = url.scheme() == "http" && !url.host_str().is_some_and(is_loopback);
    let (problem, remedy) = if !matches!(url.scheme(), "https" | "http") || !has_host {
        let remedy = format!("{URL_REMEDY}, https:// included");
        ("this is no URL of a web server", remedy)
    } else if !url.username().is_empty() || url.password().is_some() {
        let remedy = format!("{URL_REMEDY}; a client's id and secret belong in [client.NAME]");
        ("it has a user's name or password in it", remedy)
    } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        let remedy = "cut what follows the host: requests bring their own paths".to_owned();
        ("it has more than a scheme, a host and a port", remedy)
    } else if is_in_the_clear && !allow_insecure {
        let setting = location.setting("allow_insecure");
        let remedy = format!("write https://, or {setting} if that is meant");
        (
            "http:// would send the secret and the token unencrypted",
            remedy,
        )
    } else {
        if is_in_the_clear {
            context.warning(location.fault(
                "the secret and the token travel to this host unencrypted",
                "write https:// outside of tests",
            ));
        }
        return Some(url);
    };
    context.fault(location.fault(problem, remedy));
    None
}

#[cfg(test)]
mod tests {
    use crate::config::tests::read_with;

    /// Returns the messages for an instance with the certificate and key of `keys`. The files are
    /// `own` with its key, `other`'s key, and `old`, which expired long ago.
    fn said(keys: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["app.test".into()]).unwrap();
        let (key, other) = (rcgen::KeyPair::generate(), rcgen::KeyPair::generate());
        let (key, other) = (key.unwrap(), other.unwrap());
        let put = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        put("own.pem", params.self_signed(&key).unwrap().pem());
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        put("old.pem", params.self_signed(&key).unwrap().pem());
        put("own.key", key.serialize_pem());
        put("other.key", other.serialize_pem());
        let text = format!(
            "[instance.acme]\nurl = \"https://acme.example\"\n{keys}\n\
             [client.catalog]\nclient_id = \"id\"\nclient_secret_env = \"S\"\n"
        );
        let env = |name: &str| (name == "S").then(|| "s3cret".to_owned());
        match read_with(&text, directory.path(), &env) {
            Err(faults) => faults.to_string(),
            Ok(config) => {
                let warnings = config.warnings.iter().map(ToString::to_string);
                let about = warnings.filter(|w| !w.contains("can read the file"));
                about.collect::<Vec<_>>().join("\n")
            }
        }
    }

    #[test]
    fn an_address_is_one_host_and_port_or_several() {
        let direct = "token_proxy = \"direct\"";
        let proxies = "proxy = \"http://p:1\"\ntoken_proxy = \"http://p:1\"";
        for (keys, expected) in [
            ("address = \"10.1.2.3:443\"".to_owned(), ""),
            (
                "address = [\"acme.internal:443\", \"[fd00::1]:8443\"]".into(),
                "",
            ),
            (
                format!("address = \"10.1.2.3:443\"\nproxy = \"http://p:1\"\n{direct}"),
                "",
            ),
            (
                format!("address = \"10.1.2.3:443\"\n{proxies}"),
                "instance.acme.address: no connection uses it",
            ),
            ("address = \"10.1.2.3\"".into(), "this is no host and port"),
            (
                "address = [\"a:1\", \"b\"]".into(),
                "this is no host and port",
            ),
            ("address = []".into(), "the list is empty"),
            ("address = 443".into(), "this should be a list of strings"),
        ] {
            let said = said(&keys);
            assert!(said.contains(expected), "{keys}: {said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{keys}: {said}");
        }
    }

    #[test]
    fn no_address_sends_a_plain_instances_secret_to_another_machine() {
        let read = |address: &str, more: &str| {
            let text = format!(
                "[instance.acme]\nurl = \"http://localhost:9400\"\naddress = \"{address}\"\n{more}\n\
                 [client.catalog]\nclient_id = \"id\"\nclient_secret_env = \"S\"\n"
            );
            let env = |name: &str| (name == "S").then(|| "s3cret".to_owned());
            read_with(&text, std::path::Path::new("/"), &env)
        };
        let faults = read("10.1.2.3:80", "").unwrap_err().to_string();
        assert!(
            faults.contains("instance.acme.address: http:// would send"),
            "{faults}"
        );
        assert!(read("127.0.0.2:80", "").is_ok());
        assert!(read("10.1.2.3:80", "allow_insecure = true").is_ok());
    }

    #[test]
    fn a_client_certificate_and_its_key_are_a_pair() {
        let pair =
            |cert, key| format!("client_cert_file = \"{cert}\"\nclient_key_file = \"{key}\"");
        for (keys, expected) in [
            (pair("own.pem", "own.key"), ""),
            (
                pair("own.pem", "other.key"),
                "does not belong to the certificate",
            ),
            (
                pair("own.pem", "own.pem"),
                "instance.acme.client_key_file: there is no private key",
            ),
            (
                pair("own.key", "own.key"),
                "instance.acme.client_cert_file: there is no certificate",
            ),
            (
                pair("own.pem", "missing"),
                "instance.acme.client_key_file: the file cannot be read",
            ),
            (
                pair("old.pem", "own.key"),
                "instance.acme.client_cert_file: the certificate has expired",
            ),
            (
                "client_cert_file = \"own.pem\"".into(),
                "name the other in client_key_file",
            ),
            (
                "client_key_file = \"own.key\"".into(),
                "name the other in client_cert_file",
            ),
        ] {
            let said = said(&keys);
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
        }
    }
}
