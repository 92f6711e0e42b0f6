//! Detects a shortage of file descriptors, and reserves some for probes and accepted calls, so that
//! callers cannot use them all up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The number of reserved descriptors.
const SIZE: usize = 16;

/// The reserve for upstream connections of accepted calls. A process has one, as it has one table
/// of descriptors.
static FOR_CALLS: Mutex<Reserve> = Mutex::new(Reserve(Vec::new()));

/// Descriptors that are only held to be closed when another is needed.
#[derive(Debug)]
pub struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Returns a full reserve, or as many descriptors as the process can spare.
    #[must_use]
    pub fn new() -> Reserve {
        let mut reserve = Reserve(Vec::with_capacity(SIZE));
        reserve.refill();
        reserve
    }

    /// Refills the reserve, as far as descriptors are available.
    pub fn refill(&mut self) {
        let stderr = io::stderr();
        while self.0.len() < SIZE
            && let Ok(spare) = stderr.as_fd().try_clone_to_owned()
        {
            self.0.push(spare);
        }
    }

    /// Frees a descriptor; returns whether there was one.
    pub fn spend(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve::new()
    }
}

/// Refills the reserve for upstream connections of accepted calls, as far as descriptors are
/// available.
pub fn refill_for_calls() {
    let reserve = FOR_CALLS.lock();
    // a panic elsewhere leaves nothing inconsistent here
    reserve.unwrap_or_else(PoisonError::into_inner).refill();
}

/// Frees a descriptor for the upstream connection of an accepted call; returns whether there was
/// one.
pub fn spend_for_call() -> bool {
    let reserve = FOR_CALLS.lock();
    reserve.unwrap_or_else(PoisonError::into_inner).spend()
}

/// Whether `error` says that the process or the system has no file descriptor left.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}
