//! File descriptors kept back for the admin address: probes are answered although callers use up
//! all others.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How many descriptors are kept back.
const SIZE: usize = 16;

/// Descriptors that are good for nothing but being closed when another is needed.
#[derive(Debug)]
pub(super) struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// A full one, or as many descriptors as the process can spare.
    pub(super) fn new() -> Reserve {
        let mut reserve = Reserve(Vec::with_capacity(SIZE));
        reserve.refill();
        reserve
    }

    /// Takes descriptors back, as far as there are any.
    pub(super) fn refill(&mut self) {
        let stderr = io::stderr();
        while self.0.len() < SIZE
            && let Ok(spare) = stderr.as_fd().try_clone_to_owned()
        {
            self.0.push(spare);
        }
    }

    /// Frees a descriptor; gives whether there was one.
    pub(super) fn spend(&mut self) -> bool {
        self.0.pop().is_some()
    }
}
