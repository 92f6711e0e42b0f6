//! The access log: one line for each request. The data path hands over a [`Record`], and the log's
//! own thread formats it.
//!
//! A line looks as if `tracing` had made it, with the target `access`, and costs a tenth: nothing
//! is allocated, and a second's time stamp is made once.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Uri};

use super::lines::Lines;
use super::logging::Format;

/// The process's access log, once logging has been started at a level that shows it.
static LOG: OnceLock<AccessLog> = OnceLock::new();

/// One request, as the access log shows it. Never a query, a header value or a body.
#[derive(Clone, Debug)]
pub struct Record {
    /// The wall-clock time at which the request ended.
    pub at: SystemTime,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client's name.
    pub client: Arc<str>,
    /// The app's name, if the caller is one.
    pub app: Option<Arc<str>>,
    /// The id that finds the request in other logs.
    pub request_id: Option<RequestId>,
    /// The id of the trace that has the request's span.
    pub trace_id: Option<[u8; 16]>,
    /// The request's method.
    pub method: Method,
    /// The request's target, of which only the path is shown.
    pub uri: Uri,
    /// The status that the caller got; 0 if there was no response.
    pub status: u16,
    /// How many bytes of the response's body were sent.
    pub bytes: u64,
    /// From the request's head to the last byte of the response.
    pub took: Duration,
    /// How long the instance took to begin its response.
    pub upstream: Option<Duration>,
    /// The generation of the token that went with the request.
    pub generation: Option<u64>,
    /// Whether the request was sent a second time, after a 401.
    pub replayed: bool,
    /// Why the proxy answered it itself.
    pub refused: Option<&'static str>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The id that finds a request in other logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// The caller chose it.
    Given(HeaderValue),
    /// The proxy chose it; shown as 32 hexadecimal digits.
    Generated(u128),
}

/// Whether the process writes an access log: if not, making a [`Record`] is wasted.
#[must_use]
pub fn is_on() -> bool {
    LOG.get().is_some()
}

/// Adds `record` to the process's access log, if it has one. Never waits: a record that finds the
/// log's queue full is dropped and counted.
pub fn write(record: Record) {
    if let Some(log) = LOG.get() {
        log.write(record);
    }
}

/// Makes `log` the process's own; the first one stays.
pub(super) fn start(log: AccessLog) {
    let _ = LOG.set(log);
}

/// Hands records to the thread that writes `Lines`.
#[derive(Clone)]
pub(super) struct AccessLog(pub(super) Lines);

impl AccessLog {
    pub(super) fn write(&self, record: Record) {
        let Record {
            at,
            listener,
            client,
            app,
            request_id,
            trace_id,
            method,
            uri,
            status,
            bytes,
            took,
            upstream,
            generation,
            replayed,
            refused,
            error,
        } = record;
        self.0.record(|text| {
            // copied, because a URI or header value may hold on to the buffer of a whole head
            let path = copied(uri.path().as_bytes(), text);
            let id = match &request_id {
                None => Id::None,
                Some(RequestId::Given(id)) => Id::Given(copied(id.as_bytes(), text)),
                Some(RequestId::Generated(id)) => Id::Generated(id.to_be_bytes()),
            };
            let error = error.as_ref().map(|error| copied(error.as_bytes(), text));
            Entry::Access(Access {
                at,
                listener,
                client,
                app,
                id,
                trace_id,
                method,
                path,
                status,
                bytes,
                took,
                upstream,
                generation,
                replayed,
                refused,
                error,
            })
        });
    }
}

fn copied(bytes: &[u8], text: &mut Vec<u8>) -> usize {
    text.extend_from_slice(bytes);
    bytes.len()
}

/// What waits to be written. Its text lies elsewhere, and is as long as said here.
#[expect(
    clippy::large_enum_variant,
    reason = "most are requests, and a box would cost each an allocation"
)]
pub(super) enum Entry {
    /// A whole line with its line break.
    Line(usize),
    /// A request, to be formatted.
    Access(Access),
}

/// A [`Record`] without its texts: path, request id and error, in this order.
pub(super) struct Access {
    at: SystemTime,
    listener: Arc<str>,
    client: Arc<str>,
    app: Option<Arc<str>>,
    id: Id,
    trace_id: Option<[u8; 16]>,
    method: Method,
    path: usize,
    status: u16,
    bytes: u64,
    took: Duration,
    upstream: Option<Duration>,
    generation: Option<u64>,
    replayed: bool,
    refused: Option<&'static str>,
    error: Option<usize>,
}

enum Id {
    None,
    Given(usize),
    Generated([u8; 16]),
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) format: Format,
    /// Whether a terminal colours them; only text is coloured.
    pub(super) colour: bool,
}

impl Form {
    /// Formats lines of this form.
    pub(super) fn lines(self) -> Formatter {
        Formatter {
            form: self,
            stamp: Stamp::default(),
        }
    }

    /// Appends a finished `line`. In JSON, `tracing` does not escape all characters that a terminal
    /// acts on: control characters beyond ASCII, and those that reverse the direction of writing.
    pub(super) fn copy_line(self, line: &[u8], out: &mut Vec<u8>) {
        let is_plain = |b: &u8| (0x20..0x7f).contains(b) || *b == b'\n';
        if self.format == Format::Text || line.iter().all(is_plain) {
            out.extend_from_slice(line);
            return;
        }
        // in JSON, such characters can stand in strings only
        for c in String::from_utf8_lossy(line).chars() {
            if c.is_ascii() && c != '\x7f' {
                out.push(c as u8);
            } else {
                push_json_char(c, out);
            }
        }
    }
}

/// Formats one line after the other.
pub(super) struct Formatter {
    form: Form,
    stamp: Stamp,
}

impl Formatter {
    /// Appends the line of `entry`, whose text `text` begins with; gives the rest of `text`.
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
        let (error, text) = match access.error {
            None => (None, text),
            Some(length) => {
                let (error, rest) = text.split_at(length);
                (Some(error), rest)
            }
        };

        let mut line = self.begin(access.at, out);
        line.name("listener", access.listener.as_bytes());
        line.name("client", access.client.as_bytes());
        if let Some(app) = &access.app {
            line.text("app", app.as_bytes());
        }
        if let Some(id) = id {
            line.text("request_id", id);
        }
        if let Some(trace_id) = access.trace_id {
            line.text("trace_id", &hexadecimal(trace_id));
        }
        line.name("method", access.method.as_str().as_bytes());
        line.text("path", path);
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
        if let Some(error) = error {
            line.text("error", error);
        }
        line.end();
        text
    }

    /// Begins a line of the access log.
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

/// A line in the making.
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

    /// A word that text shows without quotation marks.
    fn name(&mut self, key: &str, name: &[u8]) {
        if self.form.format == Format::Text && name.iter().all(|b| is_plain(*b)) {
            self.key(key);
            self.out.extend_from_slice(name);
        } else {
            self.text(key, name);
        }
    }

    fn text(&mut self, key: &str, text: &[u8]) {
        self.key(key);
        let is_plain = text.iter().all(|b| is_plain(*b));
        if self.form.format == Format::Text && !is_plain {
            // `Debug` escapes unprintable characters too; a Vec takes everything
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

    /// A span in milliseconds, to the microsecond, with at least one decimal place.
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

/// Whether a byte stands for itself between quotation marks, in text and in JSON.
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
            // a Vec takes everything
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
}

/// Whether a terminal prints `c` and does nothing else: no control character, and none that
/// reverses the direction of writing.
pub(super) fn is_printable(c: char) -> bool {
    // `Debug` knows them; it escapes quotation marks too, for another reason
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().nth(1).is_none()
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

/// Time stamps (RFC 3339, UTC, to the microsecond). Most fall into the second of the one before.
#[derive(Default)]
struct Stamp {
    second: Option<u64>,
    /// The second, up to its decimal point.
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
            // a Vec takes everything
            let _ = write!(self.text, "{}", second.strftime("%Y-%m-%dT%H:%M:%S."));
        }
        out.extend_from_slice(&self.text);
        push_decimal(since.subsec_micros().into(), 6, out);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;
    use prometheus::IntCounter;
    use std::io;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TEXT: Form = Form {
        format: Format::Text,
        colour: false,
    };

    const JSON: Form = Form {
        format: Format::Json,
        colour: false,
    };

    /// What the log holds after `act`.
    fn logged(form: Form, act: impl FnOnce(&AccessLog, &Lines)) -> String {
        let sink = Sink::default();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (lines, writing) = lines::write_to(sink.clone(), form, dropped, |_| {}).unwrap();
        act(&AccessLog(lines.clone()), &lines);
        drop(writing);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn whole() -> Record {
        Record {
            at: UNIX_EPOCH + Duration::from_micros(1_795_953_281_000_042),
            listener: "local".into(),
            client: "catalog".into(),
            app: Some("nightly export".into()),
            request_id: Some(RequestId::Generated(0xff)),
            trace_id: Some([0xab; 16]),
            method: Method::GET,
            uri: "https://example.com/rest/2.0/assets?secret=1"
                .parse()
                .unwrap(),
            status: 200,
            bytes: 1_024,
            took: Duration::from_nanos(12_345_678),
            upstream: Some(Duration::from_millis(12)),
            generation: Some(3),
            replayed: true,
            refused: Some("no-token"),
            error: Some("ConnectRefused".to_owned()),
        }
    }

    fn bare() -> Record {
        Record {
            app: None,
            request_id: None,
            trace_id: None,
            upstream: None,
            generation: None,
            replayed: false,
            refused: None,
            error: None,
            ..whole()
        }
    }

    /// The line that `tracing` makes of the same fields.
    fn traced(form: Form, record: &Record) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = super::super::logging::tests::subscriber_to(form, move || writer.clone());
        let millis = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        let id = record.request_id.as_ref().map(|id| match id {
            RequestId::Given(id) => id.to_str().unwrap().to_owned(),
            RequestId::Generated(id) => format!("{id:032x}"),
        });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                target: "access",
                listener = %record.listener,
                client = %record.client,
                app = record.app.as_deref(),
                request_id = id,
                trace_id = record.trace_id.map(|_| "ab".repeat(16)),
                method = %record.method,
                path = record.uri.path(),
                status = record.status,
                bytes = record.bytes,
                milliseconds = millis(record.took),
                upstream_milliseconds = record.upstream.map(millis),
                token_generation = record.generation,
                replayed = record.replayed.then_some(true),
                refused = record.refused,
                error = record.error.as_deref(),
            );
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// `line` without the time, which `tracing` reads itself.
    fn without_time(line: &str) -> String {
        let at = line.find("20").unwrap();
        let end = at + line[at..].find('Z').unwrap();
        assert_eq!(end - at, "2026-11-29T11:54:41.000042".len(), "{line}");
        format!("{}TIME{}", &line[..at], &line[end..])
    }

    #[test]
    fn a_line_is_the_one_that_tracing_makes() {
        let colours = Form {
            colour: true,
            ..TEXT
        };
        let spans = [0, 1, 499, 500, 1_000, 999_999, 1_000_000, 59_999_999_499];
        let mut records = vec![whole(), bare()];
        records.extend(spans.map(|nanos| Record {
            took: Duration::from_nanos(nanos),
            request_id: Some(RequestId::Given(HeaderValue::from_static("a-b_c.1"))),
            ..whole()
        }));
        records.push(Record {
            uri: "/a%20b/\"'\\/?x".parse().unwrap(),
            app: Some("späte \u{202e}\u{7}".into()),
            error: Some("two\nlines".to_owned()),
            method: Method::from_bytes(b"PROPFIND").unwrap(),
            ..whole()
        });
        for form in [TEXT, colours, JSON] {
            for record in &records {
                let line = logged(form, |log, _| log.write(record.clone()));
                let of_tracing = traced(form, record);
                let (line, of_tracing) = (without_time(&line), without_time(&of_tracing));
                if form.format == Format::Json {
                    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line);
                    assert_eq!(value(&line).unwrap(), value(&of_tracing).unwrap());
                }
                if form.format == Format::Text || line.is_ascii() && !line.contains("\\u") {
                    assert_eq!(line, of_tracing);
                }
            }
        }
    }

    #[test]
    fn a_line_for_people_and_one_for_collectors() {
        assert_eq!(
            logged(TEXT, |log, _| log.write(whole())),
            "2026-11-29T11:54:41.000042Z  INFO access: listener=local client=catalog \
             app=\"nightly export\" request_id=\"000000000000000000000000000000ff\" method=GET \
             path=\"/rest/2.0/assets\" status=200 bytes=1024 milliseconds=12.346 \
             upstream_milliseconds=12.0 token_generation=3 replayed=true refused=\"no-token\" \
             error=\"ConnectRefused\"\n"
        );
        assert_eq!(
            logged(JSON, |log, _| log.write(bare())),
            "{\"timestamp\":\"2026-11-29T11:54:41.000042Z\",\"level\":\"INFO\",\
             \"listener\":\"local\",\"client\":\"catalog\",\"method\":\"GET\",\
             \"path\":\"/rest/2.0/assets\",\"status\":200,\"bytes\":1024,\
             \"milliseconds\":12.346,\"target\":\"access\"}\n"
        );
    }

    #[test]
    fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
        let canary = "a\nb\r\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{202e}\u{2028}\0";
        let record = Record {
            listener: canary.into(),
            app: Some(canary.into()),
            error: Some(canary.to_owned()),
            ..whole()
        };
        for form in [TEXT, JSON] {
            let text = logged(form, |log, _| log.write(record.clone()));
            let line = text.strip_suffix('\n').unwrap();
            assert!(line.chars().all(is_printable), "{line:?}");
            if form.format == Format::Json {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["error"], canary);
                assert_eq!(value["listener"], canary);
            }
        }
    }

    #[test]
    fn records_and_other_lines_stay_in_order() {
        let text = logged(TEXT, |log, mut lines| {
            for turn in 0..1_000 {
                log.write(Record {
                    status: turn,
                    ..whole()
                });
                lines
                    .write_all(format!("turn {turn}\n").as_bytes())
                    .unwrap();
            }
        });
        for (turn, pair) in text.lines().collect::<Vec<_>>().chunks(2).enumerate() {
            assert!(pair[0].contains(&format!(" status={turn} ")), "{pair:?}");
            assert_eq!(pair[1], format!("turn {turn}"));
        }
        assert_eq!(text.lines().count(), 2_000);
    }

    #[test]
    fn time_stamps_follow_the_calendar() {
        let mut stamp = Stamp::default();
        let mut at = |seconds: u64, micros: u32| {
            let mut out = Vec::new();
            let at = UNIX_EPOCH + Duration::new(seconds, micros * 1_000 + 999);
            stamp.write(at, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(0, 1), "1970-01-01T00:00:00.000001Z");
        assert_eq!(at(951_782_399, 999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(at(951_782_400, 500_000), "2000-02-29T00:00:00.500000Z");
        assert_eq!(at(2_147_483_648, 0), "2038-01-19T03:14:08.000000Z");
        assert_eq!(at(u64::from(u32::MAX), 0), "2106-02-07T06:28:15.000000Z");
    }
}
