//! A Kubernetes Secret as the destination of a client's credentials: `client_id` and
//! `client_secret`, as the manifests mount them.
//!
//! Guarantees: an existing Secret is never replaced. Before a client is registered, a dry run
//! checks that the server would create the Secret. No message quotes the server.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use kube::client::Body;
use serde_json::json;

use crate::registration::Registered;
use crate::store::kubernetes::access::{self, Access};

/// The timeout of a call, including the login program.
const PATIENCE: Duration = Duration::from_secs(15);

/// The name of a Secret.
#[derive(Clone, Debug)]
pub(super) struct Name {
    namespace: String,
    name: String,
}

/// A Secret that does not exist yet and may be created.
#[derive(Debug)]
pub(super) struct NewSecret {
    access: Access,
    pub(super) name: Name,
}

impl Name {
    /// Parses `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// What to write instead.
    pub(super) fn parse(text: &str) -> Result<Name, &'static str> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or("write kubernetes:NAMESPACE/NAME, in lower case")?;
        match (access::is_namespace(namespace), access::is_name(name)) {
            (true, true) => Ok(Name {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            (false, _) => Err(
                "no namespace can have this name; write lower-case letters, digits and `-`, up to 63",
            ),
            (true, false) => Err(
                "no Secret can have this name; write lower-case letters, digits, `-` and `.`, up to 253",
            ),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { namespace, name } = self;
        write!(f, "the Secret {name} in the namespace {namespace}")
    }
}

impl NewSecret {
    /// Checks with a dry run that the Secret can be created.
    ///
    /// # Errors
    /// Why it cannot be created, and what to do.
    pub(super) async fn prepare(name: &Name) -> anyhow::Result<NewSecret> {
        let env = |variable: &str| {
            let set = std::env::var(variable).ok();
            set.or_else(|| (variable == "KUBECONFIG").then(of_kubectl).flatten())
        };
        let found = access::find(env, |path| Ok(path.to_owned()));
        let advice =
            "run this in a pod, or set KUBECONFIG to a kubeconfig file that this user can read";
        let access = found.context(advice)?;
        let name = name.clone();
        let new = NewSecret { access, name };
        new.create(None).await?;
        Ok(new)
    }

    /// Creates the Secret with the credentials of `registered`; without it, checks with a dry run
    /// that it can be created.
    ///
    /// # Errors
    /// Why it cannot be created, and what to do.
    pub(super) async fn create(&self, registered: Option<&Registered>) -> anyhow::Result<()> {
        let (access, name, namespace) = (&self.access, &self.name, &self.name.namespace);
        let credentials = registered.and_then(|registered| {
            let id = BASE64.encode(registered.registration.client_id.as_str());
            let secret = BASE64.encode(registered.secret.as_ref()?.expose());
            Some(json!({ "client_id": id, "client_secret": secret }))
        });
        let dry_run = registered.map_or("?dryRun=All", |_| "");
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name.name, "namespace": namespace },
            "type": "Opaque",
            "data": credentials,
        });
        let path = format!("/api/v1/namespaces/{namespace}/secrets{dry_run}");
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(serde_json::to_vec(&object)?))?;
        let sent = async {
            let sent = access.client().await?.send(request).await;
            // the error may quote the login program
            sent.map_err(|_| {
                anyhow!("it cannot be reached; check that `kubectl get secrets` works")
            })
        };
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        let late = |_| Err(anyhow!("it does not answer within {PATIENCE:?}"));
        let status = match sent.unwrap_or_else(late) {
            Ok(answer) => answer.status(),
            Err(error) if registered.is_none() => return Err(error.context(access.to_string())),
            Err(error) => bail!(
                "{access}: {error:#}; {name} may exist nevertheless, with useless credentials: check, and delete it if so"
            ),
        };
        match status {
            StatusCode::CREATED | StatusCode::OK => Ok(()),
            StatusCode::CONFLICT => {
                bail!("{name} already exists; name another, or delete it if it is no longer needed")
            }
            StatusCode::NOT_FOUND => bail!("{access} has no namespace {namespace}; create it"),
            StatusCode::FORBIDDEN => bail!(
                "{access} does not let this user create secrets in the namespace {namespace}; bind it to a Role with that verb, or run this as another user"
            ),
            StatusCode::UNAUTHORIZED => {
                bail!("{access} does not accept the token or the certificate; renew it")
            }
            status => bail!("{access} answers {status} to create {name}; check its log"),
        }
    }
}

/// The path of kubectl's configuration, if it exists.
fn of_kubectl() -> Option<String> {
    let path = std::path::Path::new(&std::env::var_os("HOME")?).join(".kube/config");
    path.exists().then(|| path.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_with_its_namespace() {
        let name = Name::parse("collibra/catalog.v2").unwrap();
        assert_eq!(
            name.to_string(),
            "the Secret catalog.v2 in the namespace collibra"
        );
        for wrong in [
            "",
            "catalog",
            "/catalog",
            "collibra/",
            "a/b/c",
            "A/b",
            "a/b?x",
            "a.b/c",
            "-a/b",
            "a/b-",
            "a/..",
            "a/b..c",
        ] {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }
}
