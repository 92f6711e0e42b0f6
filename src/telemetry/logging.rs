//! The log: one line per event on standard error, as text for people or as JSON for collectors.
//!
//! The chosen level applies to this program only. Libraries log at `info` at most, pingora less: at
//! `debug` and `trace` they print the headers and bytes that they send, including tokens.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::Mutex;

use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_log::AsLog;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::access::{self, Form};
use super::families::LOG_LINES_DROPPED;
use super::lines;
pub use super::lines::Writing;
use super::lock;
use super::printable::is_printable;

/// The target that follows the chosen level: this crate.
const OWN: &str = "collibra_auth_proxy";

/// The default level.
const DEFAULT: LevelFilter = LevelFilter::INFO;

/// The levels, from least to most.
const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// The process's log level and the filter that applies it. Set when logging starts.
static CHOSEN: Mutex<Option<(LevelFilter, Handle)>> = Mutex::new(None);

type Handle = reload::Handle<Targets, Registry>;

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Why logging did not start, or its level did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such level.
    #[error("{0:?} is no log level; choose one of off, error, warn, info, debug, trace")]
    Level(String),
    /// Another part of the process already logs.
    #[error("logging has already been started in this process")]
    Started,
    /// Logging has not started.
    #[error("logging has not been started in this process")]
    NotStarted,
    /// The system cannot create the thread that writes the lines.
    #[error("no thread for the log: {0}")]
    Thread(io::ErrorKind),
}

impl Format {
    /// Returns text if standard error is a terminal, JSON otherwise.
    #[must_use]
    pub fn default_for_stderr() -> Format {
        if io::stderr().is_terminal() {
            Format::Text
        } else {
            Format::Json
        }
    }
}

/// Starts logging to standard error: for `tracing`, libraries that use `log`, panics, and
/// [`access`]. `level` is one of `off`, `error`, `warn`, `info`, `debug`, `trace`; `None` for
/// `info`. Call it once.
///
/// A separate thread writes the lines, so that a request does not pay for a system call. Logging
/// never waits: if standard error is read too slowly or not at all, lines are dropped and counted.
///
/// # Errors
/// [`Error`] if `level` is invalid, if the process already logs, or if there is no thread.
pub fn init(level: Option<&str>, format: Format) -> Result<Writing, Error> {
    let level = parse(level)?;
    // https://no-color.org: an empty variable counts as unset
    let has_colour = || std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let form = match format {
        Format::Json => Form::Json,
        Format::Text if io::stderr().is_terminal() && has_colour() => Form::Coloured,
        Format::Text => Form::Plain,
    };
    let report = |lost| {
        tracing::warn!(
            lines = lost,
            "log lines were lost: standard error was not read fast enough"
        );
    };
    let (lines, writing) = lines::write_to(Stderr, form, LOG_LINES_DROPPED.clone(), report)
        .map_err(|error| Error::Thread(error.kind()))?;
    let (subscriber, filter) = subscriber(level, form, lines.clone());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Started)?;
    tracing_log::LogTracer::init_with_filter(of_libraries(level)).map_err(|_| Error::Started)?;
    std::panic::set_hook(Box::new(log_panic));
    access::start(lines);
    *lock(&CHOSEN) = Some((level, filter));
    Ok(writing)
}

/// The name of the process's log level; `off` before logging starts.
#[must_use]
pub fn level() -> String {
    let chosen = lock(&CHOSEN);
    let level = chosen
        .as_ref()
        .map_or(LevelFilter::OFF, |(level, _)| *level);
    level.to_string()
}

/// Sets the process's log level by name. Returns its name as [`level`] does.
///
/// # Errors
/// [`Error`] if there is no such level, or logging has not started.
pub fn set_level(name: &str) -> Result<String, Error> {
    let to = parse(Some(name))?;
    let mut chosen = lock(&CHOSEN);
    let (level, filter) = chosen.as_mut().ok_or(Error::NotStarted)?;
    let (before, after) = (level.to_string(), to.to_string());
    let announce = || tracing::info!(before, after, "log level changed");
    if *level >= LevelFilter::INFO {
        announce();
    }
    filter
        .reload(self::filter(to))
        .map_err(|_| Error::NotStarted)?;
    // a reload resets the level of `log` to the program's own
    log::set_max_level(of_libraries(to));
    if *level < LevelFilter::INFO {
        announce();
    }
    *level = to;
    Ok(after)
}

/// The level of records from `log`. Only libraries use `log`; this crate uses `tracing`.
fn of_libraries(level: LevelFilter) -> log::LevelFilter {
    level.min(LevelFilter::INFO).as_log()
}

/// Standard error without the standard library's lock, so that a write that hangs blocks no other
/// thread.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr().as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The panic hook. The standard library's writes to standard error and would wait for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| backtrace.to_string());
    let thread = std::thread::current();
    let thread = thread.name();
    tracing::error!(place, thread, backtrace, "a thread panicked: {words}");
}

fn parse(level: Option<&str>) -> Result<LevelFilter, Error> {
    let Some(given) = level else {
        return Ok(DEFAULT);
    };
    let is_given = |level: &LevelFilter| level.to_string().eq_ignore_ascii_case(given.trim());
    let level = LEVELS.into_iter().find(is_given);
    level.ok_or_else(|| Error::Level(given.to_owned()))
}

/// Returns the filter. It lists the targets that may log freely, so that a new library is quiet.
fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target(OWN, level)
        // these log each disconnect, odd frame, failed handshake or stray datagram, with which
        // anybody could fill the disk; the code that calls these libraries reports what matters
        .with_target("pingora", LevelFilter::OFF)
        .with_target("h2", LevelFilter::OFF)
        .with_target("rustls", LevelFilter::OFF)
        .with_target("hickory", LevelFilter::OFF)
        // it logs failures that the store reports better, and quotes a response that it cannot
        // parse: a Secret
        .with_target("kube_client", LevelFilter::OFF)
}

/// Returns the subscriber and the handle of its filter.
fn subscriber<W>(
    level: LevelFilter,
    form: Form,
    writer: W,
) -> (impl Subscriber + Send + Sync, Handle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(form == Form::Coloured);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match form {
        Form::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
        Form::Plain | Form::Coloured => lines.fmt_fields(debug_fn(write_field)).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::registry().with(lines.with_filter(filter));
    (lines, handle)
}

/// Formats a field as text. Names and messages may come from outside, so no character may end the
/// line or be interpreted by a terminal.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    // metadata that `tracing-log` adds; the line already has it
    if field.name().starts_with("log.") {
        return Ok(());
    }
    if field.index() > 0 {
        writer.write_char(' ')?;
    }
    match (field.name(), writer.has_ansi_escapes()) {
        ("message", _) => {}
        (name, false) => write!(writer, "{name}=")?,
        (name, true) => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
    }
    write!(Printable(writer), "{value:?}")
}

/// Escapes unprintable characters.
struct Printable<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Printable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            if is_printable(c) {
                self.0.write_char(c)?;
            } else {
                write!(self.0, "{}", c.escape_debug())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Returns a subscriber of this `form` at the level `info`.
    pub(in super::super) fn subscriber_to<W>(form: Form, writer: W) -> impl Subscriber + Send + Sync
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        subscriber(LevelFilter::INFO, form, writer).0
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the output of `act` at `level`.
    fn logged(level: &str, form: Form, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let level = parse(Some(level)).unwrap();
        let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
        let (lines, writing) = lines::write_to(sink.clone(), form, dropped, |_| {}).unwrap();
        tracing::subscriber::with_default(subscriber(level, form, lines).0, act);
        drop(writing);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Sends a record as a library that uses `log` does.
    fn from_log(target: &str, level: log::Level, text: &str) {
        let mut record = log::Record::builder();
        record.target(target).level(level);
        tracing_log::format_trace(&record.args(format_args!("{text}")).build()).unwrap();
    }

    #[test]
    fn the_chosen_level_is_this_programs_own() {
        let text = logged("trace", Form::Plain, || {
            tracing::trace!(target: "collibra_auth_proxy::token", "mine");
            for target in [
                "hyper::proto",
                "hyper_util::client",
                "reqwest::connect",
                "kube",
                "redis",
            ] {
                from_log(target, log::Level::Debug, "canary");
                from_log(target, log::Level::Info, "told");
            }
        });
        assert!(text.contains("mine"));
        assert_eq!(text.matches("told").count(), 5, "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn no_library_speaks_for_each_frame_or_connection() {
        for level in ["info", "debug", "trace"] {
            let text = logged(level, Form::Json, || {
                for target in [
                    "h2::proto::ping_pong",
                    "pingora_core::apps::http_app",
                    "pingora_core::protocols::http::v2::client",
                    "pingora_pool",
                    "pingora_proxy::proxy_h1",
                    "rustls::msgs::handshake",
                    "hickory_net::udp::udp_client_stream",
                ] {
                    from_log(target, log::Level::Error, "canary");
                    from_log(target, log::Level::Warn, "canary");
                }
                // h2 uses tracing
                tracing::warn!(target: "h2::proto::streams", "canary");
                tracing::error!(target: "h2::codec::framed_read", "canary");
                tracing::warn!(target: "hickory_resolver", "canary");
            });
            assert_eq!(text, "");
        }
    }

    #[test]
    fn nothing_from_elsewhere_ends_a_line_or_steers_a_terminal() {
        let canary = "a\nb\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{2028}";
        for form in [Form::Plain, Form::Json] {
            let text = logged("info", form, || {
                tracing::warn!(error = %canary, name = canary, "it says {canary}");
                from_log("redis", log::Level::Warn, canary);
            });
            assert_eq!(text.lines().count(), 2, "{text:?}");
            let lines = text.lines();
            assert!(lines.flat_map(str::chars).all(is_printable), "{text:?}");
        }
    }

    #[test]
    fn a_lower_level_holds_for_everyone() {
        let text = logged("error", Form::Plain, || {
            tracing::warn!(target: "collibra_auth_proxy", "canary");
            from_log("hyper", log::Level::Info, "canary");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_at_its_top() {
        let text = logged("info", Form::Json, || {
            tracing::info!(target: "collibra_auth_proxy", client = "catalog", left = 299, "a token");
            from_log("redis", log::Level::Warn, "odd");
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "a token");
        assert_eq!(lines[0]["client"], "catalog");
        assert_eq!(lines[0]["left"], 299);
        assert_eq!(lines[1]["target"], "redis");
        let at = lines[0]["timestamp"].as_str().unwrap();
        assert!(at.ends_with('Z'), "{at}");
    }

    #[test]
    fn a_level_that_is_none_is_told_the_valid_ones() {
        assert_eq!(parse(Some(" Debug ")), Ok(LevelFilter::DEBUG));
        assert_eq!(parse(None), Ok(LevelFilter::INFO));
        let error = init(Some("verbose"), Format::Text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"verbose\" is no log level; choose one of off, error, warn, info, debug, trace"
        );
    }
}
