//! Reads a table of the file: typed keys, unknown keys, nested tables.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::fault::{Origin, Report};
use super::location::{Field, Location, Spanned};
use super::nearest::{listed, nearest};
use super::value::{Value, wrong_type};

/// The positions of a file's line breaks, which turn offsets into line numbers.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    origin: &'a Origin,
    /// The offset of each line break, ascending.
    breaks: Vec<usize>,
}

/// A table with known keys, which are read one by one.
#[derive(Debug)]
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    lines: &'a Lines<'a>,
    known: &'static [&'static str],
    pub(super) location: Location,
}

impl<'a> Lines<'a> {
    /// Finds the lines of `text`.
    pub(super) fn of(origin: &'a Origin, text: &str) -> Lines<'a> {
        let bytes = text.bytes().enumerate();
        let breaks = bytes.filter_map(|(at, byte)| (byte == b'\n').then_some(at));
        Lines {
            origin,
            breaks: breaks.collect(),
        }
    }

    /// Returns the location of the file itself.
    pub(super) fn location(&self) -> Location {
        Location {
            origin: self.origin.clone(),
            key: String::new(),
            line: None,
        }
    }

    /// Returns the line, counted from 1, at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.breaks.partition_point(|&at| at < offset) + 1
    }
}

impl<'a> Table<'a> {
    /// Returns a table with the keys `known`; reports all others.
    pub(super) fn new(
        entries: &'a DeTable<'a>,
        lines: &'a Lines<'a>,
        location: Location,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Table<'a> {
        for key in entries.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let mut location = location.child(name);
            location.line = Some(lines.line(key.span().start));
            let remedy = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("known here: {}", listed(known.iter().copied())),
            };
            report.fault(location.fault("this key is unknown", remedy));
        }
        Table {
            entries,
            lines,
            known,
            location,
        }
    }

    /// Reads the value of `key`.
    pub(super) fn get<T: Value>(&self, key: &'static str, report: &mut Report) -> Field<T> {
        let Some((location, value)) = self.entry(key) else {
            return Field::Absent;
        };
        match T::read(value) {
            Ok(value) => Field::Given(Spanned { value, location }),
            Err((problem, remedy)) => {
                report.fault(location.fault(problem, remedy));
                Field::Faulty
            }
        }
    }

    /// Returns whether the value of `key` is a string.
    pub(super) fn is_text(&self, key: &'static str) -> bool {
        let value = self.entry(key);
        value.is_some_and(|(_, value)| value.as_str().is_some())
    }

    /// Reads the table `key`, with the keys `known`.
    pub(super) fn table(
        &self,
        key: &'static str,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Option<Table<'a>> {
        let (location, value) = self.entry(key)?;
        let Some(entries) = value.as_table() else {
            let first = known.first().copied().unwrap_or_default();
            let remedy = format!("write `{key} = {{ {first} = … }}`, or [{}]", location.key);
            let (problem, remedy) = wrong_type(value, "a table", &remedy);
            report.fault(location.fault(problem, remedy));
            return None;
        };
        Some(Table::new(entries, self.lines, location, known, report))
    }

    /// Reads the tables in `key` with their names: `[key.NAME]`.
    pub(super) fn named(
        &self,
        key: &'static str,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Vec<(Arc<str>, Table<'a>)> {
        let Some((location, value)) = self.entry(key) else {
            return Vec::new();
        };
        let remedy = format!("write [{key}.NAME] and the keys below it, with a name of your own");
        let Some(entries) = value.as_table() else {
            let (problem, remedy) = wrong_type(value, "a table of named tables", &remedy);
            report.fault(location.fault(problem, remedy));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name, value) in entries {
            let location = self.at(location.child(name.get_ref()), name);
            let Some(entries) = value.get_ref().as_table() else {
                let (problem, remedy) = wrong_type(value.get_ref(), "a named table", &remedy);
                report.fault(location.fault(problem, remedy));
                continue;
            };
            if !is_name(name.get_ref()) {
                report.fault(location.fault(
                    "the name cannot be used",
                    "name it with at most 63 letters, digits, `-` and `_`",
                ));
            }
            let table = Table::new(entries, self.lines, location, known, report);
            tables.push((Arc::from(name.get_ref().as_ref()), table));
        }
        tables.sort_by_key(|(_, table)| table.location.line);
        tables
    }

    /// Reads the tables in the list `key`, each with the keys `known`.
    pub(super) fn tables(
        &self,
        key: &'static str,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Vec<Table<'a>> {
        let Some((location, value)) = self.entry(key) else {
            return Vec::new();
        };
        let first = known.first().copied().unwrap_or_default();
        let remedy = format!("write `{key} = [ {{ {first} = … }} ]`");
        let Some(items) = value.as_array() else {
            let (problem, remedy) = wrong_type(value, "a list of tables", &remedy);
            report.fault(location.fault(problem, remedy));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let location = self.at(location.clone(), item);
            match item.get_ref().as_table() {
                Some(entries) => {
                    tables.push(Table::new(entries, self.lines, location, known, report));
                }
                None => {
                    let (problem, remedy) =
                        wrong_type(item.get_ref(), "a table, as each item of the list", &remedy);
                    report.fault(location.fault(problem, remedy));
                }
            }
        }
        tables
    }

    fn entry(&self, key: &'static str) -> Option<(Location, &'a DeValue<'a>)> {
        debug_assert!(self.known.contains(&key), "{key} is read and not known");
        let (name, value) = self.entries.get_key_value(key)?;
        Some((self.at(self.location.child(key), name), value.get_ref()))
    }

    fn at<T>(&self, location: Location, spanned: &toml::Spanned<T>) -> Location {
        Location {
            line: Some(self.lines.line(spanned.span().start)),
            ..location
        }
    }
}

/// Returns whether a name is plain, since names appear in metrics, addresses and logs.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
