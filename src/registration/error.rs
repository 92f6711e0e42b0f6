//! How a call can fail, in the kinds that a caller goes on by differently.

/// A call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// How.
    pub kind: Kind,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was to be sent cannot be: nothing was.
    Unsendable,
    /// There was no connection.
    Unreached,
    /// 400: the request is refused as it stands (RFC 7591, section 3.2.2).
    Invalid,
    /// 401: the caller is not known, or there is no such client; Collibra tells no difference
    /// (RFC 7592, section 2.1).
    Unauthorized,
    /// 403: the caller may not do this.
    Forbidden,
    /// 404, 405, 410: there is no such API, or no such client.
    NotFound,
    /// 409: it is at odds with another client, most often by its name.
    Conflict,
    /// 429.
    RateLimited,
    /// Any other refusal, a redirect among them.
    Refused,
    /// 5xx.
    Server,
    /// A success, but not as documented.
    Malformed,
    /// There was no whole answer.
    NoAnswer,
}

impl Kind {
    /// Whether Collibra may have done what it was asked for all the same: then only looking tells.
    #[must_use]
    pub fn may_be_done(self) -> bool {
        matches!(self, Kind::Server | Kind::Malformed | Kind::NoAnswer)
    }
}
