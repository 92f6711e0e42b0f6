//! How to reach the API server: as a pod by its service account, or by a kubeconfig file.
//!
//! It is also used outside the store. [`find`] returns the access of this process,
//! [`Access::client`] a client, [`Access::namespace`] the client's default namespace.
//!
//! Guarantees: no server is contacted, and no program is run, before [`Access::client`]. No message
//! and no `Debug` quotes a file's content.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use kube::client::{AuthError, ConfigExt, RustlsTlsError};
use kube::config::{
    ExecInteractiveMode, InClusterError, Kubeconfig, KubeconfigError, LoadDataError,
};
use ring::digest::{Context, Digest, SHA256};
use secrecy::zeroize::Zeroizing;

/// Identifies this program in the API server's log.
const USER_AGENT: &str = concat!("collibra-auth-proxy/", env!("CARGO_PKG_VERSION"));

/// The connect timeout.
const CONNECT: Duration = Duration::from_secs(2);

/// The API server's address and credentials. Two values are equal if their files have the same
/// content.
#[derive(Clone)]
pub struct Access {
    config: Arc<kube::Config>,
    digest: Digest,
}

/// Why there is no usable access. Says what to do; quotes nothing.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Neither a pod nor a kubeconfig file.
    #[error(
        "this is not a pod, and no kubeconfig file is named: KUBERNETES_SERVICE_HOST and KUBECONFIG are not set"
    )]
    Nowhere,
    /// The file, or one that it names, cannot be read.
    #[error("{what} cannot be read: {cause}")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
    /// Its content is unusable.
    #[error("{0}")]
    Unusable(&'static str),
}

/// Returns the access of this process: its pod's, or that of the kubeconfig files in `KUBECONFIG`.
/// `env` reads environment variables, `path` resolves relative paths.
///
/// # Errors
/// [`Problem`] says what is unusable.
pub fn find(
    env: impl Fn(&str) -> Option<String>,
    path: impl Fn(&Path) -> io::Result<PathBuf>,
) -> Result<Access, Problem> {
    let variable = |name| env(name).filter(|value: &String| !value.is_empty());
    if variable("KUBERNETES_SERVICE_HOST").is_some() {
        return in_cluster();
    }
    let paths = variable("KUBECONFIG").ok_or(Problem::Nowhere)?;
    let paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
    let paths: io::Result<Vec<PathBuf>> = paths.map(|named| path(&named)).collect();
    kubeconfig(&paths.map_err(unreadable)?)
}

/// Returns a pod's access, from its service account's files and the variables that Kubernetes sets.
///
/// # Errors
/// [`Problem`] says what is missing.
pub fn in_cluster() -> Result<Access, Problem> {
    let config = kube::Config::incluster().map_err(not_in_cluster)?;
    Access::new(config, Vec::new())
}

fn not_in_cluster(error: InClusterError) -> Problem {
    let (what, cause) = match error {
        InClusterError::ReadDefaultNamespace(e) => ("the service account's namespace", e),
        InClusterError::ReadCertificateBundle(e) => ("the service account's ca.crt", e),
        InClusterError::ParseCertificates(_) => return Problem::Unusable(NO_AUTHORITY),
        _ => {
            return Problem::Unusable(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not an address",
            );
        }
    };
    Problem::Unreadable { what, cause }
}

/// Returns the access of the current context of the kubeconfig files `paths`, merged as kubectl
/// does.
///
/// A proxy is used only if the file names it. A login program never gets a terminal.
///
/// # Errors
/// [`Problem`] says what is unusable.
pub fn kubeconfig(paths: &[PathBuf]) -> Result<Access, Problem> {
    let mut merged = Kubeconfig::default();
    let mut parts = Vec::new();
    for path in paths {
        let next = Kubeconfig::read_from(path).map_err(unusable)?;
        merged = merged.merge(next).map_err(unusable)?;
        parts.push(read(path, "the file")?);
    }
    let mut config = kube::Config::try_from(merged.clone()).map_err(unusable)?;
    let scheme = config.cluster_url.scheme_str();
    if !matches!(scheme, Some("http" | "https")) || config.cluster_url.host().is_none() {
        return Err(Problem::Unusable(NO_SERVER));
    }
    if !names_a_proxy(&merged) {
        // the library took it from the environment, which is meant for other connections
        config.proxy_url = None;
    }
    if let Some(exec) = &mut config.auth_info.exec {
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    Access::new(config, parts)
}

/// The error for a kubeconfig file that cannot be read.
#[must_use]
pub fn unreadable(cause: io::Error) -> Problem {
    Problem::Unreadable {
        what: "the file",
        cause,
    }
}

const NO_SERVER: &str = "its cluster's server is not an http:// or https:// address";

const NO_AUTHORITY: &str = "the server's certificate-authority, or the service account's ca.crt, has no usable certificate";

/// Returns whether the cluster of the current context has a `proxy-url`.
fn names_a_proxy(file: &Kubeconfig) -> bool {
    let contexts = file.contexts.iter();
    let context = { contexts }.find(|context| Some(&context.name) == file.current_context.as_ref());
    let cluster = context.and_then(|context| Some(&context.context.as_ref()?.cluster));
    let mut clusters = file.clusters.iter();
    clusters
        .find(|named| Some(&named.name) == cluster)
        .and_then(|named| named.cluster.as_ref()?.proxy_url.as_ref())
        .is_some_and(|proxy| !proxy.is_empty())
}

fn read(path: impl AsRef<Path>, what: &'static str) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let read = std::fs::read(path).map(Zeroizing::new);
    read.map_err(|cause| Problem::Unreadable { what, cause })
}

impl Access {
    /// Builds the access; `parts` are the contents it was made from.
    fn new(
        mut config: kube::Config,
        mut parts: Vec<Zeroizing<Vec<u8>>>,
    ) -> Result<Access, Problem> {
        config.connect_timeout = Some(CONNECT);
        // the caller decides whether to retry
        config.default_retry = false;
        let user = &config.auth_info;
        if let Some(token) = &user.token_file {
            // it is renewed in place, which is no change
            read(token, "the token's file")?;
        }
        for (file, what) in [
            (&user.client_certificate, "its client-certificate"),
            (&user.client_key, "its client-key"),
        ] {
            if let Some(file) = file {
                parts.push(read(file, what)?);
            }
        }
        if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
            return Err(Problem::Unusable(NO_AUTHORITY));
        }
        let mut digest = Context::new(&SHA256);
        digest.update(config.cluster_url.to_string().as_bytes());
        let authority = config.root_cert.iter().flatten();
        for part in authority.chain(parts.iter().map(|part| &**part)) {
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finish();
        // without the login program, which validation must not run
        let mut trial = config.clone();
        (trial.auth_info.exec, trial.auth_info.auth_provider) = (None, None);
        trial.rustls_client_config().map_err(no_tls)?;
        let config = Arc::new(config);
        Ok(Access { config, digest })
    }

    /// Returns a client, which re-reads its token from the file. It belongs to the calling runtime.
    ///
    /// # Errors
    /// [`Problem`] if a file became unusable, or if the login program fails.
    pub async fn client(&self) -> Result<kube::Client, Problem> {
        let mut config = (*self.config).clone();
        let agent = HeaderValue::from_static(USER_AGENT);
        config.headers.push((http::header::USER_AGENT, agent));
        // it reads files and runs the login program
        let made = tokio::task::spawn_blocking(move || kube::Client::try_from(config)).await;
        made.map_err(|_| LOGIN)?.map_err(|error| match error {
            kube::Error::Auth(AuthError::ReadTokenFile(cause, _)) => Problem::Unreadable {
                what: "the token's file",
                cause,
            },
            kube::Error::Auth(_) => LOGIN,
            error => no_tls(error),
        })
    }

    /// The default namespace: the pod's, the context's, or `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// Returns whether the server's certificate is not verified, because the kubeconfig file says
    /// so.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        self.config.accept_invalid_certs
    }

    /// Returns whether an external program logs in, which takes time.
    #[must_use]
    pub fn runs_a_program(&self) -> bool {
        let user = &self.config.auth_info;
        user.exec.is_some() || user.auth_provider.is_some()
    }
}

/// Returns whether an object can have this name (RFC 1123, section 2.1, as Kubernetes applies it).
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Returns whether a namespace can have this name.
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    name.len() <= 63 && is_label(name)
}

fn is_label(label: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_framed = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && !is_framed && label.bytes().all(is_plain)
}

/// not quoted, as in kubectl: the program's output may contain secrets
const LOGIN: Problem = Problem::Unusable(
    "the kubeconfig's login program fails; run it by hand, as this user, and read its output",
);

fn unusable(error: KubeconfigError) -> Problem {
    let data = |what, error| match error {
        LoadDataError::ReadFile(cause, _) => Problem::Unreadable { what, cause },
        LoadDataError::DecodeBase64(_) => {
            Problem::Unusable("a field in it that ends in -data is not base64")
        }
        LoadDataError::NoBase64DataOrFile => Problem::Unusable(
            "its user has one of client-certificate and client-key without the other",
        ),
    };
    Problem::Unusable(match error {
        KubeconfigError::ReadConfig(cause, _) => {
            let what = "the file";
            return Problem::Unreadable { what, cause };
        }
        KubeconfigError::LoadCertificateAuthority(e) => {
            return data("its certificate-authority", e);
        }
        KubeconfigError::LoadClientCertificate(e) => return data("its client-certificate", e),
        KubeconfigError::LoadClientKey(e) => return data("its client-key", e),
        KubeconfigError::Parse(_) => "the file is not a kubeconfig file in YAML or JSON",
        KubeconfigError::CurrentContextNotSet | KubeconfigError::LoadContext(_) => {
            "the file has no current context"
        }
        KubeconfigError::LoadClusterOfContext(_) => {
            "its current context names a cluster that the file does not have"
        }
        KubeconfigError::MissingClusterUrl | KubeconfigError::ParseClusterUrl(_) => NO_SERVER,
        KubeconfigError::ParseProxyUrl(_) | KubeconfigError::ParseNoProxy(_) => {
            "its proxy-url, or the environment's HTTPS_PROXY or NO_PROXY, cannot be read"
        }
        KubeconfigError::ParseCertificates(_) => NO_AUTHORITY,
        KubeconfigError::KindMismatch | KubeconfigError::ApiVersionMismatch => {
            "the files are of different kinds"
        }
        KubeconfigError::FindPath => "no file is named",
    })
}

fn no_tls(error: kube::Error) -> Problem {
    Problem::Unusable(match error {
        kube::Error::InferKubeconfig(error) => return unusable(error),
        kube::Error::RustlsTls(RustlsTlsError::AddRootCertificate(_)) => NO_AUTHORITY,
        kube::Error::RustlsTls(RustlsTlsError::NoValidNativeRootCA(_)) => {
            "no certificate authority is named, and the system has none"
        }
        kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(_)) => {
            "its tls-server-name is not a name"
        }
        kube::Error::RustlsTls(_) => {
            "its client-certificate and client-key cannot be used: both are PEM, and belong together"
        }
        kube::Error::ProxyProtocolUnsupported { .. }
        | kube::Error::ProxyProtocolDisabled { .. } => {
            "its proxy-url is of a kind that this program does not speak; name an http:// one"
        }
        _ => "this build has no client for it",
    })
}

impl PartialEq for Access {
    fn eq(&self, other: &Access) -> bool {
        self.digest.as_ref() == other.digest.as_ref()
    }
}

impl Eq for Access {}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.config.cluster_url;
        // without any user information before the host
        let scheme = url.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", url.host().unwrap_or_default())?;
        url.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.to_string()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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

    fn found(file: &tempfile::NamedTempFile) -> Result<Access, Problem> {
        kubeconfig(&[file.path().to_owned()])
    }

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["k.example".into()]).unwrap();
        let key = made.signing_key.serialize_pem();
        (STANDARD.encode(made.cert.pem()), STANDARD.encode(key))
    }

    #[test]
    fn the_current_context_counts_with_what_it_names() {
        let (cert, key) = certificate();
        let user = format!("{{client-certificate-data: {cert}, client-key-data: {key}}}");
        let authority = format!("    certificate-authority-data: {cert}\n");
        let file = file(&user, &authority);
        let access = found(&file).unwrap();
        assert_eq!(access.namespace(), "ours");
        assert_eq!(access.to_string(), "https://k.example:6443");
        assert!(!access.is_unverified() && !access.runs_a_program());
        assert_eq!(access, found(&file).unwrap());
        // a second file adds what the first lacks
        let other = super::tests::file("{token: k4n4ri}", "    insecure-skip-tls-verify: true\n");
        let both = kubeconfig(&[file.path().to_owned(), other.path().to_owned()]).unwrap();
        assert!(!both.is_unverified() && both != access);
        let other = found(&other).unwrap();
        assert!(other.is_unverified());
        assert!(!format!("{other:?} {other}").contains("k4n4ri"));
    }

    #[test]
    fn what_cannot_be_used_is_told_and_not_quoted() {
        let (cert, key) = certificate();
        let (_, other) = certificate();
        let pair = format!("{{client-certificate-data: {cert}, client-key-data: {other}}}");
        for (user, cluster, problem) in [
            ("{client-key-data: k4n4ri}", "", "not base64"),
            ("[k4n4ri]", "", "not a kubeconfig"),
            ("{tokenFile: /nonexistent}", "", "cannot be read"),
            ("{client-key: /nonexistent}", "", "cannot be read"),
            (
                &format!("{{client-key-data: {key}}}"),
                "",
                "without the other",
            ),
            (&pair, "", "belong together"),
            (
                "{}",
                "    certificate-authority-data: azRuNHJp\n",
                "authority",
            ),
            ("{}", "    server: k4n4ri\n", "not a kubeconfig"),
        ] {
            let error = found(&file(user, cluster)).unwrap_err();
            let error = format!("{error} {error:?}");
            assert!(
                error.contains(problem) && !error.contains("k4n4ri"),
                "{error}"
            );
        }
        let nowhere = find(|_| None, |path| Ok(path.to_owned()))
            .unwrap_err()
            .to_string();
        assert!(nowhere.contains("KUBECONFIG"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_program_that_logs_in_is_run_for_the_client_alone_and_not_quoted() {
        let ran = tempfile::tempdir().unwrap();
        let mark = ran.path().join("mark");
        let script = format!("touch {}; echo k4n4ri; exit 1", mark.display());
        let user = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, \"{script}\"]}}}}"
        );
        let access = found(&file(&user, "")).unwrap();
        assert!(access.runs_a_program() && !mark.exists());
        let error = access.client().await.err().unwrap();
        assert!(mark.exists());
        let error = format!("{error} {error:?}");
        assert!(
            error.contains("by hand") && !error.contains("k4n4ri"),
            "{error}"
        );
    }
}
