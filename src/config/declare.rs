//! How a table is declared, once, and everything that follows from its declaration: its reader, the
//! names of its keys, its defaults, what `check --print` shows of it, and its part of the
//! reference.
//!
//! ```text
//! /// What the key means; the reference quotes it.
//! key: Type [marks] = default => check;
//! ```
//!
//! A key with a default has a method of its name that returns the value: checked, or the default. A
//! key without one is read as a [`Field`]. The marks are fields of [`Key`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::context::LoadContext;
use super::fault::{Field, Location, Spanned};
use super::table::{Key, Table};
use super::value::{Value, Wrong};

/// A declared table.
pub(super) trait Declared: fmt::Debug + Sized + Deref<Target = Head> {
    /// Its keys, in the order of the reference.
    const KEYS: &'static [Key];
    /// Reads the table; without one every key is absent.
    fn read(name: Arc<str>, location: Location, table: Option<&Table<'_>>) -> Self;
    /// Returns the values that count, by key.
    fn show(&self, context: &LoadContext<'_>) -> Json;
    /// Returns the table without any key.
    fn absent(name: &str, location: Location) -> Self {
        Self::read(name.into(), location, None)
    }
}

/// What every table has.
#[derive(Debug)]
pub(super) struct Head {
    /// Its name, or its key.
    pub(super) name: Arc<str>,
    pub(super) location: Location,
    /// Whether it is written.
    pub(super) is_given: bool,
    /// The keys that are written, with their locations.
    pub(super) given: Vec<(&'static str, Location)>,
    /// The values that it shows in place of those that were written.
    shown: RefCell<Map<String, Json>>,
}

/// The content of a key: a value, a table, or tables.
pub(super) trait Slot: Sized {
    /// What the declared struct holds.
    type Held: fmt::Debug;
    /// The keys below it.
    const KEYS: &'static [Key] = &[];
    /// Whether it holds named tables.
    const IS_NAMED: bool = false;
    /// Reads the content of `key` of `table`, which is at `location`.
    fn read(table: Option<&Table<'_>>, location: &Location, key: &'static str) -> Self::Held;
    /// Returns what counts; `null` if it is not shown.
    fn show(held: &Self::Held, default: Option<Self>, context: &LoadContext<'_>) -> Json;
}

/// A word, or a table.
#[derive(Debug)]
pub(super) struct WordOr<T> {
    pub(super) word: Field<String>,
    pub(super) table: T,
}

/// Tables with names of the user's: `[key.NAME]`.
pub(super) type Named<T> = Many<T, true>;

/// A list of tables.
pub(super) type List<T> = Many<T, false>;

/// Tables, with names or in a list.
pub(super) struct Many<T, const IS_NAMED: bool>(PhantomData<T>);

/// Declares tables.
macro_rules! tables {
    ($(
        $(#[doc = $about:literal])*
        $table:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty $([$($mark:ident $($text:literal)?),*])?
                    $(= $default:expr $(=> $check:expr)?)?;
            )*
        }
    )*) => {$(
        $(#[doc = $about])*
        #[derive(Debug)]
        pub(super) struct $table {
            pub(super) head: Head,
            $($(#[doc = $doc])* pub(super) $key: <$type as Slot>::Held,)*
        }

        impl $table {
            $($(
                pub(super) fn $key(&self, context: &LoadContext<'_>) -> $type {
                    settle(&self.$key, $default, first!($($check,)? any), context)
                }
            )?)*
        }

        impl Deref for $table {
            type Target = Head;

            fn deref(&self) -> &Head {
                &self.head
            }
        }

        impl Declared for $table {
            const KEYS: &'static [Key] = &[$(
                Key {
                    $($($mark: first!($($text,)? true),)*)?
                    ..Key::of::<$type>(stringify!($key), &[$($doc),*])
                },
            )*];

            fn read(name: Arc<str>, location: Location, table: Option<&Table<'_>>) -> $table {
                $table {
                    $($key: <$type as Slot>::read(table, &location, stringify!($key)),)*
                    head: Head::of(name, location, table),
                }
            }

            fn show(&self, context: &LoadContext<'_>) -> Json {
                let values = [$(
                    <$type as Slot>::show(&self.$key, first!($(Some($default),)? None), context),
                )*];
                self.show_over(<$table as Declared>::KEYS, values)
            }
        }

        impl Slot for $table {
            type Held = $table;
            const KEYS: &'static [Key] = <$table as Declared>::KEYS;

            fn read(table: Option<&Table<'_>>, location: &Location, key: &'static str) -> $table {
                let table = table.and_then(|table| table.table(key, <$table as Slot>::KEYS));
                let location = table.as_ref().map(|table| table.location.clone())
                    .unwrap_or_else(|| location.child(key));
                <$table as Declared>::read(key.into(), location, table.as_ref())
            }

            fn show(held: &$table, _: Option<$table>, context: &LoadContext<'_>) -> Json {
                Declared::show(held, context)
            }
        }
    )*};
}

/// The first of its arguments.
macro_rules! first {
    ($first:expr $(, $more:expr)*) => {
        $first
    };
}

pub(super) use {first, tables};

impl Key {
    /// Returns the key `name`, which holds a `T`.
    pub(super) const fn of<T: Slot>(name: &'static str, about: &'static [&'static str]) -> Key {
        Key {
            name,
            keys: T::KEYS,
            is_named: T::IS_NAMED,
            kind: "",
            at_start: false,
            about,
            sample: "",
            example: "",
        }
    }
}

/// The value, if there is one. A value of which `check` finds something wrong is a fault.
pub(super) fn checked<T: Clone>(
    field: &Field<T>,
    check: impl Fn(&T, &T) -> Option<Wrong>,
    context: &LoadContext<'_>,
) -> Option<T> {
    let Spanned { value, location } = field.as_ref()?;
    let Some((problem, remedy)) = check(value, value) else {
        return Some(value.clone());
    };
    context.fault(location.fault(problem, remedy));
    None
}

/// As [`checked`], or `default`, which `check` gets too.
pub(super) fn settle<T: Clone>(
    field: &Field<T>,
    default: T,
    check: impl Fn(&T, &T) -> Option<Wrong>,
    context: &LoadContext<'_>,
) -> T {
    checked(field, |value, _| check(value, &default), context).unwrap_or(default)
}

/// The check of a key that may have any value of its type.
pub(super) fn any<T>(_: &T, _: &T) -> Option<Wrong> {
    None
}

/// The check of a duration that is not zero.
pub(super) fn above_zero(value: &Duration, default: &Duration) -> Option<Wrong> {
    let default = humantime::format_duration(*default);
    let remedy = format!("write a longer one; the default is \"{default}\"");
    value.is_zero().then(|| ("it is zero".into(), remedy))
}

/// Returns the check that a value is `sound`.
pub(super) fn only<T>(
    sound: impl Fn(&T) -> bool,
    problem: &str,
    remedy: &str,
) -> impl Fn(&T, &T) -> Option<Wrong> {
    move |value, _| (!sound(value)).then(|| (problem.to_owned(), remedy.to_owned()))
}

/// Returns each table that has the same value as an earlier one, and the first such.
pub(super) fn repeated<'a, T: Hash + Eq>(
    values: impl Iterator<Item = (&'a Head, T)>,
) -> Vec<(&'a Head, &'a Head)> {
    let mut first = HashMap::new();
    let values = values.map(|(table, value)| (table, *first.entry(value).or_insert(table)));
    values
        .filter(|(table, first)| !std::ptr::eq(*table, *first))
        .collect()
}

impl Head {
    /// Returns the head of a table.
    pub(super) fn of(name: Arc<str>, location: Location, table: Option<&Table<'_>>) -> Head {
        let given = table.into_iter().flat_map(Table::given);
        Head {
            name,
            location,
            is_given: table.is_some(),
            given: given.map(|(key, at)| (key, at.clone())).collect(),
            shown: RefCell::default(),
        }
    }

    /// Returns what is written for `key`, and reports it if there is nothing.
    pub(super) fn demand<'f, T>(
        &self,
        key: &str,
        field: &'f Field<T>,
        problem: &str,
        remedy: impl Into<String>,
        context: &LoadContext<'_>,
    ) -> Option<&'f Spanned<T>> {
        if field.is_none() && !self.has(key) {
            context.fault(self.at(key).fault(problem, remedy));
        }
        field.as_ref()
    }

    /// The location of `key`.
    pub(super) fn at(&self, key: &str) -> Location {
        self.location.child(key)
    }

    /// Returns whether `key` is written. If there is no value all the same, its fault is reported.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == key)
    }

    /// Shows `value` for `key`, whatever was written; `null` for nothing.
    pub(super) fn show_as(&self, key: &str, value: impl Into<Json>) {
        let mut shown = self.shown.borrow_mut();
        shown.insert(key.to_owned(), value.into());
    }

    /// Returns the `values` of `keys`, with those of [`Head::show_as`] over them.
    pub(super) fn show_over<const N: usize>(&self, keys: &[Key], values: [Json; N]) -> Json {
        let mut shown = self.shown.borrow().clone();
        for (key, value) in keys.iter().zip(values) {
            shown.entry(key.name).or_insert(value);
        }
        shown.retain(|_, value| !value.is_null());
        if shown.is_empty() {
            Json::Null
        } else {
            Json::Object(shown)
        }
    }
}

/// A value.
impl<T: Value + Clone + fmt::Debug> Slot for T {
    type Held = Field<T>;

    fn read(table: Option<&Table<'_>>, _: &Location, key: &'static str) -> Field<T> {
        table.and_then(|table| table.get(key))
    }

    fn show(held: &Field<T>, default: Option<T>, context: &LoadContext<'_>) -> Json {
        let value = held.as_ref().map(|spanned| &spanned.value);
        let value = value.or(default.as_ref());
        value.map_or(Json::Null, |value| value.show(context))
    }
}

impl<T: Declared + Slot<Held = T>> Slot for WordOr<T> {
    type Held = WordOr<T>;
    const KEYS: &'static [Key] = <T as Declared>::KEYS;

    fn read(table: Option<&Table<'_>>, location: &Location, key: &'static str) -> WordOr<T> {
        let of_word = table.filter(|table| table.is_text(key));
        let of_table = table.filter(|_| of_word.is_none());
        WordOr {
            word: of_word.and_then(|table| table.get(key)),
            table: <T as Slot>::read(of_table, location, key),
        }
    }

    fn show(held: &WordOr<T>, _: Option<Self>, context: &LoadContext<'_>) -> Json {
        match &held.word {
            Some(word) => word.value.show(context),
            None => Declared::show(&held.table, context),
        }
    }
}

impl<T: Declared, const IS_NAMED: bool> Slot for Many<T, IS_NAMED> {
    type Held = Vec<T>;
    const KEYS: &'static [Key] = T::KEYS;
    const IS_NAMED: bool = IS_NAMED;

    fn read(table: Option<&Table<'_>>, _: &Location, key: &'static str) -> Vec<T> {
        let tables = table.map(|table| table.tables(key, T::KEYS, IS_NAMED));
        let tables = tables.into_iter().flatten();
        tables
            .map(|(name, table)| T::read(name, table.location.clone(), Some(&table)))
            .collect()
    }

    fn show(held: &Vec<T>, _: Option<Self>, context: &LoadContext<'_>) -> Json {
        let tables = held
            .iter()
            .map(|table| (table.name.to_string(), table.show(context)));
        match IS_NAMED {
            _ if held.is_empty() => Json::Null,
            true => Json::Object(tables.collect()),
            false => tables.map(|(_, table)| table).collect(),
        }
    }
}
