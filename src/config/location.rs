//! The location of a key, kept with its value so that later faults can name it.

use super::fault::{Fault, Origin, Report};
use super::flags;

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

/// The content of a key.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// The key is absent.
    #[default]
    Absent,
    /// The value is faulty and already reported.
    Faulty,
    /// A value of the right type.
    Given(Spanned<T>),
}

impl Location {
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
                Origin::CommandLine => flags::name(&self.key),
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
                format!("`{}`", flags::name(key))
            }
            Origin::CommandLine | Origin::Environment => {
                format!("`{} {}`", flags::name(key), value.trim_matches('"'))
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

impl<T> Field<T> {
    /// Returns a field with a value from outside a file, if there is one.
    pub(super) fn from(value: Option<T>, location: Location) -> Field<T> {
        match value {
            Some(value) => Field::Given(Spanned { value, location }),
            None => Field::Absent,
        }
    }

    /// The value with its location, if there is one.
    pub(super) fn given(self) -> Option<Spanned<T>> {
        match self {
            Field::Given(spanned) => Some(spanned),
            Field::Absent | Field::Faulty => None,
        }
    }

    /// The value, or `default` without one.
    pub(super) fn or(self, default: T) -> T {
        self.given().map_or(default, |spanned| spanned.value)
    }

    /// The value, or `default` without one; a value that is not `sound` is a fault.
    pub(super) fn sound_or(
        self,
        default: T,
        sound: impl Fn(&T) -> bool,
        problem: &str,
        remedy: &str,
        report: &mut Report,
    ) -> T {
        match self.given() {
            Some(spanned) if !sound(&spanned.value) => {
                report.fault(spanned.location.fault(problem, remedy));
                default
            }
            Some(spanned) => spanned.value,
            None => default,
        }
    }
}

impl Field<std::time::Duration> {
    /// The duration, or `default` without one; zero is a fault.
    pub(super) fn above_zero_or(
        self,
        default: std::time::Duration,
        report: &mut Report,
    ) -> std::time::Duration {
        let remedy = format!(
            "write a longer one; the default is \"{}\"",
            humantime::format_duration(default)
        );
        self.sound_or(default, |d| !d.is_zero(), "it is zero", &remedy, report)
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
