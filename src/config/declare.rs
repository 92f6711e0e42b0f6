//! How a table is declared, once, and everything that follows from its declaration: its reader, the
//! names of its keys, its defaults, what `check --print` shows of it, and its part of the reference.
//!
//! ```text
//! /// What the key means; the reference quotes it.
//! key: Type [marks] = default => check;
//! ```
//!
//! A key with a default has a method of its name that returns the value: checked, or the default. A
//! key without one is read as a [`Field`]. The marks are methods of [`Key`].

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::context::LoadContext;
use super::location::{Field, Location, Spanned};
use super::table::{Key, Table};
use super::value::{Value, Wrong};
use crate::secret::Secret;
use serde_json::{Map, Value as Json, json};

/// A declared table.
pub(super) trait Declared: fmt::Debug + Sized {
    /// Its keys, in the order of the reference.
    const KEYS: &'static [Key];
    /// Reads the table `name`.
    fn read(name: Arc<str>, table: &Table<'_>) -> Self;
    /// Returns the table without any key.
    fn absent(name: Arc<str>, location: Location) -> Self;
    /// Returns the values that count, by key: `null` for one that is not shown.
    fn show(&self, context: &LoadContext<'_>) -> Json;
    /// The keys that are given, with their locations.
    fn given(&self) -> Vec<(&'static Key, &Location)>;
    /// Its name, or its key.
    fn name(&self) -> &str;
    /// The location of `key`.
    fn at(&self, key: &str) -> Location;
    /// The defaults of its keys.
    fn defaults(context: &LoadContext<'_>) -> Json {
        let nowhere = Location::root(super::fault::Origin::CommandLine);
        Self::absent("".into(), nowhere).show(context)
    }
}

/// The content of a key: a value, a table, a list of tables or named tables.
pub(super) trait Slot: Sized {
    /// What the declared struct holds.
    type Held: fmt::Debug;
    /// The keys below it.
    const KEYS: &'static [Key] = &[];
    /// Whether it holds named tables.
    const IS_NAMED: bool = false;
    /// Reads the content of `key`.
    fn read(table: &Table<'_>, key: &'static str) -> Self::Held;
    /// Returns the content of `key` if it is left out of the table at `location`.
    fn absent(key: &'static str, location: &Location) -> Self::Held;
    /// Returns what counts; `null` if it is not shown.
    fn show(held: &Self::Held, default: Option<Self>, context: &LoadContext<'_>) -> Json;
    /// The location of a value.
    fn location(_: &Self::Held) -> Option<&Location> {
        None
    }
    /// The defaults of the keys below it.
    fn defaults(_: &LoadContext<'_>) -> Json {
        Json::Null
    }
}

/// Named tables: `[key.NAME]`.
pub(super) struct Named<T>(PhantomData<T>);

/// A list of tables.
pub(super) struct List<T>(PhantomData<T>);

/// The values that a table shows in place of those that were written.
#[derive(Debug, Default)]
pub(super) struct Shown(RefCell<Map<String, Json>>);

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
            pub(super) name: Arc<str>,
            pub(super) location: Location,
            pub(super) shown: Shown,
            $($(#[doc = $doc])* pub(super) $key: <$type as Slot>::Held,)*
        }

        impl $table {
            $($(
                pub(super) fn $key(&self, context: &LoadContext<'_>) -> $type {
                    self.$key.settle($default, first!($($check,)? any), context)
                }
            )?)*
        }

        impl Declared for $table {
            const KEYS: &'static [Key] = &[$(
                Key::of::<$type>(stringify!($key), &[$($doc),*])$($(.$mark($($text)?))*)?,
            )*];

            fn read(name: Arc<str>, table: &Table<'_>) -> $table {
                $table {
                    $($key: <$type as Slot>::read(table, stringify!($key)),)*
                    location: table.location.clone(),
                    shown: Shown::default(),
                    name,
                }
            }

            fn absent(name: Arc<str>, location: Location) -> $table {
                $table {
                    $($key: <$type as Slot>::absent(stringify!($key), &location),)*
                    shown: Shown::default(),
                    location,
                    name,
                }
            }

            fn show(&self, context: &LoadContext<'_>) -> Json {
                let values = [$(
                    <$type as Slot>::show(&self.$key, first!($(Some($default),)? None), context),
                )*];
                self.shown.over(&self.name, <$table as Declared>::KEYS, values, context)
            }

            fn name(&self) -> &str {
                &self.name
            }

            fn at(&self, key: &str) -> Location {
                self.location.child(key)
            }

            fn given(&self) -> Vec<(&'static Key, &Location)> {
                let locations = [$(<$type as Slot>::location(&self.$key),)*];
                let keys = <$table as Declared>::KEYS.iter().zip(locations);
                keys.filter_map(|(key, location)| Some((key, location?))).collect()
            }
        }

        impl Slot for $table {
            type Held = $table;
            const KEYS: &'static [Key] = <$table as Declared>::KEYS;

            fn read(table: &Table<'_>, key: &'static str) -> $table {
                match table.table(key, <$table as Slot>::KEYS) {
                    Some(table) => <$table as Declared>::read(key.into(), &table),
                    None => <$table as Slot>::absent(key, &table.location),
                }
            }

            fn absent(key: &'static str, location: &Location) -> $table {
                <$table as Declared>::absent(key.into(), location.child(key))
            }

            fn show(held: &$table, _: Option<$table>, context: &LoadContext<'_>) -> Json {
                Declared::show(held, context)
            }

            fn defaults(context: &LoadContext<'_>) -> Json {
                <$table as Declared>::defaults(context)
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
            kind: None,
            is_for_start: false,
            about,
            sample: "",
            example: "",
            defaults: T::defaults,
        }
    }
}

impl<T: Clone> Field<T> {
    /// The value, if there is one. A value of which `check` finds something wrong is a fault.
    pub(super) fn checked(
        &self,
        check: impl Fn(&T, &T) -> Option<Wrong>,
        context: &LoadContext<'_>,
    ) -> Option<T> {
        let Spanned { value, location } = self.given()?;
        match check(value, value) {
            None => Some(value.clone()),
            Some((problem, remedy)) => {
                context.fault(location.fault(problem, remedy));
                None
            }
        }
    }

    /// As [`Field::checked`], or `default`.
    pub(super) fn settle(
        &self,
        default: T,
        check: impl Fn(&T, &T) -> Option<Wrong>,
        context: &LoadContext<'_>,
    ) -> T {
        let checked = self.checked(|value, _| check(value, &default), context);
        checked.unwrap_or(default)
    }
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

impl Shown {
    /// Shows `value` for `key`, whatever was written; `null` for nothing.
    pub(super) fn set(&self, key: &str, value: impl Into<Json>) {
        self.0.borrow_mut().insert(key.to_owned(), value.into());
    }

    /// Returns `values`, those of `keys` of the table `name`, with the replacements over them.
    pub(super) fn over<const N: usize>(
        &self,
        name: &str,
        keys: &[Key],
        values: [Json; N],
        context: &LoadContext<'_>,
    ) -> Json {
        let mut shown = self.0.borrow().clone();
        for (key, value) in keys.iter().zip(values) {
            if key.is_for_start {
                let exact = Secret::from(value.to_string());
                let path = format!("{name}.{}", key.name);
                context.at_start.borrow_mut().insert(path, exact);
            }
            shown.entry(key.name).or_insert(value);
        }
        shown.retain(|_, value| !value.is_null());
        Json::Object(shown)
    }
}

/// A value.
impl<T: Value + Clone + fmt::Debug> Slot for T {
    type Held = Field<T>;

    fn read(table: &Table<'_>, key: &'static str) -> Field<T> {
        table.get(key)
    }

    fn absent(_: &'static str, _: &Location) -> Field<T> {
        Field::Absent
    }

    fn show(held: &Field<T>, default: Option<T>, context: &LoadContext<'_>) -> Json {
        let value = held.given().map(|spanned| &spanned.value);
        value
            .or(default.as_ref())
            .map_or(Json::Null, |value| value.show(context))
    }

    fn location(held: &Field<T>) -> Option<&Location> {
        held.given().map(|spanned| &spanned.location)
    }
}

/// A table that may be left out.
impl<T: Declared> Slot for Option<T> {
    type Held = Option<T>;
    const KEYS: &'static [Key] = T::KEYS;

    fn read(table: &Table<'_>, key: &'static str) -> Option<T> {
        let table = table.table(key, T::KEYS)?;
        Some(T::read(key.into(), &table))
    }

    fn absent(_: &'static str, _: &Location) -> Option<T> {
        None
    }

    fn show(held: &Option<T>, _: Option<Self>, context: &LoadContext<'_>) -> Json {
        held.as_ref()
            .map_or(Json::Null, |table| table.show(context))
    }

    fn defaults(context: &LoadContext<'_>) -> Json {
        T::defaults(context)
    }
}

impl<T: Declared> Slot for List<T> {
    type Held = Vec<T>;
    const KEYS: &'static [Key] = T::KEYS;

    fn read(table: &Table<'_>, key: &'static str) -> Vec<T> {
        let tables = table.tables(key, T::KEYS).into_iter();
        tables.map(|table| T::read(key.into(), &table)).collect()
    }

    fn absent(_: &'static str, _: &Location) -> Vec<T> {
        Vec::new()
    }

    fn show(held: &Vec<T>, _: Option<Self>, context: &LoadContext<'_>) -> Json {
        let tables: Vec<Json> = held.iter().map(|table| table.show(context)).collect();
        if tables.is_empty() {
            Json::Null
        } else {
            json!(tables)
        }
    }

    fn defaults(context: &LoadContext<'_>) -> Json {
        T::defaults(context)
    }
}

impl<T: Declared> Slot for Named<T> {
    type Held = Vec<T>;
    const KEYS: &'static [Key] = T::KEYS;
    const IS_NAMED: bool = true;

    fn read(table: &Table<'_>, key: &'static str) -> Vec<T> {
        let tables = table.named(key, T::KEYS).into_iter();
        tables.map(|(name, table)| T::read(name, &table)).collect()
    }

    fn absent(_: &'static str, _: &Location) -> Vec<T> {
        Vec::new()
    }

    fn show(held: &Vec<T>, _: Option<Self>, context: &LoadContext<'_>) -> Json {
        let tables = held.iter().map(|table| (table, table.show(context)));
        let tables: Map<String, Json> = tables
            .map(|(t, shown)| (t.name().to_owned(), shown))
            .collect();
        if tables.is_empty() {
            Json::Null
        } else {
            Json::Object(tables)
        }
    }

    fn defaults(context: &LoadContext<'_>) -> Json {
        T::defaults(context)
    }
}
