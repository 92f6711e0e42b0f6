//! Counts requests by method, status and source without a lookup by name.

use std::fmt;
use std::sync::OnceLock;

use http::Method;
use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// A request's method as a label: the nine registered methods, and one value for all others, so
/// that callers cannot create labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MethodLabel {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `CONNECT`
    Connect,
    /// `TRACE`
    Trace,
    /// Anything else.
    Other,
}

/// The side that ended an exchange early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The caller closed its connection or reset its stream.
    ClientClosed,
    /// The instance broke off, or was silent for longer than `idle_timeout`.
    UpstreamReset,
}

/// The source of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The instance.
    Instance,
    /// The proxy, or there was no response.
    Proxy,
}

/// The number of method labels.
const METHODS: usize = 10;
const SOURCES: usize = 2;

/// The statuses with their own cell: 100 to 599.
const FIRST_CODE: u16 = 100;
const CODES: usize = 500;

/// The cells after those: any other status, and one per [`Cut`]. Except the last, they count as
/// failures, as 5xx do.
const OTHER: usize = CODES;
const UPSTREAM_RESET: usize = CODES + 1;
const CLIENT_CLOSED: usize = CODES + 2;
const COLUMNS: usize = CODES + 3;

/// The requests of one client and app: a counter per method, source and status, created at first
/// use.
pub(super) struct RequestCounts {
    family: IntCounterVec,
    client: String,
    app: String,
    /// One row per method and source, created at first use: most are never used.
    rows: [OnceLock<Row>; METHODS * SOURCES],
}

type Row = Box<[OnceLock<IntCounter>]>;

impl MethodLabel {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MethodLabel::Get => "GET",
            MethodLabel::Head => "HEAD",
            MethodLabel::Post => "POST",
            MethodLabel::Put => "PUT",
            MethodLabel::Patch => "PATCH",
            MethodLabel::Delete => "DELETE",
            MethodLabel::Options => "OPTIONS",
            MethodLabel::Connect => "CONNECT",
            MethodLabel::Trace => "TRACE",
            MethodLabel::Other => "other",
        }
    }
}

impl Cut {
    /// Its value in the log and in the label `code`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Cut::ClientClosed => "client_closed",
            Cut::UpstreamReset => "upstream_reset",
        }
    }
}

impl Source {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Instance => "instance",
            Source::Proxy => "proxy",
        }
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> MethodLabel {
        match *method {
            Method::GET => MethodLabel::Get,
            Method::HEAD => MethodLabel::Head,
            Method::POST => MethodLabel::Post,
            Method::PUT => MethodLabel::Put,
            Method::PATCH => MethodLabel::Patch,
            Method::DELETE => MethodLabel::Delete,
            Method::OPTIONS => MethodLabel::Options,
            Method::CONNECT => MethodLabel::Connect,
            Method::TRACE => MethodLabel::Trace,
            _ => MethodLabel::Other,
        }
    }
}

impl RequestCounts {
    pub(super) fn new(family: IntCounterVec, client: &str, app: &str) -> RequestCounts {
        RequestCounts {
            family,
            client: client.to_owned(),
            app: app.to_owned(),
            rows: Default::default(),
        }
    }

    /// Counts a request by its status, or by its cut.
    pub(super) fn count(&self, method: MethodLabel, code: u16, cut: Option<Cut>, source: Source) {
        let column = match (cut, code.checked_sub(FIRST_CODE).map(usize::from)) {
            (Some(Cut::ClientClosed), _) => CLIENT_CLOSED,
            (Some(Cut::UpstreamReset), _) => UPSTREAM_RESET,
            (None, Some(known)) if known < CODES => known,
            (None, _) => OTHER,
        };
        let row = self.rows[method as usize * SOURCES + source as usize]
            .get_or_init(|| (0..COLUMNS).map(|_| OnceLock::new()).collect());
        row[column]
            .get_or_init(|| match cut {
                Some(cut) => self.resolve(method, cut.label(), source),
                None if column == OTHER => self.resolve(method, "other", source),
                None => self.resolve(method, &code.to_string(), source),
            })
            .inc();
    }

    /// The number of requests.
    pub(super) fn total(&self) -> u64 {
        let rows = self.rows.iter().filter_map(OnceLock::get);
        rows.flatten()
            .filter_map(OnceLock::get)
            .map(IntCounter::get)
            .sum()
    }

    /// The number of failed requests: a 5xx, no response, or cut by the instance.
    pub(super) fn failed(&self) -> u64 {
        const FIRST_FAILURE: usize = 500 - FIRST_CODE as usize;
        let rows = self.rows.iter().filter_map(OnceLock::get);
        rows.flat_map(|row| &row[FIRST_FAILURE..CLIENT_CLOSED])
            .filter_map(OnceLock::get)
            .map(IntCounter::get)
            .sum()
    }

    fn resolve(&self, method: MethodLabel, code: &str, source: Source) -> IntCounter {
        self.family.with_label_values(&[
            &self.client,
            &self.app,
            method.as_str(),
            code,
            source.as_str(),
        ])
    }
}

impl fmt::Debug for RequestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCounts")
            .field("client", &self.client)
            .field("app", &self.app)
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Opts;

    fn counts() -> (IntCounterVec, RequestCounts) {
        let family = IntCounterVec::new(
            Opts::new("n", "h"),
            &["client", "app", "method", "code", "source"],
        )
        .unwrap();
        let counts = RequestCounts::new(family.clone(), "catalog", "");
        (family, counts)
    }

    #[test]
    fn each_method_and_status_has_its_own_counter() {
        let (family, counts) = counts();
        for code in [100, 200, 200, 599] {
            counts.count(MethodLabel::Get, code, None, Source::Instance);
        }
        counts.count(MethodLabel::Get, 200, None, Source::Proxy);
        counts.count(MethodLabel::Other, 200, None, Source::Instance);
        for status in [0, 200] {
            for cut in [Cut::ClientClosed, Cut::UpstreamReset] {
                counts.count(MethodLabel::Put, status, Some(cut), Source::Instance);
            }
        }
        let counted = |method, code, source| {
            let labels = &["catalog", "", method, code, source];
            family.with_label_values(labels).get()
        };
        let value = |method, code| counted(method, code, "instance");
        assert_eq!(counted("GET", "200", "proxy"), 1);
        assert_eq!(value("GET", "200"), 2);
        assert_eq!((value("GET", "100"), value("GET", "599")), (1, 1));
        assert_eq!((value("other", "200"), value("HEAD", "100")), (1, 0));
        assert_eq!(value("PUT", "client_closed"), 2);
        assert_eq!(value("PUT", "upstream_reset"), 2);
        assert_eq!((value("PUT", "200"), value("PUT", "other")), (0, 0));
        assert_eq!((counts.total(), counts.failed()), (10, 3));
    }

    #[test]
    fn statuses_that_nobody_registered_share_one_label() {
        let (family, counts) = counts();
        for code in [0, 99, 600, 999, u16::MAX] {
            counts.count(MethodLabel::Trace, code, None, Source::Proxy);
        }
        let other = family.with_label_values(&["catalog", "", "TRACE", "other", "proxy"]);
        assert_eq!(other.get(), 5);
        assert_eq!(counts.failed(), 5);
    }

    #[test]
    fn a_made_up_method_is_other() {
        let method = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(MethodLabel::from(&method), MethodLabel::Other);
        assert_eq!(MethodLabel::from(&Method::PATCH).as_str(), "PATCH");
    }
}
