//! How the API server is reached: from inside the cluster by the pod's service account, or from
//! anywhere by a kubeconfig file.
//!
//! Promises: the server is always verified; no message quotes a file's content.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use url::Url;

use crate::secret::Secret;
use crate::tls::{self, CaFile, Identity};

/// Where a pod finds its service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the API server is and who asks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its address.
    pub server: Url,
    /// What to trust besides the system's roots.
    pub ca: Option<CaFile>,
    /// The client certificate.
    pub identity: Option<Identity>,
    /// The bearer token.
    pub token: Token,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// There is none.
    None,
    /// It stays the same.
    Fixed(Secret),
    /// It stands in a file, and is renewed there.
    File(PathBuf),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The way to the server.
    pub access: Access,
    /// The namespace that goes with it, if one does.
    pub namespace: Option<String>,
}

/// Why the server cannot be reached by what is there. Says what to do; quotes nothing.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file, or one that it names, cannot be read.
    #[error("{what} cannot be read: {cause}")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
    /// Its content does not do.
    #[error("{0}")]
    Unusable(&'static str),
    /// A certificate or key does not do.
    #[error("{0}: {1}")]
    Tls(&'static str, tls::Reason),
}

/// The way of a pod whose service account is mounted at `account` to the API server at `host` and
/// `port`, which are the variables `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
///
/// # Errors
/// [`Problem`] says what is missing.
pub fn in_cluster(account: &Path, host: &str, port: Option<&str>) -> Result<Found, Problem> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let server = format!("https://{host}:{}", port.unwrap_or("443"));
    let server = Url::parse(&server).map_err(|_| {
        Problem::Unusable("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are no address")
    })?;
    let authority = CaFile::read(&account.join("ca.crt"))
        .map_err(|e| Problem::Tls("the service account's ca.crt", e.reason))?;
    let namespace = std::fs::read_to_string(account.join("namespace")).ok();
    Ok(Found {
        access: Access {
            server,
            ca: Some(authority),
            identity: None,
            token: Token::File(account.join("token")),
        },
        namespace: namespace.map(|text| text.trim().to_owned()),
    })
}

/// The way that the current context of the kubeconfig file `path` names.
///
/// # Errors
/// [`Problem`] says what cannot be used.
pub fn kubeconfig(path: &Path) -> Result<Found, Problem> {
    let what = "the file";
    let text = std::fs::read(path).map_err(|cause| Problem::Unreadable { what, cause })?;
    let text = Zeroizing::new(text);
    let file: Kubeconfig = serde_saphyr::from_slice(&text)
        .map_err(|_| Problem::Unusable("the file is no kubeconfig file in YAML or JSON"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let context = file.contexts.into_iter();
    let context = context
        .filter(|context| context.name == file.current_context)
        .map(|named| named.context)
        .next()
        .ok_or(Problem::Unusable("the file has no current context"))?;
    let cluster = file.clusters.into_iter();
    let cluster = cluster
        .filter(|cluster| cluster.name == context.cluster)
        .map(|named| named.cluster)
        .next()
        .ok_or(Problem::Unusable(
            "its current context names a cluster that the file does not have",
        ))?;
    let user = file.users.into_iter();
    let user = user
        .filter(|user| user.name == context.user)
        .map(|named| named.user)
        .next()
        .unwrap_or_default();
    Ok(Found {
        access: access(path, folder, cluster, user)?,
        namespace: context.namespace,
    })
}

fn access(path: &Path, folder: &Path, cluster: Cluster, user: User) -> Result<Access, Problem> {
    if cluster.insecure_skip_tls_verify {
        return Err(Problem::Unusable(
            "it says insecure-skip-tls-verify, and this program always verifies: name the authority instead",
        ));
    }
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(Problem::Unusable(
            "its user logs in by another program, which is not run: give it a token or a client certificate",
        ));
    }
    let server = Url::parse(&cluster.server)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(Problem::Unusable(
            "its cluster's server is no http:// or https:// address",
        ))?;
    let part = |data: Option<String>, file: Option<PathBuf>, what| {
        part(folder, data, file, what).map(|pem| pem.map(Zeroizing::new))
    };
    let authority = part(
        cluster.certificate_authority_data,
        cluster.certificate_authority,
        "its certificate-authority",
    )?;
    let ca = match authority {
        Some(pem) => Some(
            CaFile::of_pem(path, &pem)
                .map_err(|e| Problem::Tls("its certificate-authority", e.reason))?,
        ),
        None => None,
    };
    let certificate = part(
        user.client_certificate_data,
        user.client_certificate,
        "its client-certificate",
    )?;
    let key = part(user.client_key_data, user.client_key, "its client-key")?;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(
            Identity::of_pem((path, &certificate), (path, &key))
                .map_err(|e| Problem::Tls("its client certificate", e.reason))?,
        ),
        (None, None) => None,
        _ => {
            return Err(Problem::Unusable(
                "its user has one of client-certificate and client-key without the other",
            ));
        }
    };
    let token = match (user.token_file, user.token) {
        (Some(file), _) => Token::File(folder.join(file)),
        (None, Some(token)) => Token::Fixed(Secret::from(token)),
        (None, None) => Token::None,
    };
    Ok(Access {
        server,
        ca,
        identity,
        token,
    })
}

/// What stands in the file itself, in base64, or in another that it names.
fn part(
    folder: &Path,
    data: Option<String>,
    file: Option<PathBuf>,
    what: &'static str,
) -> Result<Option<Vec<u8>>, Problem> {
    match (data, file) {
        (Some(data), _) => STANDARD
            .decode(data.trim())
            .map(Some)
            .map_err(|_| Problem::Unusable("something in it that ends in -data is no base64")),
        (None, Some(file)) => std::fs::read(folder.join(file))
            .map(Some)
            .map_err(|cause| Problem::Unreadable { what, cause }),
        (None, None) => Ok(None),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.server.origin().ascii_serialization();
        write!(f, "{origin}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(user: &str, cluster: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             contexts:\n- name: other\n  context: {{cluster: b, user: b}}\n\
             - name: here\n  context:\n    cluster: a\n    user: me\n    namespace: ours\n\
             clusters:\n- name: a\n  cluster:\n    server: https://k.example:6443\n{cluster}\
             users:\n- name: me\n  user: {user}\n"
        );
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_current_context_counts_with_what_it_names() {
        let made = rcgen::generate_simple_self_signed(vec!["k.example".into()]).unwrap();
        let cert = STANDARD.encode(made.cert.pem());
        let key = STANDARD.encode(made.signing_key.serialize_pem());
        let user = format!("{{client-certificate-data: {cert}, client-key-data: {key}}}");
        let file = file(&user, &format!("    certificate-authority-data: {cert}\n"));
        let found = kubeconfig(file.path()).unwrap();
        assert_eq!(found.namespace.as_deref(), Some("ours"));
        assert_eq!(found.access.to_string(), "https://k.example:6443");
        assert!(found.access.ca.is_some() && found.access.identity.is_some());
        assert_eq!(found.access.token, Token::None);
    }

    #[test]
    fn what_cannot_be_used_is_told_and_not_quoted() {
        for (user, cluster, problem) in [
            ("{exec: {command: k4n4ri}}", "", "another program"),
            (
                "{token: k4n4ri}",
                "    insecure-skip-tls-verify: true\n",
                "verifies",
            ),
            ("{client-key-data: k4n4ri}", "", "no base64"),
            ("[k4n4ri]", "", "no kubeconfig"),
            ("{client-key: /nonexistent}", "", "cannot be read"),
        ] {
            let error = kubeconfig(file(user, cluster).path()).unwrap_err();
            let error = format!("{error} {error:?}");
            assert!(
                error.contains(problem) && !error.contains("k4n4ri"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_pod_has_its_service_account() {
        let made = rcgen::generate_simple_self_signed(vec!["k.example".into()]).unwrap();
        let account = tempfile::tempdir().unwrap();
        let error = in_cluster(account.path(), "10.0.0.1", None).unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        std::fs::write(account.path().join("ca.crt"), made.cert.pem()).unwrap();
        std::fs::write(account.path().join("namespace"), "ours\n").unwrap();
        let found = in_cluster(account.path(), "fd00::1", Some("6443")).unwrap();
        assert_eq!(found.access.to_string(), "https://[fd00::1]:6443");
        assert_eq!(found.namespace.as_deref(), Some("ours"));
    }
}
