//! Why a request ends before the instance has served it.

use super::caller::CallerError;
use super::respond::Refusal;
use crate::upstream::session::Broken;

/// Why a request ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Answer it here.
    Refused(Refusal),
    /// Its caller has gone, is too slow, or sends an invalid body.
    Caller(CallerError),
    /// The connection to the instance failed, or its response is invalid.
    Broken(Broken),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<CallerError> for Stop {
    fn from(error: CallerError) -> Stop {
        Stop::Caller(error)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Stop {
        Stop::Broken(broken)
    }
}
