//! The types of values, and what to write instead of a wrong one. A message gives a wrong value's
//! type, never the value.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::outgoing::addresses::Target;
use crate::secret::Secret;
use crate::socket::{self, Address};

/// The problem of a value, and its remedy.
pub(super) type Wrong = (String, String);

/// A type of values.
pub(super) trait Value: Sized {
    /// Reads a value.
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong>;
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
pub(super) const SOCKET_MODE: u32 = 0o600;

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

impl Value for String {
    fn read(value: &DeValue<'_>) -> Result<String, Wrong> {
        let text = value
            .as_str()
            .ok_or_else(|| wrong_type(value, "a string", "write it in quotes, like \"…\""))?;
        Ok(text.to_owned())
    }
}

impl Value for Secret {
    fn read(value: &DeValue<'_>) -> Result<Secret, Wrong> {
        String::read(value).map(Secret::from)
    }
}

impl Value for PathBuf {
    fn read(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
        let text = String::read(value)?;
        if text.is_empty() {
            return Err((
                "the path is empty".into(),
                "write a file's path, or leave the key out".into(),
            ));
        }
        Ok(text.into())
    }
}

impl Value for bool {
    fn read(value: &DeValue<'_>) -> Result<bool, Wrong> {
        value.as_bool().ok_or_else(|| {
            wrong_type(
                value,
                "true or false",
                "write true or false, without quotes",
            )
        })
    }
}

impl Value for u32 {
    fn read(value: &DeValue<'_>) -> Result<u32, Wrong> {
        let number = value
            .as_integer()
            .ok_or_else(|| wrong_type(value, "a whole number", "write digits, without quotes"))?;
        u32::from_str_radix(number.as_str(), number.radix()).map_err(|_| {
            (
                "the number is below zero or far too large".into(),
                "write a whole number, 0 or above".into(),
            )
        })
    }
}

impl Value for f64 {
    fn read(value: &DeValue<'_>) -> Result<f64, Wrong> {
        let text = match value {
            DeValue::Float(number) => Some(number.as_str()),
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
            _ => None,
        };
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            wrong_type(
                value,
                "a number",
                "write a number, like 0.5, without quotes",
            )
        })
    }
}

impl Value for Duration {
    fn read(value: &DeValue<'_>) -> Result<Duration, Wrong> {
        match value.as_str() {
            Some(text) => duration(text).map_err(|remedy| ("this is no duration".into(), remedy)),
            None if value.is_integer() || value.is_float() => Err((
                "the number has no unit".into(),
                "write the unit too, in quotes, like \"90s\", \"5m\" or \"250ms\"".into(),
            )),
            None => Err(wrong_type(
                value,
                "a duration",
                "write a number with its unit, in quotes, like \"90s\", \"5m\" or \"250ms\"",
            )),
        }
    }
}

impl Value for Address {
    fn read(value: &DeValue<'_>) -> Result<Address, Wrong> {
        let text = String::read(value)?;
        address(&text).map_err(|remedy| ("this is no address to listen on".into(), remedy))
    }
}

impl Value for Vec<String> {
    fn read(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
        const REMEDY: &str = "write strings in brackets, like [\"…\", \"…\"]";
        let array = value
            .as_array()
            .ok_or_else(|| wrong_type(value, "a list of strings", REMEDY))?;
        array
            .iter()
            .map(Spanned::get_ref)
            .map(|item| match item.as_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(wrong_type(
                    item,
                    "a string, as each item of the list",
                    REMEDY,
                )),
            })
            .collect()
    }
}

/// A host and port, or a list of them.
impl Value for Vec<Target> {
    fn read(value: &DeValue<'_>) -> Result<Vec<Target>, Wrong> {
        let texts = match value.as_str() {
            Some(text) => vec![text.to_owned()],
            None => Vec::<String>::read(value)?,
        };
        if texts.is_empty() {
            let remedy = "name one at least, or leave the key out";
            return Err(("the list is empty".into(), remedy.into()));
        }
        let target = |text: &String| {
            Target::parse(text).ok_or_else(|| {
                let remedy = "write a host and a port, like \"10.1.2.3:443\" or \"[fd00::1]:443\"";
                ("this is no host and port".into(), remedy.into())
            })
        };
        texts.iter().map(target).collect()
    }
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
