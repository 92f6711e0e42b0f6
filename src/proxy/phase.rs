//! Where a connection stands, and what is expected of a request's body: told by the bytes, and by
//! the hooks, which have no more than a shared reference.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Just opened: nothing has come.
    Opened,
    /// Between requests: no byte of the next one has come.
    Idle,
    /// A head is coming in.
    Head,
    /// The head is read: the hooks have the request.
    Request,
    /// Refused: nothing more is read, and what pingora would say is dropped.
    Refused,
    /// HTTP/2, which has heads and bodies of its own.
    Frames,
}

/// What is expected of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing more: there is none, or it has come whole.
    Nothing,
    /// The caller will send it once it is told to go on (RFC 9110, section 10.1.1).
    Announced,
    /// The caller is sending it.
    Due,
}

/// A [`Phase`] that the hooks can set through a shared reference.
pub(crate) struct AtomicPhase(AtomicU8);

impl AtomicPhase {
    const ALL: [Phase; 6] = [
        Phase::Opened,
        Phase::Idle,
        Phase::Head,
        Phase::Request,
        Phase::Refused,
        Phase::Frames,
    ];

    /// At first `phase`.
    pub(crate) fn new(phase: Phase) -> AtomicPhase {
        AtomicPhase(AtomicU8::new(phase as u8))
    }

    pub(crate) fn get(&self) -> Phase {
        Self::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}

/// A [`Body`] that the hooks can set through a shared reference.
pub(crate) struct AtomicBody(AtomicU8);

impl AtomicBody {
    const ALL: [Body; 3] = [Body::Nothing, Body::Announced, Body::Due];

    pub(crate) fn new(body: Body) -> AtomicBody {
        AtomicBody(AtomicU8::new(body as u8))
    }

    pub(crate) fn get(&self) -> Body {
        Self::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(crate) fn set(&self, body: Body) {
        self.0.store(body as u8, Ordering::Relaxed);
    }
}
