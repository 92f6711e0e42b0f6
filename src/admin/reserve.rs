//! File descriptors reserved for the admin address, so that probes are answered even if callers use
//! up all others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The number of reserved descriptors.
const SIZE: usize = 16;

/// Descriptors that are only held to be closed when another is needed.
#[derive(Debug)]
pub(super) struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Returns a full reserve, or as many descriptors as the process can spare.
    pub(super) fn new() -> Reserve {
        let mut reserve = Reserve(Vec::with_capacity(SIZE));
        reserve.refill();
        reserve
    }

    /// Refills the reserve, as far as descriptors are available.
    pub(super) fn refill(&mut self) {
        let stderr = io::stderr();
        while self.0.len() < SIZE
            && let Ok(spare) = stderr.as_fd().try_clone_to_owned()
        {
            self.0.push(spare);
        }
    }

    /// Frees a descriptor; returns whether there was one.
    pub(super) fn spend(&mut self) -> bool {
        self.0.pop().is_some()
    }
}
