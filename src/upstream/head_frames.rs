//! Measures how long the head of an HTTP/2 response takes. h2 waits for a complete header block,
//! however long that takes, and blocks every stream of the connection. So the frames are parsed
//! here, below it (RFC 9113, sections 4.1 and 4.3).

use std::time::Duration;

use tokio::time::Instant;

/// The size of a frame's header, in bytes.
const HEAD: usize = 9;

/// Types of frames that carry header blocks.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag of a header block's last frame.
const END_HEADERS: u8 = 4;

/// The frames that a connection receives.
#[derive(Debug)]
pub(super) struct HeadFrames {
    limit: Duration,
    head: [u8; HEAD],
    /// The received bytes of the frame's header.
    have: usize,
    /// The missing bytes of its payload.
    left: usize,
    /// Since when a header block, or a frame of unknown type, is incomplete.
    since: Option<Instant>,
}

impl HeadFrames {
    /// Returns the initial state; a header block may take as long as `limit`.
    pub(super) fn new(limit: Duration) -> HeadFrames {
        HeadFrames {
            limit,
            head: [0; HEAD],
            have: 0,
            left: 0,
            since: None,
        }
    }

    /// Parses `bytes` received at `now`; returns whether a header block takes too long.
    pub(super) fn are_late(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            if self.have == HEAD && self.left > 0 {
                let n = self.left.min(bytes.len());
                bytes = &bytes[n..];
                self.left -= n;
            } else {
                if self.have == HEAD {
                    self.have = 0;
                }
                self.since.get_or_insert(now);
                self.head[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.have == HEAD {
                    let [one, two, three, ..] = self.head;
                    self.left = usize::from(one) << 16 | usize::from(two) << 8 | usize::from(three);
                }
            }
            let [_, _, _, kind, flags, ..] = self.head;
            let is_block = matches!(kind, HEADERS | CONTINUATION);
            let is_over = self.left == 0 && (!is_block || flags & END_HEADERS != 0);
            if self.have == HEAD && (is_over || !is_block) {
                self.since = None;
            }
        }
        self.since.is_some_and(|since| now - since > self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(vec![7; usize::from(length)]);
        bytes
    }

    /// Returns whether it is too late at some byte, if one arrives each second.
    fn drips(bytes: &[u8], limit: u64) -> bool {
        let mut frames = HeadFrames::new(Duration::from_secs(limit));
        let start = clock::timers();
        (0..)
            .zip(bytes.chunks(1))
            .any(|(second, byte)| frames.are_late(byte, start + Duration::from_secs(second)))
    }

    #[test]
    fn a_header_block_that_drips_is_late() {
        assert!(drips(&frame(HEADERS, END_HEADERS, 100), 60));
        assert!(!drips(&frame(HEADERS, END_HEADERS, 100), 120));
        let parts = [frame(HEADERS, 0, 40), frame(CONTINUATION, END_HEADERS, 40)].concat();
        assert!(drips(&parts, 60));
    }

    #[test]
    fn data_may_drip_and_frames_that_are_whole_are_never_late() {
        assert!(!drips(&frame(0, 0, 200), 10));
        let many = frame(HEADERS, END_HEADERS, 5).repeat(20);
        assert!(!drips(&many, 20));
        let mut frames = HeadFrames::new(Duration::from_secs(1));
        let start = clock::timers();
        for minute in 0..10 {
            let at = start + Duration::from_secs(60 * minute);
            assert!(!frames.are_late(
                &[frame(HEADERS, END_HEADERS, 9), frame(0, 1, 9)].concat(),
                at
            ));
        }
    }
}
