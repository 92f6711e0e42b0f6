//! `[store]`: where tokens are kept.

use std::path::Path;

use super::fault::Report;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::location::{Field, Location, Spanned};
use super::nearest::{listed, nearest};
use super::parse::LoadContext;
use super::{raw, redis};
use crate::store::Config;

/// The kinds of stores.
const KINDS: [&str; 4] = ["memory", "file", "redis", "kubernetes"];

/// Parses the settings of the store.
pub(super) fn parse(raw: raw::Store, context: &LoadContext<'_>, report: &mut Report) -> Config {
    let kind = match &raw.kind {
        Field::Absent => "memory",
        // without a valid kind the other keys cannot be checked
        Field::Faulty => return Config::Memory,
        Field::Given(spanned) if KINDS.contains(&spanned.value.as_str()) => spanned.value.as_str(),
        Field::Given(spanned) => {
            unknown(spanned, report);
            return Config::Memory;
        }
    };
    for (owner, location) in [
        ("file", location(&raw.path)),
        ("redis", location(&raw.url)),
        ("redis", location(&raw.password_file)),
        ("redis", location(&raw.key_prefix)),
        ("redis", location(&raw.ca_file)),
        ("kubernetes", location(&raw.namespace)),
        ("kubernetes", location(&raw.secret)),
        ("kubernetes", location(&raw.lease)),
        ("kubernetes", location(&raw.kubeconfig)),
    ] {
        if let Some(location) = location.filter(|_| owner != kind) {
            report.fault(location.fault(
                format!("it would count only with `kind = \"{owner}\"`"),
                "write that too, or leave this key out",
            ));
        }
    }
    match kind {
        "file" => file(raw.path, &raw.location, context, report),
        "redis" => redis::parse(raw, context, report).map(Config::Redis),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::parse(raw, context, report).map(Config::Kubernetes),
        #[cfg(not(feature = "kubernetes"))]
        "kubernetes" => {
            report.fault(raw.location.child("kind").fault(
                "this program was built without the feature `kubernetes`",
                "take a build that has it, or another kind of store",
            ));
            None
        }
        _ => None,
    }
    .unwrap_or_default()
}

fn file(
    path: Field<std::path::PathBuf>,
    store: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Config> {
    match path {
        Field::Given(spanned) => {
            let directory = context.path(&spanned.value);
            if stands_in_the_way(&directory) {
                report.fault(spanned.location.fault(
                    "this is a file and no directory",
                    context.file_remedy("name a directory, which is made if there is none"),
                ));
            }
            return Some(Config::File { directory });
        }
        Field::Absent => report.fault(store.child("path").fault(
            "it is missing",
            "write the directory to keep tokens in, like `path = \"/var/lib/collibra-auth-proxy\"`",
        )),
        Field::Faulty => {}
    }
    None
}

fn location<T>(field: &Field<T>) -> Option<&Location> {
    match field {
        Field::Given(spanned) => Some(&spanned.location),
        Field::Absent | Field::Faulty => None,
    }
}

fn unknown(spanned: &Spanned<String>, report: &mut Report) {
    let remedy = match nearest(&spanned.value, KINDS) {
        Some(meant) => format!("write \"{meant}\""),
        None => format!("known are {}", listed(KINDS)),
    };
    report.fault(spanned.location.fault("there is no such store", remedy));
}

/// Returns whether the path exists and is not a directory.
fn stands_in_the_way(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}
