//! What stops a request before the instance has served it to its end, and what follows from it.

use super::caller::CallerError;
use super::respond::Refusal;
use crate::outgoing::dial::Kind;
use crate::telemetry::{Cut, Label};
use crate::upstream::session::Broken;

/// Why the instance does not complete a request.
#[derive(Debug)]
pub(super) enum Stop {
    /// Answer it here.
    Refused(Refusal),
    /// Its caller is gone or too slow; no response would reach it.
    Caller(CallerError),
    /// The response broke off after its head was sent.
    Cut(Broken),
}

/// What follows.
#[derive(Debug)]
pub(super) enum Settled {
    /// The caller is answered; the log says why besides.
    Answer(Refusal, Option<String>),
    /// The response is cut: the caller must not take it for whole. The log says why, and which side
    /// ended it.
    Cut(String, Option<Cut>),
}

impl Stop {
    /// How the call failed on its way to the instance or there, and the message, if it did.
    pub(super) fn upstream_failure(&self) -> Option<(Kind, &str)> {
        match self {
            Stop::Refused(Refusal::Upstream { kind, problem, .. }) => Some((*kind, problem)),
            Stop::Cut(broken) => Some((broken.kind, &broken.problem)),
            Stop::Refused(_) | Stop::Caller(_) => None,
        }
    }

    /// What follows, if the head of a response has been sent (`is_answered`) or not.
    pub(super) fn settle(self, is_answered: bool) -> Settled {
        match self {
            Stop::Refused(refusal) if !is_answered => {
                let error = match &refusal {
                    Refusal::Upstream { problem, .. } => Some(problem.clone()),
                    _ => None,
                };
                Settled::Answer(refusal, error)
            }
            Stop::Refused(refusal) => Settled::Cut(refusal.reason().label().to_owned(), None),
            Stop::Caller(error @ CallerError::TooSlow) if !is_answered => {
                Settled::Answer(Refusal::SlowBody, Some(error.to_string()))
            }
            Stop::Caller(error @ CallerError::Malformed) if !is_answered => {
                Settled::Answer(Refusal::Unreadable, Some(error.to_string()))
            }
            Stop::Caller(error) => {
                let has_left = error == CallerError::Gone;
                Settled::Cut(error.to_string(), has_left.then_some(Cut::ClientClosed))
            }
            Stop::Cut(broken) => Settled::Cut(broken.problem, Some(Cut::UpstreamReset)),
        }
    }
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

/// A header could not be set; impossible with the values that this program sets.
pub(super) fn internal(_: Box<pingora::Error>) -> Stop {
    Broken::invalid("its head cannot be passed on").into()
}
