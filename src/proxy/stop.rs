//! Why a request is not served to its end by the instance.

use super::caller::CallerError;
use super::respond::Refusal;
use crate::outgoing::dial::Kind;
use crate::upstream::session::Broken;

/// Why a request is not served to its end by the instance.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is answered here.
    Refused(Refusal),
    /// Its caller is gone, or too slow; no answer would reach it.
    Caller(CallerError),
    /// The response broke off after its head was sent.
    Cut(Broken),
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
        Stop::Refused(Refusal::Upstream {
            problem: broken.problem,
            kind: broken.kind,
            timeout: broken.kind == Kind::Timeout,
        })
    }
}

/// A header could not be set, which no value that this program sets can cause.
pub(super) fn internal(_: Box<pingora::Error>) -> Stop {
    Broken::invalid("its head cannot be passed on").into()
}
