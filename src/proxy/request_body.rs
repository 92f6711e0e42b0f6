//! The body of a request on its way to the instance: what is expected of it, how fast it comes, and a
//! copy for as long as it is small, so that the request can be sent again.

use std::num::NonZeroU32;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;

use super::caller::Caller;
use super::pace::Pace;

/// The largest body of a request that is kept, in bytes.
const LARGEST_KEPT: usize = 64 * 1024;

/// The request's body on its way.
pub(super) struct Body {
    pub(super) state: BodyState,
    /// What was read of it, for as long as that is little.
    pub(super) kept: Option<Vec<Bytes>>,
    /// How much has come, in bytes.
    pub(super) bytes: usize,
    /// How fast it comes.
    pub(super) pace: Pace,
}

/// What is expected of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// The caller sends it once it is asked for it.
    Announced,
    /// The caller is sending it.
    Due,
    /// There is none, or it has come whole.
    Done,
}

impl Body {
    /// That of the request of `caller`, who has to send it at `rate`.
    pub(super) fn of(caller: &mut Caller, rate: Option<NonZeroU32>) -> Body {
        let state = if !caller.has_body() {
            BodyState::Done
        } else if caller.expects_continue() {
            BodyState::Announced
        } else {
            BodyState::Due
        };
        Body {
            state,
            kept: Some(Vec::new()),
            bytes: 0,
            pace: if caller.head().headers.contains_key(CONTENT_LENGTH) {
                Pace::of(rate)
            } else {
                Pace::with_late_start(rate)
            },
        }
    }

    /// Whether nothing more of it will come.
    pub(super) fn is_done(&self) -> bool {
        self.state == BodyState::Done
    }

    /// What is read from the caller next.
    pub(super) fn reading(&self) -> Reading {
        if self.is_done() {
            Reading::End
        } else {
            Reading::Body
        }
    }

    /// Whether all that was read of it is still there.
    pub(super) fn is_at_hand(&self) -> bool {
        self.kept.is_some()
    }

    /// A part of it has come.
    pub(super) fn came(&mut self, part: &Bytes) {
        if self.bytes == 0 {
            self.pace.starts();
        }
        self.pace.moved(u64::try_from(part.len()).unwrap_or(0));
        self.bytes += part.len();
        if self.bytes > LARGEST_KEPT {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(part.clone());
        }
    }
}

/// What is read from the caller while the instance is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The body.
    Body,
    /// That it has gone, for its body has come whole.
    End,
    /// Nothing: the instance takes no more of the body.
    Nothing,
}
