//! Counts requests by method, status and source without a lookup by name.

use std::ops::Range;
use std::sync::OnceLock;

use http::Method;
use prometheus::{IntCounter, IntCounterVec};

use super::label::{Label, labels};

labels! {
    /// A request's method as a label: the nine registered methods, and one value for all others, so
    /// that callers cannot create labels.
    pub(super) enum MethodLabel {
        /// `GET`
        Get = "GET",
        /// `HEAD`
        Head = "HEAD",
        /// `POST`
        Post = "POST",
        /// `PUT`
        Put = "PUT",
        /// `PATCH`
        Patch = "PATCH",
        /// `DELETE`
        Delete = "DELETE",
        /// `OPTIONS`
        Options = "OPTIONS",
        /// `CONNECT`
        Connect = "CONNECT",
        /// `TRACE`
        Trace = "TRACE",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// The side that ended an exchange early.
    pub enum Cut {
        /// The caller closed its connection or reset its stream.
        ClientClosed = "client_closed",
        /// The instance broke off, or was silent for longer than `idle_timeout`.
        UpstreamReset = "upstream_reset",
    }
}

labels! {
    /// The source of a response.
    pub(super) enum Source {
        /// The instance.
        Instance = "instance",
        /// The proxy, or there was no response.
        Proxy = "proxy",
    }
}

const METHODS: usize = MethodLabel::ALL.len();
const SOURCES: usize = Source::ALL.len();

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
#[derive(Debug)]
pub(super) struct RequestCounts {
    family: IntCounterVec,
    client: String,
    app: String,
    /// One row per method and source, created at first use: most are never used.
    rows: [OnceLock<Row>; METHODS * SOURCES],
}

type Row = Box<[OnceLock<IntCounter>]>;

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> MethodLabel {
        let mut known = MethodLabel::ALL.iter();
        let known = known.find(|label| label.label() == method.as_str());
        known.copied().unwrap_or(MethodLabel::Other)
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
        let code = || match cut {
            Some(cut) => cut.label().to_owned(),
            None if column == OTHER => "other".to_owned(),
            None => code.to_string(),
        };
        let created = || {
            let labels = [
                &*self.client,
                &self.app,
                method.label(),
                &code(),
                source.label(),
            ];
            self.family.with_label_values(&labels)
        };
        row[column].get_or_init(created).inc();
    }

    /// The number of requests.
    pub(super) fn total(&self) -> u64 {
        self.sum(0..COLUMNS)
    }

    /// The number of failed requests: a 5xx, no response, or cut by the instance.
    pub(super) fn failed(&self) -> u64 {
        self.sum(500 - usize::from(FIRST_CODE)..CLIENT_CLOSED)
    }

    fn sum(&self, columns: Range<usize>) -> u64 {
        let rows = self.rows.iter().filter_map(OnceLock::get);
        rows.flat_map(|row| &row[columns.clone()])
            .filter_map(OnceLock::get)
            .map(IntCounter::get)
            .sum()
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
        assert_eq!(MethodLabel::from(&Method::PATCH).label(), "PATCH");
    }
}
