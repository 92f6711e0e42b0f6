//! The access log: one line per request. The data path creates a [`Record`], and the log's thread
//! formats it.
//!
//! A line looks like one from `tracing` with the target `access`, at a tenth of the cost:
//! formatting allocates nothing and computes a timestamp once per second.

mod switch;

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Uri};

use super::lines::Lines;
use super::logging::Format;
use super::printable::is_printable;
use super::requests::Cut;

/// The longest `User-Agent` that is logged, in bytes; a longer one is truncated.
const LONGEST_USER_AGENT: usize = 256;

pub use switch::is_on;
pub(super) use switch::show;

/// The process's access log. Set when logging starts.
static LOG: OnceLock<AccessLog> = OnceLock::new();

/// One request as logged. Never a query, a header value or a body.
#[derive(Clone, Debug)]
pub struct Record {
    /// The wall-clock time at which the request ended.
    pub at: SystemTime,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address of the connection's peer; none over a unix socket.
    pub peer: Option<SocketAddr>,
    /// The caller's address as reported by trusted proxies.
    pub forwarded: Option<IpAddr>,
    /// The client's name.
    pub client: Arc<str>,
    /// The app's name, if the caller is one.
    pub app: Option<Arc<str>>,
    /// The app name that the caller claims without proof.
    pub claimed_app: Option<Arc<str>>,
    /// The id that identifies the request in other logs.
    pub request_id: Option<RequestId>,
    /// The id of the trace with the request's span.
    pub trace_id: Option<[u8; 16]>,
    /// The method.
    pub method: Method,
    /// The target; only its path is logged.
    pub uri: Uri,
    /// The caller's `User-Agent`, if it is logged.
    pub user_agent: Option<HeaderValue>,
    /// The status sent to the caller; 0 if there was no response.
    pub status: u16,
    /// The bytes sent of the response's body.
    pub bytes: u64,
    /// The time from the request's head to the last byte of the response.
    pub took: Duration,
    /// The time until the instance sent the head of its response.
    pub upstream: Option<Duration>,
    /// The generation of the request's token.
    pub generation: Option<u64>,
    /// Whether the request was sent again after a 401.
    pub replayed: bool,
    /// Why the proxy answered it itself.
    pub refused: Option<&'static str>,
    /// Which side ended the exchange early.
    pub cut: Option<Cut>,
    /// The error message, if something failed.
    pub error: Option<String>,
}

/// The id that identifies a request in other logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// The caller chose it.
    Given(HeaderValue),
    /// The proxy chose it; shown as 32 hexadecimal digits.
    Generated(u128),
}

/// Adds `record` to the process's access log, if there is one. Never waits: if the log's queue is
/// full, the record is dropped and counted.
pub fn write(record: Record) {
    if let Some(log) = LOG.get() {
        log.write(record);
    }
}

/// Makes `log` the process's access log; has no effect after the first call.
pub(super) fn start(log: AccessLog, is_shown: bool) {
    let _ = LOG.set(log);
    show(is_shown);
}

/// Sends records to the thread that writes `Lines`.
#[derive(Clone)]
pub(super) struct AccessLog(pub(super) Lines);

impl AccessLog {
    pub(super) fn write(&self, record: Record) {
        let Record {
            at,
            listener,
            peer,
            forwarded,
            client,
            app,
            claimed_app,
            request_id,
            trace_id,
            method,
            uri,
            user_agent,
            status,
            bytes,
            took,
            upstream,
            generation,
            replayed,
            refused,
            cut,
            error,
        } = record;
        self.0.record(|text| {
            // copy, because a URI or header value may keep the buffer of a whole head alive
            let path = copied(uri.path().as_bytes(), text);
            let id = match &request_id {
                None => Id::None,
                Some(RequestId::Given(id)) => Id::Given(copied(id.as_bytes(), text)),
                Some(RequestId::Generated(id)) => Id::Generated(id.to_be_bytes()),
            };
            let user_agent = user_agent.map(|value| {
                let bytes = value.as_bytes();
                copied(&bytes[..bytes.len().min(LONGEST_USER_AGENT)], text)
            });
            let error = error.as_ref().map(|error| copied(error.as_bytes(), text));
            Entry::Access(Access {
                at,
                listener,
                peer,
                forwarded,
                client,
                app,
                claimed_app,
                id,
                trace_id,
                method,
                path,
                user_agent,
                status,
                bytes,
                took,
                upstream,
                generation,
                replayed,
                refused,
                cut,
                error,
            })
        });
    }
}

/// Splits off the text of this length, if there is one; returns it and the rest.
fn taken(length: Option<usize>, text: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match length {
        None => (None, text),
        Some(length) => {
            let (taken, rest) = text.split_at(length);
            (Some(taken), rest)
        }
    }
}

fn copied(bytes: &[u8], text: &mut Vec<u8>) -> usize {
    text.extend_from_slice(bytes);
    bytes.len()
}

/// An entry of the queue. Its text is stored separately, with the lengths given here.
#[expect(
    clippy::large_enum_variant,
    reason = "most are requests, and a box would cost each an allocation"
)]
pub(super) enum Entry {
    /// A whole line with its line break.
    Line(usize),
    /// A request that is not formatted yet.
    Access(Access),
}

/// A [`Record`] without its texts. They follow in this order: path, request id, user agent, error.
pub(super) struct Access {
    at: SystemTime,
    listener: Arc<str>,
    peer: Option<SocketAddr>,
    forwarded: Option<IpAddr>,
    client: Arc<str>,
    app: Option<Arc<str>>,
    claimed_app: Option<Arc<str>>,
    id: Id,
    trace_id: Option<[u8; 16]>,
    method: Method,
    path: usize,
    user_agent: Option<usize>,
    status: u16,
    bytes: u64,
    took: Duration,
    upstream: Option<Duration>,
    generation: Option<u64>,
    replayed: bool,
    refused: Option<&'static str>,
    cut: Option<Cut>,
    error: Option<usize>,
}

enum Id {
    None,
    Given(usize),
    Generated([u8; 16]),
}

/// The format of the log's lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) format: Format,
    /// Whether lines have colours, for a terminal and in text only.
    pub(super) colour: bool,
}

impl Form {
    /// Returns a formatter of this form.
    pub(super) fn lines(self) -> Formatter {
        Formatter {
            form: self,
            stamp: Stamp::default(),
        }
    }

    /// Appends a finished `line`. In JSON, escapes the characters that a terminal interprets and
    /// `tracing` leaves: control characters beyond ASCII, and those that reverse the writing
    /// direction.
    pub(super) fn copy_line(self, line: &[u8], out: &mut Vec<u8>) {
        let is_plain = |b: &u8| (0x20..0x7f).contains(b) || *b == b'\n';
        if self.format == Format::Text || line.iter().all(is_plain) {
            out.extend_from_slice(line);
            return;
        }
        // in JSON, such characters occur within strings only
        for c in String::from_utf8_lossy(line).chars() {
            if c.is_ascii() && c != '\x7f' {
                out.push(c as u8);
            } else {
                push_json_char(c, out);
            }
        }
    }
}

/// Formats lines.
pub(super) struct Formatter {
    form: Form,
    stamp: Stamp,
}

impl Formatter {
    /// Appends the line of `entry`, whose text is at the start of `text`; returns the rest of
    /// `text`.
    pub(super) fn write<'t>(
        &mut self,
        entry: &Entry,
        text: &'t [u8],
        out: &mut Vec<u8>,
    ) -> &'t [u8] {
        match entry {
            Entry::Line(length) => {
                let (line, rest) = text.split_at(*length);
                out.extend_from_slice(line);
                rest
            }
            Entry::Access(access) => self.write_access(access, text, out),
        }
    }

    fn write_access<'t>(&mut self, access: &Access, text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
        let (path, text) = text.split_at(access.path);
        let digits;
        let (id, text) = match access.id {
            Id::None => (None, text),
            Id::Given(length) => {
                let (id, rest) = text.split_at(length);
                (Some(id), rest)
            }
            Id::Generated(id) => {
                digits = hexadecimal(id);
                (Some(&digits[..]), text)
            }
        };
        let (user_agent, text) = taken(access.user_agent, text);
        let (error, text) = taken(access.error, text);

        let mut line = self.begin(access.at, out);
        line.name("listener", access.listener.as_bytes());
        if let Some(peer) = access.peer {
            line.display("peer", &peer);
        }
        if let Some(forwarded) = access.forwarded {
            line.display("forwarded", &forwarded);
        }
        line.name("client", access.client.as_bytes());
        if let Some(app) = &access.app {
            line.text("app", app.as_bytes());
        }
        if let Some(app) = &access.claimed_app {
            line.text("claimed_app", app.as_bytes());
        }
        if let Some(id) = id {
            line.text("request_id", id);
        }
        if let Some(trace_id) = access.trace_id {
            line.text("trace_id", &hexadecimal(trace_id));
        }
        line.name("method", access.method.as_str().as_bytes());
        line.text("path", path);
        if let Some(user_agent) = user_agent {
            line.text("user_agent", user_agent);
        }
        line.number("status", access.status.into());
        line.number("bytes", access.bytes);
        line.milliseconds("milliseconds", access.took);
        if let Some(upstream) = access.upstream {
            line.milliseconds("upstream_milliseconds", upstream);
        }
        if let Some(generation) = access.generation {
            line.number("token_generation", generation);
        }
        if access.replayed {
            line.key("replayed");
            line.out.extend_from_slice(b"true");
        }
        if let Some(refused) = access.refused {
            line.text("refused", refused.as_bytes());
        }
        if let Some(cut) = access.cut {
            line.text("cut", cut.label().as_bytes());
        }
        if let Some(error) = error {
            line.text("error", error);
        }
        line.end();
        text
    }

    /// Starts a line of the access log.
    fn begin<'l>(&mut self, at: SystemTime, out: &'l mut Vec<u8>) -> Line<'l> {
        let form = self.form;
        let (before, after): (&[u8], &[u8]) = match (form.format, form.colour) {
            (Format::Json, _) => (b"{\"timestamp\":\"", b"\",\"level\":\"INFO\""),
            (Format::Text, false) => (b"", b"  INFO access:"),
            (Format::Text, true) => (
                b"\x1b[2m",
                b"\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2maccess\x1b[0m\x1b[2m:\x1b[0m",
            ),
        };
        out.extend_from_slice(before);
        self.stamp.write(at, out);
        out.extend_from_slice(after);
        Line { form, out }
    }
}

/// A line being formatted.
struct Line<'l> {
    form: Form,
    out: &'l mut Vec<u8>,
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        let (before, after): (&[u8], &[u8]) = match (self.form.format, self.form.colour) {
            (Format::Json, _) => (b",\"", b"\":"),
            (Format::Text, false) => (b" ", b"="),
            (Format::Text, true) => (b" \x1b[3m", b"\x1b[0m\x1b[2m=\x1b[0m"),
        };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(after);
    }

    /// Appends a value that text format shows without quotes.
    fn name(&mut self, key: &str, name: &[u8]) {
        if self.form.format == Format::Text && name.iter().all(|b| is_plain(*b)) {
            self.key(key);
            self.out.extend_from_slice(name);
        } else {
            self.text(key, name);
        }
    }

    /// Appends a value that consists of the characters of an address.
    fn display(&mut self, key: &str, value: &dyn fmt::Display) {
        self.key(key);
        let quote = match self.form.format {
            Format::Json => "\"",
            Format::Text => "",
        };
        // writing to a Vec cannot fail
        let _ = write!(self.out, "{quote}{value}{quote}");
    }

    fn text(&mut self, key: &str, text: &[u8]) {
        self.key(key);
        let is_plain = text.iter().all(|b| is_plain(*b));
        if self.form.format == Format::Text && !is_plain {
            // `Debug` also escapes unprintable characters; writing to a Vec cannot fail
            let _ = write!(self.out, "{:?}", String::from_utf8_lossy(text));
            return;
        }
        self.out.push(b'"');
        if is_plain {
            self.out.extend_from_slice(text);
        } else {
            let text = String::from_utf8_lossy(text);
            text.chars().for_each(|c| push_json_char(c, self.out));
        }
        self.out.push(b'"');
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        push_decimal(number, 1, self.out);
    }

    /// Appends a duration in milliseconds, to the microsecond, with at least one decimal place.
    fn milliseconds(&mut self, key: &str, span: Duration) {
        self.key(key);
        let micros = (span + Duration::from_nanos(500)).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        push_decimal(micros / 1_000, 1, self.out);
        self.out.push(b'.');
        let (mut decimals, mut places) = (micros % 1_000, 3);
        while places > 1 && decimals.is_multiple_of(10) {
            decimals /= 10;
            places -= 1;
        }
        push_decimal(decimals, places, self.out);
    }

    fn end(self) {
        self.out.extend_from_slice(match self.form.format {
            Format::Json => b",\"target\":\"access\"}\n",
            Format::Text => b"\n",
        });
    }
}

/// Returns whether a byte needs no escape in a quoted string, in text and in JSON.
fn is_plain(b: u8) -> bool {
    (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'
}

fn push_json_char(c: char, out: &mut Vec<u8>) {
    if matches!(c, '"' | '\\') {
        out.extend_from_slice(&[b'\\', c as u8]);
    } else if is_printable(c) {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // writing to a Vec cannot fail
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
}

/// Appends `number` with at least `places` digits.
fn push_decimal(mut number: u64, places: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - places)..]);
}

fn hexadecimal(bytes: [u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, b) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(b >> 4)];
        pair[1] = DIGITS[usize::from(b & 15)];
    }
    digits
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
            // writing to a Vec cannot fail
            let _ = write!(self.text, "{}", second.strftime("%Y-%m-%dT%H:%M:%S."));
        }
        out.extend_from_slice(&self.text);
        push_decimal(since.subsec_micros().into(), 6, out);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests;
