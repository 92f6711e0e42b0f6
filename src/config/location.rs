//! The location of a key, kept with its value so that later faults can name it.

use super::fault::{Fault, Origin};

/// The location of a key or a table.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) origin: Origin,
    /// The dotted path of the key, or the variable's name.
    pub(super) key: String,
    pub(super) line: Option<usize>,
}

/// A value and its location.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// What is written for a key. A value of the wrong type counts as absent, since its fault is already
/// reported.
pub(super) type Field<T> = Option<Spanned<T>>;

impl Location {
    /// The location of a whole source of the configuration.
    pub(super) fn root(origin: Origin) -> Location {
        Location {
            origin,
            key: String::new(),
            line: None,
        }
    }

    /// The location of the variable `name`.
    pub(super) fn variable(name: &str) -> Location {
        Location {
            key: name.to_owned(),
            ..Location::root(Origin::Environment)
        }
    }

    /// The location of `key` in the table at this location.
    pub(super) fn child(&self, key: &str) -> Location {
        let key = if is_bare(key) {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        Location {
            origin: self.origin.clone(),
            key: if self.key.is_empty() {
                key
            } else {
                format!("{}.{key}", self.key)
            },
            line: self.line,
        }
    }

    /// Returns a fault at this location.
    pub(super) fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault {
            origin: self.origin.clone(),
            key: match self.origin {
                Origin::CommandLine => flag(&self.key),
                Origin::File(_) | Origin::Environment => self.key.clone(),
            },
            line: self.line,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the setting in the syntax of its source: `` `key = value` `` in a file, `` `--flag`
    /// `` on the command line.
    pub(super) fn setting(&self, key: &str, value: &str) -> String {
        match self.origin {
            Origin::File(_) => format!("`{key} = {value}`"),
            Origin::CommandLine | Origin::Environment if value == "true" => {
                format!("`{}`", flag(key))
            }
            Origin::CommandLine | Origin::Environment => {
                format!("`{} {}`", flag(key), value.trim_matches('"'))
            }
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
        "instance.url" => "--url".to_owned(),
        "admin.address" => "--admin".to_owned(),
        "listen.address" => "--listen".to_owned(),
        key => format!("--{}", key.replace('_', "-")),
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
