//! The types of values, and what to write instead of a wrong one. A message gives a wrong value's
//! type, never the value.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::context::LoadContext;
use crate::oauth::AuthMethod;
use crate::outgoing::addresses::Target;
use crate::proxy::config::Others;
use crate::proxy::policy::Sessions;
use crate::proxy::policy::pattern::Pattern;
use crate::secret::Secret;
use crate::socket::{self, Address};

/// The problem of a value, and its remedy.
pub(super) type Wrong = (String, String);

/// The replacement for a secret that is written in the configuration itself.
pub const REDACTED: &str = "<redacted>";

/// A type of values.
pub(super) trait Value: Sized {
    /// Reads a value.
    fn read(value: &DeValue<'_>) -> Result<Self, Vec<Wrong>>;

    /// Returns the value as `check --print` and the status page show it.
    fn show(&self, context: &LoadContext<'_>) -> Json;
}

/// The longest duration. A longer one is probably a mistake, and the limit prevents overflows of
/// sums.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Parses a duration like `90s` or `1h 30m`.
///
/// # Errors
/// What to write instead.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("write at most \"30days\"".into()),
        Err(_) => Err("write a number with its unit, like \"90s\", \"5m\" or \"250ms\"".into()),
    }
}

/// The default mode of a unix socket: only this user can connect.
const SOCKET_MODE: u32 = 0o600;

/// The longest path of a unix socket, in bytes: the system's limit, less the suffix of the
/// temporary name under which the socket is created.
const LONGEST_SOCKET_PATH: usize = 90;

/// Parses an IP address and a port, or a unix socket.
///
/// # Errors
/// What to write instead.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let Some(path) = text.strip_prefix(socket::UNIX) else {
        return text.parse().map(Address::Tcp).map_err(|_| {
            "write an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\", or \
             \"unix:\" and a path"
                .into()
        });
    };
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(format!(
            "write a path of at most {LONGEST_SOCKET_PATH} bytes: systems take no longer one"
        ));
    }
    if Path::new(path).file_name().is_none() || path.contains('\0') {
        return Err("write the socket's path, like \"unix:/run/proxy.sock\"".into());
    }
    Ok(Address::Unix {
        path: path.into(),
        mode: SOCKET_MODE,
    })
}

/// Values that TOML and JSON have too.
macro_rules! plain {
    ($($type:ty: $read:expr, $wanted:literal, $remedy:literal;)*) => {$(
        impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<$type, Vec<Wrong>> {
                let read: fn(&DeValue<'_>) -> Option<$type> = $read;
                read(value).ok_or_else(|| vec![wrong_type(value, $wanted, $remedy)])
            }

            fn show(&self, _: &LoadContext<'_>) -> Json {
                json!(self)
            }
        }
    )*};
}

plain! {
    String: |value| value.as_str().map(str::to_owned),
        "a string", "write it in quotes, like \"…\"";
    bool: |value| value.as_bool(),
        "true or false", "write true or false, without quotes";
    f64: |value| match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        _ => None,
    }, "a number", "write a number, like 0.5, without quotes";
}

impl Value for Secret {
    fn read(value: &DeValue<'_>) -> Result<Secret, Vec<Wrong>> {
        String::read(value).map(Secret::from)
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        json!(REDACTED)
    }
}

impl Value for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<PathBuf, Vec<Wrong>> {
        let remedy = "write a file's path, or leave the key out";
        match String::read(value)? {
            text if text.is_empty() => wrong("the path is empty", remedy),
            text => Ok(text.into()),
        }
    }

    fn show(&self, context: &LoadContext<'_>) -> Json {
        json!(context.path(self).display().to_string())
    }
}

impl Value for u32 {
    fn read(value: &DeValue<'_>) -> Result<u32, Vec<Wrong>> {
        let Some(number) = value.as_integer() else {
            return not_a(value, "a whole number", "write digits, without quotes");
        };
        u32::from_str_radix(number.as_str(), number.radix()).or_else(|_| {
            wrong(
                "the number is below zero or far too large",
                "write a whole number, 0 or above",
            )
        })
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        json!(self)
    }
}

impl Value for Duration {
    fn read(value: &DeValue<'_>) -> Result<Duration, Vec<Wrong>> {
        match value.as_str() {
            Some(text) => duration(text).or_else(|remedy| wrong("this is no duration", remedy)),
            None if value.is_integer() || value.is_float() => wrong(
                "the number has no unit",
                "write the unit too, in quotes, like \"90s\", \"5m\" or \"250ms\"",
            ),
            None => not_a(
                value,
                "a duration",
                "write a number with its unit, in quotes, like \"90s\", \"5m\" or \"250ms\"",
            ),
        }
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        json!(humantime::format_duration(*self).to_string())
    }
}

impl Value for Address {
    fn read(value: &DeValue<'_>) -> Result<Address, Vec<Wrong>> {
        address(&String::read(value)?)
            .or_else(|remedy| wrong("this is no address to listen on", remedy))
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        json!(self.to_string())
    }
}

/// An item of a list of strings.
pub(super) trait Item: Sized + ToString {
    /// Parses the item, or returns its problem, after "item 1", and the remedy.
    fn parse(text: &str) -> Result<Self, (String, &'static str)>;
}

impl Item for String {
    fn parse(text: &str) -> Result<String, (String, &'static str)> {
        Ok(text.to_owned())
    }
}

/// A network, or a single address.
impl Item for IpNet {
    fn parse(text: &str) -> Result<IpNet, (String, &'static str)> {
        let remedy =
            "write an address and how many of its bits count, like \"10.0.0.0/8\" or \"fd00::/8\"";
        network(text).ok_or_else(|| ("is no network".to_owned(), remedy))
    }
}

impl Item for Pattern {
    fn parse(text: &str) -> Result<Pattern, (String, &'static str)> {
        let pattern = text.parse::<Pattern>();
        pattern.map_err(|error| (format!("is no pattern: {error}"), error.remedy()))
    }
}

/// Reports the faults of all items.
impl<T: Item> Value for Vec<T> {
    fn read(value: &DeValue<'_>) -> Result<Vec<T>, Vec<Wrong>> {
        const REMEDY: &str = "write strings in brackets, like [\"…\", \"…\"]";
        let Some(array) = value.as_array() else {
            return not_a(value, "a list of strings", REMEDY);
        };
        let (mut items, mut faults) = (Vec::new(), Vec::new());
        for (index, item) in array.iter().map(Spanned::get_ref).enumerate() {
            match item.as_str().map(T::parse) {
                Some(Ok(item)) => items.push(item),
                Some(Err((problem, remedy))) => {
                    faults.push((format!("item {} {problem}", index + 1), remedy.to_owned()));
                }
                None => faults.push(wrong_type(
                    item,
                    "a string, as each item of the list",
                    REMEDY,
                )),
            }
        }
        match faults.is_empty() {
            true => Ok(items),
            false => Err(faults),
        }
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        self.iter().map(ToString::to_string).collect()
    }
}

/// A host and port, or a list of them.
impl Value for Vec<Target> {
    fn read(value: &DeValue<'_>) -> Result<Vec<Target>, Vec<Wrong>> {
        let texts = match value.as_str() {
            Some(text) => vec![text.to_owned()],
            None => Vec::<String>::read(value)?,
        };
        if texts.is_empty() {
            return wrong(
                "the list is empty",
                "name one at least, or leave the key out",
            );
        }
        let target = |text: &String| match Target::parse(text) {
            Some(target) => Ok(target),
            None => wrong(
                "this is no host and port",
                "write a host and a port, like \"10.1.2.3:443\" or \"[fd00::1]:443\"",
            ),
        };
        texts.iter().map(target).collect()
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        self.iter().map(ToString::to_string).collect()
    }
}

/// Parses a network, or a single address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let address = || Some(IpNet::from(text.parse::<IpAddr>().ok()?));
    text.parse().ok().or_else(address)
}

/// Permissions of a socket's file, as `chmod` takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode(pub(super) u32);

impl Value for Mode {
    fn read(value: &DeValue<'_>) -> Result<Mode, Vec<Wrong>> {
        let text = String::read(value)?;
        let digits = text.trim_start_matches("0o");
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o777 && !digits.starts_with('+') => match mode & 0o600 {
                0o600 => Ok(Mode(mode)),
                _ => wrong(
                    "its own user could not use the socket",
                    "write a mode that begins with 6 or 7, like \"0660\"",
                ),
            },
            _ => wrong(
                "this is no mode of a file",
                "write it as for chmod, in quotes, like \"0660\": user, group, others",
            ),
        }
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        json!(format!("{:04o}", self.0))
    }
}

/// How a listener serves, or the permissions of its socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ListenerMode {
    Forward,
    Reverse,
    Socket(Mode),
}

impl Value for ListenerMode {
    fn read(value: &DeValue<'_>) -> Result<ListenerMode, Vec<Wrong>> {
        match value.as_str() {
            Some("forward") => Ok(ListenerMode::Forward),
            Some("reverse") => Ok(ListenerMode::Reverse),
            _ => Mode::read(value).map(ListenerMode::Socket),
        }
    }

    fn show(&self, context: &LoadContext<'_>) -> Json {
        match self {
            ListenerMode::Forward => json!("forward"),
            // the default
            ListenerMode::Reverse => Json::Null,
            ListenerMode::Socket(mode) => mode.show(context),
        }
    }
}

/// Values of which each is a word.
macro_rules! words {
    ($($type:ty: $problem:literal, $remedy:literal;)*) => {$(
        impl Value for $type {
            fn read(value: &DeValue<'_>) -> Result<$type, Vec<Wrong>> {
                let word = Json::String(String::read(value)?);
                serde_json::from_value(word).or_else(|_| wrong($problem, $remedy))
            }

            fn show(&self, _: &LoadContext<'_>) -> Json {
                json!(self)
            }
        }
    )*};
}

words! {
    AuthMethod: "there is no such method",
        "write \"client_secret_basic\" or \"client_secret_post\"";
    Others: "this is not known", "write \"refuse\" or \"tunnel\"";
    Sessions: "there is no such way to treat session logins",
        "write \"local\" (answered here), \"deny\" or \"pass\"";
}

/// Returns one fault.
fn wrong<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Vec<Wrong>> {
    Err(vec![(problem.into(), remedy.into())])
}

/// Returns the fault that `value` is not of the type `wanted`.
fn not_a<T>(value: &DeValue<'_>, wanted: &str, remedy: &str) -> Result<T, Vec<Wrong>> {
    Err(vec![wrong_type(value, wanted, remedy)])
}

/// Returns the problem that `value` is not of the type `wanted`.
pub(super) fn wrong_type(value: &DeValue<'_>, wanted: &str, remedy: &str) -> Wrong {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    (
        format!("this should be {wanted}, and is {found}"),
        remedy.to_owned(),
    )
}
