//! `[store]` of the kind `kubernetes`: the two objects, and the way to the API server.

use std::path::{Path, PathBuf};

use super::fault::Report;
use super::parse::Surroundings;
use super::place::Field;
use super::raw;
use crate::store::kubernetes::Config;
use crate::store::kubernetes::access::{self, Found, SERVICE_ACCOUNT};

/// The Secret's name, unless it is said otherwise.
const SECRET: &str = "collibra-auth-proxy-token";

/// The Lease's name, unless it is said otherwise.
const LEASE: &str = "collibra-auth-proxy";

const NAME_REMEDY: &str = "write lower-case letters, digits, `-` and `.`, up to 253";

/// Settles them. `None` only if something was reported.
pub(super) fn parse(
    raw: raw::Store,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Config> {
    let mut name = |field: Field<String>, default: &str| {
        field.sound_or(
            default.to_owned(),
            |name| is_name(name),
            "no object can have this name",
            NAME_REMEDY,
            report,
        )
    };
    let secret = name(raw.secret, SECRET);
    let lease = name(raw.lease, LEASE);
    let given = matches!(raw.namespace, Field::Given(_) | Field::Faulty);
    let namespace = name(raw.namespace, "default");
    let found = found(raw.kubeconfig, &raw.place, surroundings, report)?;
    let own = found.namespace.filter(|name| is_name(name));
    let namespace = if given { Some(namespace) } else { own };
    let Some(namespace) = namespace else {
        report.fault(raw.place.child("namespace").fault(
            "it is missing, and neither the service account nor the kubeconfig file has one",
            "write the namespace of the Secret and the Lease",
        ));
        return None;
    };
    Some(Config {
        access: found.access,
        namespace,
        secret,
        lease,
    })
}

/// The way to the server: the file that is named, the pod's own, or that of `KUBECONFIG`.
fn found(
    kubeconfig: Field<PathBuf>,
    store: &super::place::Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Found> {
    let variable = |name| (surroundings.env)(name).filter(|value| !value.is_empty());
    let (place, result) = match kubeconfig {
        Field::Faulty => return None,
        Field::Given(typed) => {
            let path = surroundings.to_read(&typed.value);
            (typed.place, access::kubeconfig(&path))
        }
        Field::Absent => {
            let place = store.child("kubeconfig");
            if let Some(host) = variable("KUBERNETES_SERVICE_HOST") {
                let port = variable("KUBERNETES_SERVICE_PORT");
                let account = Path::new(SERVICE_ACCOUNT);
                (place, access::in_cluster(account, &host, port.as_deref()))
            } else if let Some(path) = variable("KUBECONFIG") {
                let path = surroundings.to_read(Path::new(&path));
                (place, access::kubeconfig(&path))
            } else {
                report.fault(place.fault(
                    "it is missing, and this is no pod: KUBERNETES_SERVICE_HOST and KUBECONFIG are not set",
                    "write the path of a kubeconfig file",
                ));
                return None;
            }
        }
    };
    match result {
        Ok(found) => Some(found),
        Err(problem) => {
            report.fault(place.fault(
                problem.to_string(),
                "in a pod mount the service account's token, elsewhere name a kubeconfig file that this user can read",
            ));
            None
        }
    }
}

/// RFC 1123, section 2.1, as Kubernetes has it for names.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| plain(b) || matches!(b, b'-' | b'.');
    name.len() <= 253
        && name.bytes().all(inner)
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}
