//! Whether an HTTP/2 connection is a flood: how many bytes of frames it sends beside what they are
//! for.
//!
//! A stream of small messages is told from a flood by its progress: bytes of bodies, both ways, and
//! requests pay for the frames that carry them. What is left, acknowledgements nobody asked for,
//! priorities, pings, windows for nothing, is overhead. Of that a connection may send so much at
//! once, and a little for every second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Instant;

/// The overhead that may come at once, in bytes: some 15,000 frames.
const BURST: u64 = 256 * 1024;

/// The overhead that a second earns, in bytes.
const PER_SECOND: u64 = 1024;

/// What a request earns, in bytes, beside its head: the frames with which it is reset, say.
const PER_REQUEST: u64 = 256;

/// What a connection has moved that is of use.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

/// A connection's overhead.
#[derive(Debug)]
pub(super) struct Overhead {
    began: Instant,
    /// What one head may have, in bytes.
    largest_head: u64,
    requests: u64,
}

impl Progress {
    /// So many bytes of a body were moved.
    pub(super) fn moved(&self, bytes: usize) {
        // a frame of one byte has a head of nine, and some windows may be small
        let earned = u64::try_from(bytes).unwrap_or(0).saturating_mul(2) + 64;
        self.0.fetch_add(earned, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Overhead {
    /// That of a connection that began at `now`; a request's head has at most `largest_head` bytes.
    pub(super) fn new(now: Instant, largest_head: usize) -> Overhead {
        Overhead {
            began: now,
            largest_head: u64::try_from(largest_head).unwrap_or(u64::MAX),
            requests: 0,
        }
    }

    /// A request has begun.
    pub(super) fn request(&mut self) {
        self.requests += 1;
    }

    /// Whether what the connection has `received` by `now` is a flood.
    pub(super) fn is_flood(&self, received: u64, progress: &Progress, now: Instant) -> bool {
        let per_request = self.largest_head.saturating_add(PER_REQUEST);
        let seconds = now.since(self.began).as_secs();
        let earned = BURST
            .saturating_add(seconds.saturating_mul(PER_SECOND))
            .saturating_add(self.requests.saturating_mul(per_request))
            .saturating_add(progress.get());
        received > earned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FRAME: u64 = 17;

    #[test]
    fn frames_for_nothing_are_a_flood_and_those_of_a_stream_are_not() {
        let began = Instant::ORIGIN + Duration::from_secs(1);
        let overhead = Overhead::new(began, 65_536);
        let progress = Progress::default();
        assert!(!overhead.is_flood(15_000 * FRAME, &progress, began));
        assert!(overhead.is_flood(16_000 * FRAME, &progress, began));
        for _ in 0..1_000_000 {
            progress.moved(1);
        }
        assert!(!overhead.is_flood(1_000_000 * 10, &progress, began));
    }

    #[test]
    fn a_ping_a_second_is_never_a_flood() {
        let began = Instant::ORIGIN + Duration::from_secs(1);
        let overhead = Overhead::new(began, 65_536);
        let day = Duration::from_secs(86_400);
        assert!(!overhead.is_flood(86_400 * FRAME, &Progress::default(), began + day));
    }
}
