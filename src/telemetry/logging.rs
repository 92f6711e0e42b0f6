//! The log: one line an event on standard error, as text for people or as JSON for collectors.
//!
//! The level that a user chooses is this program's own. Libraries are held at `info` whatever it
//! is, pingora lower still: at `debug` and `trace` they print the headers and bytes that they
//! send, tokens among them.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_log::AsLog;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use super::lines;
pub use super::lines::Writing;

/// The targets that follow the chosen level: this crate's.
const OWN: &str = "collibra_auth_proxy";

/// The level if none is chosen.
const DEFAULT: LevelFilter = LevelFilter::INFO;

/// What a level may be called, from least to most.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The level is none.
    #[error("{0:?} is no log level; choose one of off, error, warn, info, debug, trace")]
    Level(String),
    /// Something else in the process logs already.
    #[error("logging has already been started in this process")]
    Started,
    /// The system gives no thread to write the lines.
    #[error("no thread for the log: {0}")]
    Thread(io::ErrorKind),
}

impl Format {
    /// Text if standard error is a terminal, JSON if it is not.
    #[must_use]
    pub fn default_for_stderr() -> Format {
        if io::stderr().is_terminal() {
            Format::Text
        } else {
            Format::Json
        }
    }
}

/// Starts logging to standard error, for `tracing` and for libraries that use `log`. `level` is
/// one of `off`, `error`, `warn`, `info`, `debug`, `trace`; `None` means `info`. Call it once.
///
/// Lines are written by a thread of their own, so that a request does not pay for a system call.
/// None is lost: who logs faster than can be written waits.
///
/// # Errors
/// [`Error`] if `level` is none of these, if the process logs already, or if there is no thread.
pub fn init(level: Option<&str>, format: Format) -> Result<Writing, Error> {
    let level = parse(level)?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (writer, writing) =
        lines::write_to(io::stderr()).map_err(|error| Error::Thread(error.kind()))?;
    let subscriber = subscriber(level, format, colour, writer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Started)?;
    // the crate itself speaks through tracing: what comes through `log` is a library's
    let libraries = level.min(LevelFilter::INFO).as_log();
    tracing_log::LogTracer::init_with_filter(libraries).map_err(|_| Error::Started)?;
    Ok(writing)
}

fn parse(level: Option<&str>) -> Result<LevelFilter, Error> {
    let Some(given) = level else {
        return Ok(DEFAULT);
    };
    LEVELS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(given.trim()))
        .map(|(_, level)| *level)
        .ok_or_else(|| Error::Level(given.to_owned()))
}

/// Who may say what: a list of who may speak freely, so that a library added tomorrow is quiet.
fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target(OWN, level)
        // its errors are every app that hangs up; what matters of them is in the access log
        .with_target("pingora", level.min(LevelFilter::ERROR))
        .with_target("pingora_proxy", LevelFilter::OFF)
        // it says each failure that the store tells better, and an answer that it cannot read whole:
        // a Secret
        .with_target("kube_client", LevelFilter::OFF)
}

fn subscriber<W>(
    level: LevelFilter,
    format: Format,
    colour: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colour);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(level)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

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

    /// What is written by `act` at `level`.
    fn logged(level: &str, format: Format, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let level = parse(Some(level)).unwrap();
        let subscriber = subscriber(level, format, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// A record as a library that uses `log` sends it.
    fn from_log(target: &str, level: log::Level, text: &str) {
        let mut record = log::Record::builder();
        record.target(target).level(level);
        tracing_log::format_trace(&record.args(format_args!("{text}")).build()).unwrap();
    }

    #[test]
    fn the_chosen_level_is_this_programs_own() {
        let text = logged("trace", Format::Text, || {
            tracing::trace!(target: "collibra_auth_proxy::token", "mine");
            for target in [
                "hyper::proto",
                "h2",
                "reqwest::connect",
                "rustls",
                "kube",
                "redis",
            ] {
                from_log(target, log::Level::Debug, "canary");
                from_log(target, log::Level::Info, "told");
            }
        });
        assert!(text.contains("mine"));
        assert_eq!(text.matches("told").count(), 6, "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn pingora_is_never_heard_above_its_errors() {
        for level in ["info", "debug", "trace"] {
            let text = logged(level, Format::Json, || {
                for target in ["pingora_core::protocols", "pingora_pool", "pingora_http"] {
                    from_log(target, log::Level::Error, "told");
                    from_log(target, log::Level::Warn, "canary");
                    from_log(target, log::Level::Debug, "canary");
                }
                from_log("pingora_proxy::proxy_h1", log::Level::Error, "canary");
            });
            assert_eq!(text.matches("told").count(), 3, "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_lower_level_holds_for_everyone() {
        let text = logged("error", Format::Text, || {
            tracing::warn!(target: "collibra_auth_proxy", "canary");
            from_log("hyper", log::Level::Info, "canary");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_at_its_top() {
        let text = logged("info", Format::Json, || {
            tracing::info!(target: "collibra_auth_proxy", client = "catalog", left = 299, "a token");
            from_log("rustls", log::Level::Warn, "odd");
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "a token");
        assert_eq!(lines[0]["client"], "catalog");
        assert_eq!(lines[0]["left"], 299);
        assert_eq!(lines[1]["target"], "rustls");
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
