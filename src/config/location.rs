//! Where a key stands, so that whatever is said of it later can be said with its place.

use super::fault::{Fault, Origin, Report};
use super::flags;

/// Where a key or a table stands.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) origin: Origin,
    /// The path of keys that leads there, or the variable's name.
    pub(super) key: String,
    pub(super) line: Option<usize>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// What was found under a key.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that is reported already, so that its absence need not be.
    Faulty,
    /// A value of the right type.
    Given(Spanned<T>),
}

impl Location {
    /// The place of a key in the table that stands here.
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

    /// A fault of what stands here.
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

    /// How a setting is written where this stands: `` `key = value` `` in a file, `` `--flag` ``
    /// on the command line.
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

    /// Whether it stands in a file.
    pub(super) fn in_file(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }
}

impl<T> Field<T> {
    /// A value from elsewhere than a file, if there is one.
    pub(super) fn from(value: Option<T>, location: Location) -> Field<T> {
        match value {
            Some(value) => Field::Given(Spanned { value, location }),
            None => Field::Absent,
        }
    }

    /// The value with its place, if there is one.
    pub(super) fn given(self) -> Option<Spanned<T>> {
        match self {
            Field::Given(spanned) => Some(spanned),
            Field::Absent | Field::Faulty => None,
        }
    }

    /// The value, or else `default`.
    pub(super) fn or(self, default: T) -> T {
        self.given().map_or(default, |spanned| spanned.value)
    }

    /// The value, or else `default`; a value that is not `sound` is a fault.
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
    /// The duration, or else `default`; zero is a fault.
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
