//! Detects HTTP/2 floods: counts the bytes of frames that a connection sends beyond useful data.
//!
//! A stream of small messages differs from a flood by its progress: bytes of bodies, in both
//! directions, and requests pay for the frames that carry them. The rest is overhead: unrequested
//! acknowledgements, priorities, pings, useless window updates. A connection may send a burst of
//! it, and a little more every second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Instant;

/// The allowed burst of overhead, in bytes: some 15,000 frames.
const BURST: u64 = 256 * 1024;

/// The overhead allowed per second, in bytes.
const PER_SECOND: u64 = 1024;

/// The overhead allowed per request beyond its head, in bytes: for example, the frames that reset
/// it.
const PER_REQUEST: u64 = 256;

/// The useful bytes that a connection has moved.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

/// A connection's overhead.
#[derive(Debug)]
pub(crate) struct Overhead {
    began: Instant,
    /// The largest head, in bytes.
    largest_head: u64,
    requests: u64,
}

impl Progress {
    /// Records progress of so many body bytes.
    pub(crate) fn moved(&self, bytes: usize) {
        // a frame of one byte has a header of nine, and some window updates may be small
        let earned = u64::try_from(bytes).unwrap_or(0).saturating_mul(2) + 64;
        self.0.fetch_add(earned, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Overhead {
    /// Returns the overhead of a connection that started at `now`; a head has at most
    /// `largest_head` bytes.
    pub(crate) fn new(now: Instant, largest_head: usize) -> Overhead {
        Overhead {
            began: now,
            largest_head: u64::try_from(largest_head).unwrap_or(u64::MAX),
            requests: 0,
        }
    }

    /// Records the start of a request.
    pub(crate) fn request(&mut self) {
        self.requests += 1;
    }

    /// Returns whether `received` bytes by `now` are a flood.
    pub(crate) fn is_flood(&self, received: u64, progress: &Progress, now: Instant) -> bool {
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
