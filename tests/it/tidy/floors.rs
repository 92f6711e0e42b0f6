//! The floors: a file imports only from lower floors or from its own module.

use super::File;
use super::paths;

/// The crate's top-level modules by floor, lowest first. Add a new module to the lowest floor that
/// its imports allow.
const FLOORS: [&[&str]; 7] = [
    &[
        "atomic_file",
        "backoff",
        "browser",
        "client_id",
        "clock",
        "descriptors",
        "memory",
        "process",
        "random",
        "secret",
        "service_manager",
        "socket",
        "telemetry",
        "tls",
    ],
    &[
        "token",
        "outgoing",
        "policy",
        "local_authority",
        "local_token",
    ],
    &[
        "oauth",
        "store",
        "registration",
        "trace",
        "downstream",
        "upstream",
    ],
    &["proxy", "admin"],
    &["config"],
    &["server"],
    &["cli"],
];

/// Modules outside the floors: they import from floor 0 only, so that they share no
/// misunderstanding with the program. Only the top floor imports them.
const ASIDE: &[&str] = &["simulator"];

/// Files that are not modules: `lib.rs` declares them all, `main.rs` uses the crate by name.
const ROOTS: &[&str] = &["src/lib.rs", "src/main.rs"];

/// The imports that go sideways or up, and modules without a floor.
pub(super) fn violations(files: &[File]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut homeless = Vec::new();
    for file in files
        .iter()
        .filter(|file| !ROOTS.contains(&file.path.as_str()))
    {
        let module = top_level_module(&file.path);
        let Some(place) = place(module) else {
            if !homeless.contains(&module) {
                homeless.push(module);
                faults.push(format!(
                    "{}: the module `{module}` stands on no floor: add it to FLOORS in tests/it/tidy/floors.rs",
                    file.path
                ));
            }
            continue;
        };
        for import in paths::from_the_crate_root(&file.path, &file.text) {
            if import == module {
                continue;
            }
            if let Some(why) = refusal(place, &import) {
                faults.push(format!(
                    "{}: `{module}` ({place}) imports `{import}`: {why}",
                    file.path
                ));
            }
        }
    }
    faults
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Floor(usize),
    Aside,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Floor(floor) => write!(f, "floor {floor}"),
            Place::Aside => f.write_str("aside"),
        }
    }
}

fn place(module: &str) -> Option<Place> {
    if ASIDE.contains(&module) {
        return Some(Place::Aside);
    }
    let floor = FLOORS.iter().position(|floor| floor.contains(&module))?;
    Some(Place::Floor(floor))
}

/// Why a module at `from` may not import `import`; `None` if it may.
fn refusal(from: Place, import: &str) -> Option<String> {
    let Some(to) = place(import) else {
        return Some(
            "that is no module on any floor; import by the module that owns it".to_owned(),
        );
    };
    let allowed = match (from, to) {
        (Place::Floor(from), Place::Floor(to)) => to < from,
        (Place::Aside, Place::Floor(to)) => to == 0,
        (Place::Floor(from), Place::Aside) => from == FLOORS.len() - 1,
        (Place::Aside, Place::Aside) => false,
    };
    (!allowed).then(|| format!("that is {to}, and not below"))
}

/// `src/x.rs` and `src/x/…` belong to `x`.
fn top_level_module(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    let first = below.split('/').next().unwrap_or(below);
    first.strip_suffix(".rs").unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations_of(path: &str, text: &str) -> Vec<String> {
        violations(&[File {
            path: path.to_owned(),
            text: text.to_owned(),
        }])
    }

    #[test]
    fn imports_from_below_and_from_within_are_in_order() {
        for (path, text) in [
            (
                "src/token/service.rs",
                "use crate::clock::Clock; use crate::token::cache;",
            ),
            (
                "src/proxy/inject.rs",
                "use crate::{token::cache, secret::Secret};",
            ),
            (
                "src/cli/demo.rs",
                "use crate::simulator::Simulator; use crate::server;",
            ),
            ("src/simulator/mod.rs", "use crate::clock;"),
            ("src/lib.rs", "pub use crate::cli::run;"),
            (
                "src/clock.rs",
                "//! See crate::token.\nconst X: &str = \"crate::cli\";",
            ),
            ("src/oauth/mod.rs", "mod tests { use super::token; }"),
        ] {
            assert_eq!(violations_of(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn imports_that_go_up_or_sideways_are_found() {
        for (path, text, imported) in [
            ("src/token/service.rs", "use crate::oauth::Config;", "oauth"),
            ("src/clock.rs", "fn f() { crate :: secret::x() }", "secret"),
            (
                "src/oauth/client.rs",
                "use crate::{clock, store::{a, b}};",
                "store",
            ),
            ("src/oauth/client.rs", "use crate::{self, proxy};", "proxy"),
            ("src/proxy/mod.rs", "use crate::admin as other;", "admin"),
            ("src/config/mod.rs", "use crate::cli;", "cli"),
            (
                "src/server.rs",
                "use crate::simulator::Simulator;",
                "simulator",
            ),
            ("src/simulator/mod.rs", "use crate::token::ports;", "token"),
            ("src/oauth/mod.rs", "use super::cli::x;", "cli"),
            ("src/oauth/client.rs", "use super::super::cli::x;", "cli"),
            (
                "src/oauth.rs",
                "mod tests { use super::super::cli; }",
                "cli",
            ),
            ("src/token/mod.rs", "use crate::Whatever;", "Whatever"),
        ] {
            let found = violations_of(path, text);
            assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
            assert!(
                found[0].contains(&format!("imports `{imported}`")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_module_on_no_floor_is_told_where_to_go() {
        let found = violations_of("src/attic/mod.rs", "");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("FLOORS in tests/it/tidy/floors.rs"),
            "{found:?}"
        );
    }
}
