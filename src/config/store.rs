//! `[store]`: where tokens are kept.

use serde_json::Value as Json;

use super::context::LoadContext;
use super::declare::Declared;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::{redis, tables};
use crate::store::Config;

/// Parses the settings of the store.
pub(super) fn parse(raw: &tables::Store, context: &LoadContext<'_>) -> Config {
    let kind = raw.kind(context);
    if context.blames(&raw.at("kind").key) {
        // without a valid kind the other keys cannot be checked
        return Config::Memory;
    }
    let keys = <tables::Store as Declared>::KEYS.iter();
    for key in keys.filter(|key| !key.kind.is_empty() && key.kind != kind) {
        if let Some((_, location)) = raw.given.iter().find(|(given, _)| *given == key.name) {
            context.fault(location.fault(
                format!("it applies only with `kind = \"{}\"`", key.kind),
                "write that too, or leave this key out",
            ));
        }
        raw.show_as(key.name, Json::Null);
    }
    match &*kind {
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
    let remedy =
        "write the directory to keep tokens in, like `path = \"/var/lib/collibra-auth-proxy\"`";
    let spanned = raw.demand("path", &raw.path, "it is missing", remedy, context)?;
    let directory = context.path(&spanned.value);
    if std::fs::metadata(&directory).is_ok_and(|metadata| !metadata.is_dir()) {
        context.fault(spanned.location.fault(
            "this is a file and no directory",
            context.file_remedy("name a directory, which is made if there is none"),
        ));
    }
    Some(Config::File { directory })
}
