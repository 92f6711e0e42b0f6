//! A Kubernetes Secret as the destination of a client's credentials: `client_id` and
//! `client_secret`, as the manifests mount them.
//!
//! Guarantees: an existing Secret is never replaced. Before a client is registered, a dry run
//! checks that the server would create the Secret. No message quotes the server.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::PostParams;
use kube::client::Body;
use kube::core::Request;

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
    name: Name,
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
        if !access::is_namespace(namespace) {
            return Err(
                "no namespace can have this name; write lower-case letters, digits and `-`, up to 63",
            );
        }
        if !access::is_name(name) {
            return Err(
                "no Secret can have this name; write lower-case letters, digits, `-` and `.`, up to 253",
            );
        }
        Ok(Name {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The Secret, for messages.
    pub(super) fn describe(&self) -> String {
        format!(
            "the Secret {} in the namespace {}",
            self.name, self.namespace
        )
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
        let access = found.context(
            "run this in a pod, or set KUBECONFIG to a kubeconfig file that this user can read",
        )?;
        let new = NewSecret {
            access,
            name: name.clone(),
        };
        new.create(None).await?;
        Ok(new)
    }

    /// Creates the Secret with the credentials of `registered`; does nothing if there is no secret.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) async fn put(&self, registered: &Registered) -> anyhow::Result<()> {
        if registered.secret.is_none() {
            return Ok(());
        }
        self.create(Some(registered)).await
    }

    pub(super) fn describe(&self) -> String {
        self.name.describe()
    }

    /// Creates it; a dry run without `registered`.
    async fn create(&self, registered: Option<&Registered>) -> anyhow::Result<()> {
        let parameters = PostParams {
            dry_run: registered.is_none(),
            ..PostParams::default()
        };
        let path = Secret::url_path(&(), Some(&self.name.namespace));
        let secret = serde_json::to_vec(&self.secret(registered))?;
        let request = Request::new(path).create(&parameters, secret)?;
        let sent = async {
            let client = self.access.client().await?;
            let sent = client.send(request.map(Body::from)).await;
            // the error may quote the login program
            sent.map_err(|_| {
                anyhow!("it cannot be reached; check that `kubectl get secrets` works")
            })
        };
        let answer = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(anyhow!("it does not answer within {PATIENCE:?}")),
        };
        let (access, name) = (&self.access, self.describe());
        let status = match answer {
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
            StatusCode::NOT_FOUND => {
                bail!(
                    "{access} has no namespace {}; create it",
                    self.name.namespace
                )
            }
            StatusCode::FORBIDDEN => bail!(
                "{access} does not let this user create secrets in the namespace {}; bind it to a Role with that verb, or run this as another user",
                self.name.namespace
            ),
            StatusCode::UNAUTHORIZED => {
                bail!("{access} does not accept the token or the certificate; renew it")
            }
            status => bail!("{access} answers {status} to create {name}; check its log"),
        }
    }

    fn secret(&self, registered: Option<&Registered>) -> Secret {
        let data = registered.and_then(|registered| {
            let text = |text: &str| ByteString(text.as_bytes().to_vec());
            let id = text(registered.registration.client_id.as_str());
            let secret = text(registered.secret.as_ref()?.expose());
            Some(
                [
                    ("client_id".to_owned(), id),
                    ("client_secret".to_owned(), secret),
                ]
                .into(),
            )
        });
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.name.clone()),
                namespace: Some(self.name.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data,
            ..Secret::default()
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
            name.describe(),
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
