//! Reads a table of the file: typed keys, unknown keys, nested tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::context::LoadContext;
use super::fault::{Field, Location, Spanned, is_bare};
use super::nearest::{listed, nearest};
use super::value::{Value, wrong_type};

/// The longest name of a table, in bytes. Names appear in metrics, addresses and logs.
const LONGEST_NAME: usize = 63;

/// A key of a table, as declared.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "a test generates the reference from these")
)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The keys below it, if it is a table.
    pub(super) keys: &'static [Key],
    /// Whether it holds named tables.
    pub(super) is_named: bool,
    /// The kind of store that it belongs to; empty for all.
    pub(super) kind: &'static str,
    /// Whether it applies only at the start: a reload names it and keeps the old value.
    pub(super) at_start: bool,
    /// Its documentation, by line.
    pub(super) about: &'static [&'static str],
    /// What the reference has in place of a default, or the name of a named table.
    pub(super) sample: &'static str,
    /// What the reference has commented out.
    pub(super) example: &'static str,
}

/// The offsets of a file's line breaks, ascending, which turn offsets into line numbers.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

/// A table with known keys, which are read one by one.
pub(super) struct Table<'a> {
    /// The known keys that are written.
    entries: BTreeMap<&'static str, (Location, &'a DeValue<'a>)>,
    lines: &'a Lines,
    context: &'a LoadContext<'a>,
    pub(super) location: Location,
}

impl Lines {
    /// Finds the lines of `text`.
    pub(super) fn of(text: &str) -> Lines {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// Returns the line, counted from 1, at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|&at| at < offset) + 1
    }

    /// Returns `location`, on the line of `spanned`.
    fn at<T>(&self, location: Location, spanned: &toml::Spanned<T>) -> Location {
        Location {
            line: Some(self.line(spanned.span().start)),
            ..location
        }
    }
}

impl<'a> Table<'a> {
    /// Returns a table with these `keys`; reports all others.
    pub(super) fn new(
        entries: &'a DeTable<'a>,
        lines: &'a Lines,
        location: Location,
        keys: &'static [Key],
        context: &'a LoadContext<'a>,
    ) -> Table<'a> {
        let mut known = BTreeMap::new();
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let location = lines.at(location.child(name), key);
            let mut names = keys.iter().map(|key| key.name);
            if let Some(name) = names.find(|known| *known == name) {
                known.insert(name, (location, value.get_ref()));
                continue;
            }
            let names = || keys.iter().map(|key| key.name);
            let remedy = match nearest(name, names()) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("known here: {}", listed(names())),
            };
            context.fault(location.fault("this key is unknown", remedy));
        }
        Table {
            entries: known,
            lines,
            context,
            location,
        }
    }

    /// The keys that are written, with their locations.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &Location)> {
        let entries = self.entries.iter();
        entries.map(|(key, (location, _))| (*key, location))
    }

    /// Reads the value of `key`.
    pub(super) fn get<T: Value>(&self, key: &'static str) -> Field<T> {
        let (location, value) = self.entry(key)?;
        match T::read(value) {
            Ok(value) => Some(Spanned { value, location }),
            Err(faults) => {
                for (problem, remedy) in faults {
                    self.context.fault(location.fault(problem, remedy));
                }
                None
            }
        }
    }

    /// Returns whether the value of `key` is a string.
    pub(super) fn is_text(&self, key: &'static str) -> bool {
        let value = self.entry(key);
        value.is_some_and(|(_, value)| value.as_str().is_some())
    }

    /// Reads the table `key`, with these `keys`.
    pub(super) fn table(&self, key: &'static str, keys: &'static [Key]) -> Option<Table<'a>> {
        let (location, value) = self.entry(key)?;
        let first = keys.first().map_or("", |key| key.name);
        let remedy = format!("write `{key} = {{ {first} = … }}`, or [{}]", location.key);
        self.below(location, value, keys, "a table", &remedy)
    }

    /// Reads the tables in `key`, each with these `keys`: by name, `[key.NAME]`, in the order of
    /// the file, or in a list.
    pub(super) fn tables(
        &self,
        key: &'static str,
        keys: &'static [Key],
        is_named: bool,
    ) -> Vec<(Arc<str>, Table<'a>)> {
        let Some((location, value)) = self.entry(key) else {
            return Vec::new();
        };
        let first = keys.first().map_or("", |key| key.name);
        let (remedy, kind, item) = match is_named {
            true => (
                format!("write [{key}.NAME] and the keys below it, with a name of your own"),
                "a table of named tables",
                "a named table",
            ),
            false => (
                format!("write `{key} = [ {{ {first} = … }} ]`"),
                "a list of tables",
                "a table, as each item of the list",
            ),
        };
        let mut tables = Vec::new();
        let mut add = |name: &str, location, value| {
            let table = self.below(location, value, keys, item, &remedy);
            tables.extend(table.map(|table| (Arc::from(name), table)));
        };
        match value {
            DeValue::Table(entries) if is_named => {
                for (name, value) in entries {
                    let location = self.lines.at(location.child(name.get_ref()), name);
                    let is_plain = is_bare(name.get_ref()) && name.get_ref().len() <= LONGEST_NAME;
                    if value.get_ref().is_table() && !is_plain {
                        self.context.fault(location.fault(
                            "the name cannot be used",
                            "name it with at most 63 letters, digits, `-` and `_`",
                        ));
                    }
                    add(name.get_ref(), location, value.get_ref());
                }
            }
            DeValue::Array(items) if !is_named => {
                for item in items.iter() {
                    add(key, self.lines.at(location.clone(), item), item.get_ref());
                }
            }
            _ => {
                let (problem, remedy) = wrong_type(value, kind, &remedy);
                self.context.fault(location.fault(problem, remedy));
            }
        }
        tables.sort_by_key(|(_, table)| table.location.line);
        tables
    }

    /// Reads `value` as a table with these `keys`, or reports that it is none.
    fn below(
        &self,
        location: Location,
        value: &'a DeValue<'a>,
        keys: &'static [Key],
        wanted: &str,
        remedy: &str,
    ) -> Option<Table<'a>> {
        let (lines, context) = (self.lines, self.context);
        if let Some(entries) = value.as_table() {
            return Some(Table::new(entries, lines, location, keys, context));
        }
        let (problem, remedy) = wrong_type(value, wanted, remedy);
        context.fault(location.fault(problem, remedy));
        None
    }

    fn entry(&self, key: &'static str) -> Option<(Location, &'a DeValue<'a>)> {
        self.entries.get(key).cloned()
    }
}
