//! `[store]`: where tokens are kept.

use std::path::Path;

use super::fault::Report;
use super::nearest::{listed, nearest};
use super::parse::Surroundings;
use super::place::{Field, Typed};
use super::raw;
use crate::store::Config;

/// The kinds that there are.
const KINDS: [&str; 2] = ["memory", "file"];

/// Settles where tokens are kept.
pub(super) fn parse(
    raw: raw::Store,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Config {
    let kind = match &raw.kind {
        Field::Absent => "memory",
        // whether the path fits it cannot be told
        Field::Faulty => return Config::Memory,
        Field::Given(typed) if KINDS.contains(&typed.value.as_str()) => typed.value.as_str(),
        Field::Given(typed) => {
            unknown(typed, report);
            return Config::Memory;
        }
    };
    match (kind, raw.path) {
        ("file", Field::Given(typed)) => {
            let directory = surroundings.path(&typed.value);
            if stands_in_the_way(&directory) {
                report.fault(typed.place.fault(
                    "this is a file and no directory",
                    surroundings.file_remedy("name a directory, which is made if there is none"),
                ));
            }
            return Config::File { directory };
        }
        ("file", Field::Absent) => report.fault(raw.place.child("path").fault(
            "it is missing",
            "write the directory to keep tokens in, like `path = \"/var/lib/collibra-auth-proxy\"`",
        )),
        ("memory", Field::Given(typed)) => report.fault(typed.place.fault(
            "it would count only with `kind = \"file\"`",
            "write that too, or leave the path out",
        )),
        _ => {}
    }
    Config::Memory
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
