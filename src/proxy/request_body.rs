//! The body of a request on its way to the instance: its state, its rate, and a copy while it is
//! small, so that the request can be sent again.

use std::num::NonZeroU32;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;

use super::caller::Caller;
use crate::downstream::min_rate::MinRate;

/// The largest body that is kept, in bytes.
const LARGEST_KEPT: usize = 64 * 1024;

/// A request's body on its way.
pub(super) struct Body {
    pub(super) state: BodyState,
    /// Whether the instance takes no more of it.
    pub(super) is_refused: bool,
    /// The parts read so far, while they are small: the request may be sent again.
    pub(super) kept: Option<Vec<Bytes>>,
    /// The bytes read so far.
    pub(super) bytes: usize,
    /// The rate at which the caller sends it.
    pub(super) min_rate: MinRate,
}

/// The state of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// The caller sends it after a 100.
    Announced,
    /// The caller is sending it.
    Due,
    /// There is none, or it is complete.
    Done,
    /// The connection has become a tunnel; what the caller sends is no body.
    Tunnel,
}

impl Body {
    /// Returns the body of `caller`'s request, which must be sent at `rate`.
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
            is_refused: false,
            kept: Some(Vec::new()),
            bytes: 0,
            min_rate: if caller.head().headers.contains_key(CONTENT_LENGTH) {
                MinRate::of(rate)
            } else {
                MinRate::with_late_start(rate)
            },
        }
    }

    /// Returns whether no more of it will come.
    pub(super) fn is_done(&self) -> bool {
        self.state == BodyState::Done
    }

    /// Records a received part.
    pub(super) fn received(&mut self, part: &Bytes) {
        if self.bytes == 0 {
            self.min_rate.starts();
        }
        self.min_rate.moved(u64::try_from(part.len()).unwrap_or(0));
        self.bytes += part.len();
        if self.bytes > LARGEST_KEPT {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(part.clone());
        }
    }
}
