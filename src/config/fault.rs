//! The faults of a configuration: what is wrong, where, and what to write instead.
//!
//! A value keeps its location, so that later faults can name it.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::watch::Files;

/// A fault or warning. Its text quotes keys and names, never a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    pub(super) location: Location,
    /// What is wrong.
    pub(super) problem: String,
    /// What to do, or to write instead.
    pub(super) remedy: String,
}

/// The location of a key or a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Location {
    pub(super) origin: Origin,
    /// The dotted path of the key, the flag or the variable; empty for a whole file.
    pub(super) key: String,
    /// The line in the file, counted from 1.
    pub(super) line: Option<usize>,
}

/// The source of a part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    /// A file.
    File(Arc<PathBuf>),
    /// The command line.
    CommandLine,
    /// The environment.
    Environment,
}

/// A value and its location.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// What is written for a key. A value of the wrong type counts as absent, because its fault is
/// already reported.
pub(super) type Field<T> = Option<Spanned<T>>;

/// All faults of a configuration, at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub(super) faults: Vec<Fault>,
    pub(super) files: Files,
}

impl Location {
    /// The location of `key` in `origin`; empty for the whole of it.
    pub(super) fn of(origin: Origin, key: &str) -> Location {
        Location {
            origin,
            key: key.to_owned(),
            line: None,
        }
    }

    /// The location of a flag, like `--listen`.
    pub(super) fn flag(name: &str) -> Location {
        Location::of(Origin::CommandLine, name)
    }

    /// The location of the variable `name`.
    pub(super) fn variable(name: &str) -> Location {
        Location::of(Origin::Environment, name)
    }

    /// The location of `key` in the table at this location. A flag stands for its whole table.
    pub(super) fn child(&self, key: &str) -> Location {
        let key = match &self.origin {
            Origin::File(_) => {
                let key = match is_bare(key) {
                    true => key.to_owned(),
                    false => format!("{key:?}"),
                };
                let path = [&*self.key, &key].join(".");
                path.trim_start_matches('.').to_owned()
            }
            _ if self.key.is_empty() => flag(key),
            _ => self.key.clone(),
        };
        Location {
            key,
            ..self.clone()
        }
    }

    /// Returns a fault at this location.
    pub(super) fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault {
            location: self.clone(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the setting that turns `key` on: `` `key = true` `` in a file, `` `--flag` `` on the
    /// command line.
    pub(super) fn setting(&self, key: &str) -> String {
        match self.in_file() {
            true => format!("`{key} = true`"),
            false => format!("`{}`", flag(key)),
        }
    }

    /// Returns whether the location is a variable.
    pub(super) fn in_environment(&self) -> bool {
        matches!(self.origin, Origin::Environment)
    }

    /// Returns whether the location is in a file.
    pub(super) fn in_file(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }
}

/// The flag for `key` of any table: `pool_refill` is `--pool-refill`.
fn flag(key: &str) -> String {
    match key {
        "url" => "--upstream".to_owned(),
        "client_secret" => "--client-secret-file".to_owned(),
        key => format!("--{}", key.replace('_', "-")),
    }
}

/// Returns whether a name is plain, so that a file need not quote it.
pub(super) fn is_bare(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

impl Faults {
    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// The files that were read. A change of one may fix the faults.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the fault of giving `flags` although `named` names a file.
    #[must_use]
    pub fn flags_beside_file(named: &str, flags: &[&str]) -> Faults {
        let fault = Location::flag(&flags.join(", ")).fault(
            format!("{named} names a file, and these apply only without one"),
            "leave them out and write them in the file, or name no file",
        );
        Faults {
            faults: vec![fault],
            files: Files::default(),
        }
    }
}

/// Sorts faults in the order of the file and drops duplicates.
pub(super) fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| (fault.location.origin.clone(), fault.location.line));
    let mut seen = HashSet::with_capacity(faults.len());
    faults.retain(|fault| seen.insert(fault.clone()));
    faults
}

/// `FILE:LINE: KEY: what is wrong; what to write instead`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location { origin, key, line } = &self.location;
        match origin {
            Origin::File(path) => write!(f, "{}:", path.display())?,
            Origin::CommandLine => f.write_str("command line:")?,
            Origin::Environment => f.write_str("environment:")?,
        }
        if let Some(line) = line {
            write!(f, "{line}:")?;
        }
        if !key.is_empty() {
            write!(f, " {key}:")?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

/// One fault per line.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join("\n"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_of_the_file_and_each_once() {
        let fault = |line: Option<usize>, key: &str| {
            let location = Location {
                line,
                ..Location::flag(key)
            };
            location.fault("wrong", "write another")
        };
        let faults = [
            (Some(2), "c"),
            (Some(1), "b"),
            (Some(1), "a"),
            (Some(1), "b"),
            (None, "d"),
            (Some(2), "b"),
        ]
        .map(|(line, key)| fault(line, key))
        .to_vec();
        let faults = in_order(faults);
        let expected = [
            fault(None, "d"),
            fault(Some(1), "b"),
            fault(Some(1), "a"),
            fault(Some(2), "c"),
            fault(Some(2), "b"),
        ];
        assert_eq!(faults, expected);
    }
}
