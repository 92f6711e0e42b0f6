//! How a call fails, by what the caller can do about it.

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure.
    pub kind: Kind,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be built; nothing was sent.
    Unsendable,
    /// The connection failed.
    Unreached,
    /// 400: the request is invalid (RFC 7591, section 3.2.2).
    Invalid,
    /// 401: the caller is unknown, or the client does not exist. Collibra does not distinguish the
    /// two (RFC 7592, section 2.1).
    Unauthorized,
    /// 403: the caller lacks the permission.
    Forbidden,
    /// 404, 405, 410: the API or the client does not exist.
    NotFound,
    /// 409: it conflicts with another client, most often by its name.
    Conflict,
    /// 429.
    RateLimited,
    /// Any other refusal, including redirects.
    Refused,
    /// 5xx.
    Server,
    /// A success response that does not match the documentation.
    Malformed,
    /// No complete response.
    NoAnswer,
}

impl Kind {
    /// Returns whether Collibra may have carried out the request nevertheless. Only a read can
    /// tell.
    #[must_use]
    pub fn may_have_succeeded(self) -> bool {
        matches!(self, Kind::Server | Kind::Malformed | Kind::NoAnswer)
    }
}
