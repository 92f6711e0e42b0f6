//! `[store]`: where tokens are kept.

use std::path::Path;

use serde_json::Value as Json;

use super::context::LoadContext;
use super::declare::Declared;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::location::Field;
use super::table::Key;
use super::{redis, tables};
use crate::store::Config;

/// Parses the settings of the store.
pub(super) fn parse(raw: &tables::Store, context: &LoadContext<'_>) -> Config {
    if let Field::Faulty = raw.kind {
        // without a valid kind the other keys cannot be checked
        return Config::Memory;
    }
    let kind = raw.kind(context).0;
    let is_elsewhere = |key: &Key| !key.kind.is_empty() && key.kind != kind;
    for (key, location) in raw.given() {
        if is_elsewhere(key) {
            context.fault(location.fault(
                format!("it would count only with `kind = \"{}\"`", key.kind),
                "write that too, or leave this key out",
            ));
        }
    }
    for key in <tables::Store as Declared>::KEYS
        .iter()
        .filter(|key| is_elsewhere(key))
    {
        raw.show_as(key.name, Json::Null);
    }
    match kind {
        "file" => file(raw, context),
        "redis" => redis::parse(raw, context).map(Config::Redis),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::parse(raw, context).map(Config::Kubernetes),
        #[cfg(not(feature = "kubernetes"))]
        "kubernetes" => {
            context.fault(raw.at("kind").fault(
                "this program was built without the feature `kubernetes`",
                "take a build that has it, or another kind of store",
            ));
            None
        }
        _ => None,
    }
    .unwrap_or_default()
}

fn file(raw: &tables::Store, context: &LoadContext<'_>) -> Option<Config> {
    if raw.path.is_absent() {
        context.fault(raw.at("path").fault(
            "it is missing",
            "write the directory to keep tokens in, like `path = \"/var/lib/collibra-auth-proxy\"`",
        ));
    }
    let spanned = raw.path.given()?;
    let directory = context.path(&spanned.value);
    if stands_in_the_way(&directory) {
        context.fault(spanned.location.fault(
            "this is a file and no directory",
            context.file_remedy("name a directory, which is made if there is none"),
        ));
    }
    Some(Config::File { directory })
}

/// Returns whether the path exists and is not a directory.
fn stands_in_the_way(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}
