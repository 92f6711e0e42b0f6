//! `[store]`: where tokens are kept.

use std::path::Path;

use super::fault::Report;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::nearest::{listed, nearest};
use super::parse::Surroundings;
use super::place::{Field, Place, Typed};
use super::{raw, redis};
use crate::store::Config;

/// The kinds that there are.
const KINDS: [&str; 4] = ["memory", "file", "redis", "kubernetes"];

/// Settles where tokens are kept.
pub(super) fn parse(
    raw: raw::Store,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Config {
    let kind = match &raw.kind {
        Field::Absent => "memory",
        // whether the other keys fit it cannot be told
        Field::Faulty => return Config::Memory,
        Field::Given(typed) if KINDS.contains(&typed.value.as_str()) => typed.value.as_str(),
        Field::Given(typed) => {
            unknown(typed, report);
            return Config::Memory;
        }
    };
    for (owner, place) in [
        ("file", place(&raw.path)),
        ("redis", place(&raw.url)),
        ("redis", place(&raw.password_file)),
        ("redis", place(&raw.key_prefix)),
        ("redis", place(&raw.ca_file)),
        ("kubernetes", place(&raw.namespace)),
        ("kubernetes", place(&raw.secret)),
        ("kubernetes", place(&raw.lease)),
        ("kubernetes", place(&raw.kubeconfig)),
    ] {
        if let Some(place) = place.filter(|_| owner != kind) {
            report.fault(place.fault(
                format!("it would count only with `kind = \"{owner}\"`"),
                "write that too, or leave this key out",
            ));
        }
    }
    match kind {
        "file" => file(raw.path, &raw.place, surroundings, report),
        "redis" => redis::parse(raw, surroundings, report).map(Config::Redis),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::parse(raw, surroundings, report).map(Config::Kubernetes),
        #[cfg(not(feature = "kubernetes"))]
        "kubernetes" => {
            report.fault(raw.place.child("kind").fault(
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
    store: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Config> {
    match path {
        Field::Given(typed) => {
            let directory = surroundings.path(&typed.value);
            if stands_in_the_way(&directory) {
                report.fault(typed.place.fault(
                    "this is a file and no directory",
                    surroundings.file_remedy("name a directory, which is made if there is none"),
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

fn place<T>(field: &Field<T>) -> Option<&Place> {
    match field {
        Field::Given(typed) => Some(&typed.place),
        Field::Absent | Field::Faulty => None,
    }
}

fn unknown(typed: &Typed<String>, report: &mut Report) {
    let remedy = match nearest(&typed.value, KINDS) {
        Some(meant) => format!("write \"{meant}\""),
        None => format!("known are {}", listed(KINDS)),
    };
    report.fault(typed.place.fault("there is no such store", remedy));
}

/// Whether there is something other than a directory.
fn stands_in_the_way(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}
