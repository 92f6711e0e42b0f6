//! The access log: one line per request. The data path queues its fields, and the log's thread
//! formats them.
//!
//! A line looks like one from `tracing` with the target `access`, at a tenth of the cost: a
//! timestamp is computed once per second.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tracing::level_filters::LevelFilter;

use super::ended::Ended;
use super::label::Label as _;
use super::lines::{Batch, Lines};
use super::printable::escape_json;

/// The longest `User-Agent` that is logged, in bytes; a longer one is truncated.
const LONGEST_USER_AGENT: usize = 256;

/// The process's access log. Set when logging starts.
static LOG: OnceLock<Lines> = OnceLock::new();

/// Returns whether the process writes an access log. It follows the log level, which may change at
/// any time.
#[must_use]
pub fn is_on() -> bool {
    LevelFilter::current() >= LevelFilter::INFO
}

/// Adds `request`, which ended `at`, to the process's access log, if there is one. Never waits: if
/// the log's queue is full, the request is dropped and counted.
pub fn write(request: &Ended<'_>, at: SystemTime) {
    if let Some(log) = LOG.get() {
        log.request(request, at);
    }
}

/// Makes `log` the process's access log; has no effect after the first call.
pub(super) fn start(log: Lines) {
    let _ = LOG.set(log);
}

/// An entry of the queue. Its text is stored separately, with the lengths given here.
#[derive(Debug)]
pub(super) enum Entry {
    /// Whole lines with their line breaks.
    Lines(usize),
    /// The start of a request's line: when the request ended.
    Begin(SystemTime),
    /// A field of a request's line.
    Field(&'static str, Value),
    /// The end of a request's line.
    End,
}

/// The value of a field.
#[derive(Debug)]
pub(super) enum Value {
    /// A text of this length.
    Text(usize),
    /// As above; the text format shows it without quotes.
    Name(usize),
    Peer(SocketAddr),
    Forwarded(IpAddr),
    /// 32 hexadecimal digits.
    Id([u8; 16]),
    Number(u64),
    Milliseconds(Duration),
    True,
}

impl Batch {
    /// Adds the entries of a request's line.
    pub(super) fn add_request(&mut self, request: &Ended<'_>, at: SystemTime) {
        let user_agent = request.user_agent.map(|value| {
            let bytes = value.as_bytes();
            &bytes[..bytes.len().min(LONGEST_USER_AGENT)]
        });
        let trace_id = request.trace_id.map(u128::to_be_bytes);
        self.entries.push(Entry::Begin(at));
        self.name("listener", request.listener);
        self.field("peer", request.peer.map(Value::Peer));
        self.field("forwarded", request.forwarded.map(Value::Forwarded));
        self.name("client", request.client);
        self.text("app", request.app.map(str::as_bytes));
        self.text("claimed_app", request.claimed_app.map(str::as_bytes));
        self.text("request_id", request.request_id.map(HeaderValue::as_bytes));
        self.field("trace_id", trace_id.map(Value::Id));
        self.name("method", request.method.as_str());
        self.text("path", Some(request.path.as_bytes()));
        self.text("user_agent", user_agent);
        self.field("status", Some(Value::Number(request.status.into())));
        self.field("bytes", Some(Value::Number(request.response_bytes)));
        self.field("milliseconds", Some(Value::Milliseconds(request.took)));
        let upstream = request.upstream.map(Value::Milliseconds);
        self.field("upstream_milliseconds", upstream);
        self.field("token_generation", request.generation.map(Value::Number));
        self.field("replayed", request.replayed.then_some(Value::True));
        self.text("refused", request.refused.map(str::as_bytes));
        self.text("cut", request.cut.map(|cut| cut.label().as_bytes()));
        self.text("error", request.error.map(str::as_bytes));
        self.entries.push(Entry::End);
    }

    fn field(&mut self, key: &'static str, value: Option<Value>) {
        if let Some(value) = value {
            self.entries.push(Entry::Field(key, value));
        }
    }

    fn text(&mut self, key: &'static str, text: Option<&[u8]>) {
        if let Some(text) = text {
            self.text.extend_from_slice(text);
            self.field(key, Some(Value::Text(text.len())));
        }
    }

    fn name(&mut self, key: &'static str, name: &str) {
        self.text.extend_from_slice(name.as_bytes());
        self.field(key, Some(Value::Name(name.len())));
    }
}

/// The format of the log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Plain,
    /// The same with colours, for a terminal.
    Coloured,
}

/// Formats lines.
pub(super) struct Formatter {
    form: Form,
    stamp: Stamp,
}

impl Formatter {
    /// Returns a formatter of this `form`.
    pub(super) fn new(form: Form) -> Formatter {
        Formatter {
            form,
            stamp: Stamp::default(),
        }
    }

    /// Appends `entry`, whose text is at the start of `text`; returns the rest of `text`.
    pub(super) fn write<'t>(
        &mut self,
        entry: &Entry,
        text: &'t [u8],
        out: &mut Vec<u8>,
    ) -> &'t [u8] {
        match entry {
            Entry::Lines(length) => {
                let (lines, rest) = text.split_at(*length);
                out.extend_from_slice(lines);
                return rest;
            }
            Entry::Begin(at) => {
                let (before, after): (&[u8], &[u8]) = match self.form {
                    Form::Json => (b"{\"timestamp\":\"", b"\",\"level\":\"INFO\""),
                    Form::Plain => (b"", b"  INFO access:"),
                    Form::Coloured => (
                        b"\x1b[2m",
                        b"\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2maccess\x1b[0m\x1b[2m:\x1b[0m",
                    ),
                };
                out.extend_from_slice(before);
                self.stamp.write(*at, out);
                out.extend_from_slice(after);
            }
            Entry::Field(key, value) => return self.write_field(key, value, text, out),
            Entry::End => out.extend_from_slice(match self.form {
                Form::Json => b",\"target\":\"access\"}\n",
                Form::Plain | Form::Coloured => b"\n",
            }),
        }
        text
    }

    fn write_field<'t>(
        &self,
        key: &str,
        value: &Value,
        text: &'t [u8],
        out: &mut Vec<u8>,
    ) -> &'t [u8] {
        let key = key.as_bytes();
        match self.form {
            Form::Json => extend(out, [b",\"", key, b"\":"]),
            Form::Plain => extend(out, [b" ", key, b"="]),
            Form::Coloured => extend(out, [b" \x1b[3m", key, b"\x1b[0m\x1b[2m=\x1b[0m"]),
        }
        match value {
            Value::Text(length) | Value::Name(length) => {
                let (value_text, rest) = text.split_at(*length);
                self.write_text(value_text, matches!(value, Value::Name(_)), out);
                return rest;
            }
            Value::Peer(address) => self.write_address(address, out),
            Value::Forwarded(address) => self.write_address(address, out),
            Value::Id(id) => {
                write_infallibly(out, format_args!("\"{:032x}\"", u128::from_be_bytes(*id)))
            }
            Value::Number(number) => write_number(number, out),
            // to the microsecond
            Value::Milliseconds(span) => {
                write_number(&((span.as_secs_f64() * 1e6).round() / 1e3), out);
            }
            Value::True => out.extend_from_slice(b"true"),
        }
        text
    }

    /// Appends an address, whose characters need no escape.
    fn write_address(&self, address: &dyn Display, out: &mut Vec<u8>) {
        let quote = if self.form == Form::Json { "\"" } else { "" };
        write_infallibly(out, format_args!("{quote}{address}{quote}"));
    }

    fn write_text(&self, text: &[u8], is_name: bool, out: &mut Vec<u8>) {
        let is_text = self.form != Form::Json;
        let is_plain = text.iter().all(|b| is_plain(*b));
        if is_plain && is_text && is_name {
            out.extend_from_slice(text);
        } else if is_plain {
            extend(out, [b"\"", text, b"\""]);
        } else if is_text {
            // `Debug` also escapes unprintable characters
            write_infallibly(out, format_args!("{:?}", String::from_utf8_lossy(text)));
        } else {
            let text = serde_json::Value::from(String::from_utf8_lossy(text)).to_string();
            out.extend_from_slice(escape_json(&text).as_bytes());
        }
    }
}

/// Returns whether a byte needs no escape in a quoted string, in text and in JSON.
fn is_plain(b: u8) -> bool {
    (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'
}

/// Appends `parts`. Where it is inlined, those of constant length cost no call.
#[inline]
fn extend(out: &mut Vec<u8>, parts: [&[u8]; 3]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn write_infallibly(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // writing to a Vec cannot fail
    let _ = out.write_fmt(text);
}

/// Appends a number, which text and JSON write alike.
fn write_number(number: &impl serde::Serialize, out: &mut Vec<u8>) {
    // writing to a Vec cannot fail
    let _ = serde_json::to_writer(out, number);
}

/// Formats timestamps (RFC 3339, UTC, to the microsecond). Reuses the last one within the same
/// second.
#[derive(Default)]
struct Stamp {
    second: Option<u64>,
    /// The timestamp up to its decimal point.
    text: Vec<u8>,
}

impl Stamp {
    fn write(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        // a clock before 1970 is wrong anyway
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            let second = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            self.text.clear();
            let second = second.strftime("%Y-%m-%dT%H:%M:%S.");
            write_infallibly(&mut self.text, format_args!("{second}"));
        }
        out.extend_from_slice(&self.text);
        write_infallibly(out, format_args!("{:06}Z", since.subsec_micros()));
    }
}

#[cfg(test)]
mod tests;
