//! `[store]` of the kind `kubernetes`: the Secret, the Lease, and access to the API server.

use std::io;
use std::path::Path;

use super::context::LoadContext;
use super::declare::{checked, only, settle};
use super::fault::Field;
use super::tables;
use crate::store::kubernetes::Config;
use crate::store::kubernetes::access::{self, Problem};

/// The default name of the Secret and of the Lease.
const NAME: &str = "collibra-auth-proxy-token";

const NAME_REMEDY: &str = "write lower-case letters, digits, `-` and `.`, up to 253";

const NAMESPACE_REMEDY: &str = "write lower-case letters, digits and `-`, up to 63";

/// Parses the store's settings. The access to the API server comes from the configured file, the
/// pod's service account or `KUBECONFIG`. `None` only if a fault was reported.
pub(super) fn parse(raw: &tables::Store, context: &LoadContext<'_>) -> Option<Config> {
    let name = |field: &Field<String>| {
        let is_name = |name: &String| access::is_name(name);
        let check = only(is_name, "no object can have this name", NAME_REMEDY);
        settle(field, NAME.to_owned(), check, context)
    };
    let (secret, lease) = (name(&raw.secret), name(&raw.lease));
    let is_namespace = |name: &String| access::is_namespace(name);
    let check = only(
        is_namespace,
        "no namespace can have this name",
        NAMESPACE_REMEDY,
    );
    let namespace = checked(&raw.namespace, check, context);
    let to_read = |path: &Path| context.to_read(path).map_err(io::Error::other);
    let (location, access) = match &raw.kubeconfig {
        Some(spanned) => {
            let path = to_read(&spanned.value).map_err(access::unreadable);
            let access = path.and_then(|path| access::kubeconfig(&[path]));
            (&spanned.location, access)
        }
        None if raw.has("kubeconfig") => return None,
        None => (&raw.at("kubeconfig"), access::find(context.env, to_read)),
    };
    let access = match access {
        Ok(access) => access,
        Err(problem) => {
            context.fault(location.fault(problem.to_string(), remedy(&problem)));
            return None;
        }
    };
    if access.is_unverified() {
        context.warning(location.fault(
            "the kubeconfig file says insecure-skip-tls-verify: a machine in between can impersonate the API server and get this user's token",
            "name the server's authority there",
        ));
    }
    let namespace = namespace.unwrap_or_else(|| access.namespace().to_owned());
    raw.show_as("namespace", &*namespace);
    raw.show_as("secret", &*secret);
    raw.show_as("lease", &*lease);
    Some(Config {
        namespace,
        access,
        secret,
        lease,
    })
}

fn remedy(problem: &Problem) -> &'static str {
    match problem {
        Problem::Nowhere => "write the path of a kubeconfig file",
        _ => {
            "in a pod mount the service account's token, elsewhere name a kubeconfig file that this user can read"
        }
    }
}
